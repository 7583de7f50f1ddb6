"""A bank's screen, measured: bigram models beside exact routing on validation documents.

Not in the paper.  Letters: D documents, E experts.
"""

import numpy as np
from jaxtyping import Float, Int

from cr_jax.bank import ExpertBank, check_bigrams
from cr_jax.bank.screen_file import Screen
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.routing import screen
from cr_jax.routing.document import route_of
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.scored_documents import LENGTHS, ScoredDocuments
from cr_jax.scoring.batching import check_bank
from cr_jax.scoring.bigram_lookup import BigramLookup
from cr_jax.scoring.residuals import WindowSums

AT_LEAST = 0.999  # of documents whose exact winner the margin must hold


def fit_screen(
    bank: ExpertBank, scored: ScoredDocuments, at_least: float = AT_LEAST, alpha: float = 0.05
) -> Screen:
    """Where the bank's bigram models decide alone (`routing.screen`).

    scored: of this bank, by all experts: the margin is to hold the winner among all, also one far
    from the bigram models.  alpha: of known and unknown.  `UserError` when an expert has no bigram
    model, or there are too few documents.
    """
    check_bank(bank)
    check_bigrams(bank)
    if not 0 <= at_least <= 1:
        raise UserError(f"at_least is a share and must lie in [0, 1], got {at_least}")
    lookup = BigramLookup([bank.bigrams[n] for n in bank.names])
    lengths, measured = scored.lengths, {}
    for k in LENGTHS:
        at = np.flatnonzero(lengths >= k)
        exact = [_exact(bank, scored.windows[d], scored.sums[d], k, alpha) for d in at]
        measured[k] = screen.Measured(
            _bigrams(lookup, [scored.windows[d] for d in at], lengths[at], np.full(len(at), k)),
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


def _exact(
    bank: ExpertBank, windows: Windows, sums: WindowSums, k: int, alpha: float
) -> tuple[int, bool]:
    """(the winner, whether it knows the first k windows of a document)."""
    first = sums.take((slice(None), slice(k)))
    found = route_of(bank, windows.take(slice(k)), first, RouteOptions(alpha=alpha))
    return bank.index(found.nearest), bool(found.known)


def said(made: Screen) -> str:
    """A line about a screen."""
    longest = max(made.margins)
    few = made.few.get(longest, ())
    more = f"; too few documents of {', '.join(few)} of {longest} windows" if few else ""
    return (
        f"screen: bigram models alone decide {made.decided:.0%} of {made.documents:,} beginnings "
        f"of validation documents, and agree with exact routing in {made.agreement:.2%}{more}"
    )
