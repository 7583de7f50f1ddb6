"""What an expert makes of its own validation text, measured: windows and whole documents.

    expert + its own validation windows -> calibration.Calibration

Not in the paper.  Letters: B windows, n of them or of documents.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from cr_jax.config import DOCUMENT_WINDOWS, SEEN, ModelConfig, Scoring, check_scoring
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.scoring.batching import BatchSizes, check_windows, unmapped
from cr_jax.scoring.bigram import COLLECTION
from cr_jax.scoring.calibration import FEWEST, MOST, SHORTEST, Calibration, p_sums
from cr_jax.scoring.devices import scored
from cr_jax.scoring.residuals import Scorer, residual_means, window_sums


@functools.partial(jax.jit, static_argnames=("scorer", "groups"))
def _one_expert(scorer, params, tokens, mask, groups):
    """`router.score_experts` of one expert: params [1, ...] -> arrays [1, B, ...]."""
    one = lambda expert, its_mask: scorer(expert, tokens, its_mask, groups[1])
    return unmapped(one)(params, mask[None])


def calibrate(
    model: ModelConfig,
    params: Any,
    windows: Windows,
    documents: Windows | None = None,
    rule: Scoring = SEEN,
    sizes: BatchSizes | None = None,
) -> Calibration:
    """One expert's residuals on windows of its OWN validation split, at several lengths.

    params: without the expert axis, under a rule with a bigram_weight `bigram.with_bigram` of them.
    Lengths: the window L and powers of two from 8 up to it; a window is cut to its first tokens and
    the rest is padding, as in the last window of a document.  At most 1,000 windows, evenly spaced,
    per length.  An error rate of alpha needs more than 1 / alpha of them.  documents: windows of
    whole validation documents (`data.document_windows`), by which a document's p-value is then
    found.  `UserError` when there are no windows, or no bigram model where the rule wants one.  Not
    in the paper.
    """
    sizes, rule = sizes or BatchSizes.for_device(), rule.residual_rule
    check_scoring(rule, model)
    if rule.bigram_weight and COLLECTION not in params:
        raise UserError(
            "the rule has a bigram_weight (config.scoring): give calibrate the "
            "expert's bigram model too (scoring.bigram.with_bigram)"
        )

    scorer = Scorer(window_sums, model, rule)
    alone = jax.tree.map(lambda x: x[None], params)

    def means(some):
        check_windows(model, some)
        sums = scored(_one_expert, scorer, alone, some, sizes)
        nats = np.asarray(sums.residual, np.float64)
        return residual_means(nats, some.mask.sum(-1))[0]

    residuals = {}
    for length, at in usable(windows, model).items():
        at = at[np.linspace(0, at.size - 1, min(MOST, at.size)).astype(int)]
        mask = windows.mask[at] & (np.arange(model.window)[None] < length)
        residuals[length] = np.sort(means(Windows(windows.tokens[at], mask, windows.document[at])))
    made = Calibration(residuals)
    if documents is None or not len(documents):
        return made
    return dataclasses.replace(made, documents=_of_documents(made, means(documents), documents))


def usable(windows: Windows, model: ModelConfig) -> dict[int, np.ndarray]:
    """Length -> indices of the windows that `calibrate` uses at that length.

    Needs no parameters: a run can ask before it trains.  `UserError` when there is none.
    """
    real = windows.mask.sum(-1)
    lengths = [1 << k for k in range(3, 63) if SHORTEST <= 1 << k < model.window] + [model.window]
    at = {n: np.flatnonzero(real >= n) for n in lengths}
    long_enough = {n: rows for n, rows in at.items() if rows.size}
    if not long_enough:
        raise UserError(
            "no validation window is long enough to calibrate on: give at least "
            f"{min(at, default=model.window)} tokens of validation text per expert"
        )
    return long_enough


def _of_documents(
    made: Calibration, means: Float[np.ndarray, " B"], documents: Windows
) -> dict[int, Float[np.ndarray, " _"]]:
    """`Calibration.documents` from the residuals of the documents' windows, nats/token."""
    tokens, means_of = documents.mask.sum(-1), {count: [] for count in DOCUMENT_WINDOWS}
    p = made.p_value(means, tokens)
    for document in np.unique(documents.document):
        at = np.flatnonzero((documents.document == document) & np.isfinite(p))
        for count in DOCUMENT_WINDOWS:
            if at.size >= count:
                weighted, total, *_ = p_sums(p[at[:count]], tokens[at[:count]])
                means_of[count].append(weighted / total)
    return {k: _spread(np.sort(v)) for k, v in means_of.items() if len(v) >= FEWEST}


def _spread(values):
    """At most `MOST` of them, evenly: the lowest alone would make every p-value large."""
    return values[np.linspace(0, len(values) - 1, min(MOST, len(values))).astype(int)]
