"""A bank's screen, measured: bigram models beside exact routing on validation documents.

Not in the paper.  Letters: D documents, E experts.
"""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from cr_jax.bank import ExpertBank, check_bigrams
from cr_jax.bank.screen_file import Screen
from cr_jax.config import DOCUMENT_WINDOWS
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.routing import screen
from cr_jax.routing.chosen import Scorer, experts_of, joined
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.ranking import one_sided_p_values, ranking_score
from cr_jax.scoring.batching import BatchSizes, check_bank
from cr_jax.scoring.bigram_lookup import BigramLookup
from cr_jax.scoring.calibration import FEWEST, p_sums

AT_LEAST = 0.999  # of documents whose exact winner the margin must hold
LENGTHS = (1, *DOCUMENT_WINDOWS)
DOCUMENTS = 100  # of each expert, at most
# Documents times experts, about: every expert scores every document, so that no winner is missed;
# ten small experts take several minutes for a hundred documents of each on a CPU.
WORK = 20_000


def fit_screen(
    bank: ExpertBank,
    documents: Mapping[str, Windows],
    at_least: float = AT_LEAST,
    alpha: float = 0.05,
    sizes: BatchSizes | None = None,
) -> Screen:
    """Where the bank's bigram models decide alone (`routing.screen`).

    documents: per expert, windows of whole validation documents (`data.document_windows`), which no
    expert was trained on; `documents_each` of each say most.  All experts score all of them.
    alpha: of known and unknown.  `UserError` when an expert has no bigram model, or there are too
    few documents.
    """
    check_bank(bank)
    check_bigrams(bank)
    if not 0 <= at_least <= 1:
        raise UserError(f"at_least is a share and must lie in [0, 1], got {at_least}")
    every = [
        own.take(np.flatnonzero(own.document == d))
        for own in documents.values()
        for d in np.unique(own.document)
    ]
    every = [x.take(np.flatnonzero(x.mask.all(1))) for x in every if x.mask[0].all()]
    if not every:
        raise UserError("a screen needs validation documents of at least one window")
    lookup = BigramLookup([bank.bigrams[n] for n in bank.names])
    lengths = np.array([len(x) for x in every])
    # All experts: the margin is to hold the winner among all, also one far from the bigram models.
    with Scorer(experts_of(bank), RouteOptions(alpha=alpha), sizes) as scorer:
        nats = scorer.begin(joined(every), np.ones((len(bank.names), lengths.sum()), bool))()
    ends = np.cumsum(lengths)
    measured = {}
    for k in LENGTHS:
        at = np.flatnonzero(lengths >= k)
        exact = [_exact(bank, nats[:, ends[d] - lengths[d] :][:, :k], alpha) for d in at]
        measured[k] = screen.Measured(
            _bigrams(lookup, [every[d] for d in at], lengths[at], np.full(len(at), k)),
            np.array([winner for winner, _ in exact], int),
            np.array([known for _, known in exact], bool),
        )
    weight = bank.scoring.typicality_weight
    return screen.fit(measured, bank.names, alpha, weight, at_least)


def _bigrams(
    lookup: BigramLookup,
    documents: list[Windows],
    lengths: Int[np.ndarray, " D"],
    first: Int[np.ndarray, " D"],
) -> Float[np.ndarray, "D E"]:
    """nats/token of the first so many windows of each document."""
    ids = [x.tokens[:k].reshape(-1) for x, k in zip(documents, first, strict=True)]
    sizes = np.array([len(x) for x in ids], int)
    if not len(ids):
        return np.zeros((0, lookup.alone.shape[1]))
    return lookup.sums(np.concatenate(ids), np.cumsum(sizes) - sizes) / sizes[:, None]


def _exact(bank: ExpertBank, nats: Float[np.ndarray, "E B"], alpha: float) -> tuple[int, bool]:
    """(the winner, whether it knows the document) by nats of whole windows."""
    lengths = np.full(nats.shape[1], bank.model.window)
    means = nats / bank.model.window
    winner = int(ranking_score(bank, means, lengths).mean(1).argmin())
    high, low = one_sided_p_values(bank, means, lengths)[:, winner]
    p = bank.calibration[bank.names[winner]].document_p(
        *p_sums(high, lengths), p_sums(low, lengths)[0]
    )
    return winner, not math.isnan(p) and p >= alpha


def documents_each(experts: int) -> int:
    """How many documents of each expert to measure with: fewer where there are many experts, and
    twice as many as a usual range needs at least."""
    return max(2 * FEWEST, min(DOCUMENTS, WORK // max(1, experts) ** 2))


def first_documents(windows: Windows, count: int) -> Windows:
    """The windows of at most `count` documents, evenly spread."""
    every = np.unique(windows.document)
    some = every[np.linspace(0, len(every) - 1, min(count, len(every))).astype(int)]
    return windows.take(np.flatnonzero(np.isin(windows.document, some)))


def said(made: Screen) -> str:
    """A line about a screen."""
    longest = max(made.margins)
    few = made.few.get(longest, ())
    more = f"; too few documents of {', '.join(few)}: always candidates" if few else ""
    return (
        f"screen: bigram models alone decide {made.decided:.0%} of {made.documents:,} beginnings "
        f"of validation documents, and agree with exact routing in {made.agreement:.2%}{more}"
    )
