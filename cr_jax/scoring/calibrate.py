"""What an expert makes of its own validation text, measured: windows and whole documents.

    expert + its own validation windows -> calibration.Calibration

Not in the paper.  Letters: B windows, n of them or of documents.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cr_jax.config import DOCUMENT_WINDOWS, SEEN, ModelConfig, Scoring
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.scoring.batching import check_sizes, residual_rows, rows_per_call
from cr_jax.scoring.bigram import BigramModel, table, with_bigrams
from cr_jax.scoring.calibration import FEWEST, MOST, SHORTEST, Calibration, p_sums
from cr_jax.scoring.residuals import residual_means, scored


def calibrate(model: ModelConfig, params: Any, windows: Windows, *,
              documents: Windows | None = None, scoring: Scoring = SEEN,
              bigram: BigramModel | None = None, most: int = MOST, batch: int = 64,
              chunk: int = 8192) -> Calibration:
    """One expert's residuals on windows of its OWN validation split, at several lengths.

    params: without the expert axis.  Lengths: the window L and powers of two from 8 up to it; a
    window is cut to its first tokens and the rest is padding, as in the last window of a document.
    At most `most` windows, evenly spaced.  An error rate of alpha needs more than 1 / alpha of
    them.  documents: windows of whole validation documents (`data.document_windows`), by which a
    document's p-value is then found.  bigram: the expert's, for rules with a bigram_weight.
    `UserError` when there are no windows, or no bigram model where the rule wants one.  Not in the
    paper.
    """
    check_sizes(most=most, batch=batch, chunk=chunk)
    real = windows.mask.sum(-1)
    stacked = jax.tree.map(lambda x: jnp.asarray(x)[None], params)
    if scoring.bigram_weight:
        if bigram is None:
            raise UserError("the rule has a bigram_weight (config.scoring): give calibrate the "
                            "expert's bigram model")
        stacked = with_bigrams(stacked, table([bigram]))
    lengths = [1 << k for k in range(3, 63) if SHORTEST <= 1 << k < model.window] + [model.window]
    found = {}
    for length in lengths:
        at = np.flatnonzero(real >= length)
        if not at.size or not scored(scoring, model.window)[:length].any():
            continue
        at = at[np.linspace(0, at.size - 1, min(most, MOST, at.size)).astype(int)]
        mask = windows.mask[at] & (np.arange(model.window)[None] < length)
        cut = Windows(windows.tokens[at], mask, windows.document[at])
        found[length] = np.sort(residual_means(*residual_rows(
            model, stacked, cut, rows_per_call(at.size, batch), scoring=scoring, chunk=chunk))[0])
    if not found:
        raise UserError("no validation window is long enough to calibrate on: give at least "
                        f"{min(SHORTEST, model.window)} tokens of validation text per expert")
    made = Calibration(found)
    if documents is None or not len(documents):
        return made
    means = residual_means(*residual_rows(
        model, stacked, documents, rows_per_call(len(documents), batch), scoring=scoring,
        chunk=chunk))[0]
    return dataclasses.replace(made, documents=_of_documents(made, means, documents))


def _of_documents(made: Calibration, means: Float[np.ndarray, " B"], documents: Windows
                  ) -> dict[int, Float[np.ndarray, " _"]]:
    """`Calibration.documents` from the residuals of the documents' windows, nats/token."""
    tokens, found = documents.mask.sum(-1), {count: [] for count in DOCUMENT_WINDOWS}
    p = made.p_value(means, tokens)
    for document in np.unique(documents.document):
        at = np.flatnonzero((documents.document == document) & np.isfinite(p))
        for count in DOCUMENT_WINDOWS:
            if at.size >= count:
                weighted, total, *_ = p_sums(p[at[:count]], tokens[at[:count]])
                found[count].append(weighted / total)
    # Of more than are kept the evenly spread ones: the lowest alone would make every p-value large.
    spread = lambda v: v[np.linspace(0, len(v) - 1, min(MOST, len(v))).astype(int)]
    return {k: spread(np.sort(np.round(v, 4))) for k, v in found.items() if len(v) >= FEWEST}
