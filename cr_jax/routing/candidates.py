"""Which experts a cascade scores in full, its candidates, and how many of them that takes.

Candidates of a window are the `min_candidates` experts whose bigram models have the lowest
residuals, and every other whose bigram model lies within `candidate_margin` nats/token of the
lowest: few where the bigram models are sure, many where they cannot tell.  Offsets, one for each
bigram model, are taken off first.  numpy only.  Not in the paper.
Letters: E experts, B windows.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from cr_jax.bank.cascade_file import CandidateFit
from cr_jax.errors import UserError
from cr_jax.scoring.offsets import fit_offsets
from cr_jax.scoring.residuals import lowest

TINY = np.finfo(np.float64).tiny  # the margin that one as near as the last candidate needs


def nearest(residuals: Float[np.ndarray, "E B"], count: int) -> Int[np.ndarray, "K B"]:
    """The `count` experts with the lowest residual, lowest first; of equal ones the first."""
    return np.argsort(residuals, axis=0, kind="stable")[:count]


def needed_margins(
    residuals: Float[np.ndarray, "E B"], min_candidates: int
) -> Float[np.ndarray, "E B"]:
    """The least margin, nats/token, with which each expert is a candidate: 0 for the
    `min_candidates` nearest, for others what their bigram model lies above the lowest, and
    infinite without a finite residual.

    residuals: of the bigram models, nats/token, less their offsets.
    """
    near = nearest(residuals, min_candidates)
    finite = np.isfinite(residuals)
    low = np.where(finite, residuals, np.inf).min(0)
    above = np.where(finite, residuals, np.inf) - np.where(np.isfinite(low), low, 0)
    margins = np.maximum(above, TINY)  # as near as the last candidate, and none without a margin
    np.put_along_axis(margins, near, 0.0, 0)
    return margins


def are_candidates(
    residuals: Float[np.ndarray, "E B"], min_candidates: int, candidate_margin: float = 0.0
) -> Bool[np.ndarray, "E B"]:
    """Whether each expert is scored in full: the `min_candidates` nearest, and all within
    `candidate_margin` nats/token of the nearest.  In each window these are its nearest, however
    many.

    residuals: of the bigram models, nats/token, less their offsets.
    """
    return needed_margins(residuals, min_candidates) <= candidate_margin


def agreement(
    bigrams: Float[np.ndarray, "E B"], exact: Float[np.ndarray, "E B"]
) -> Float[np.ndarray, " E"]:
    """Share of windows whose exact winner has one of the k lowest bigram models, k = 1 ... E.

    exact: `ranking.ranking_score`s of the experts; bigram models are ranked by plain residuals.
    Windows of which the bank's rule scores no token have no winner and are left out; `UserError`
    when no other is there.
    """
    at, winner = _winners(exact)
    order = nearest(bigrams[:, at], len(bigrams))
    rank = (order == winner[None]).argmax(0)
    return np.cumsum(np.bincount(rank, minlength=len(bigrams))) / len(rank)


def measure(
    bigrams: Mapping[str, Float[np.ndarray, "E _"]],
    exact: Mapping[str, Float[np.ndarray, "E _"]],
    names: Sequence[str],
    min_candidates: int,
    candidate_margin: float = 0.0,
    offsets: Mapping[str, float] | None = None,
) -> tuple[float, float]:
    """(agreement with exact routing, candidates): means over windows, then over the domains.

    bigrams, exact: as in `agreement`, of the windows of each domain; names: of the domains and, in
    the order of the rows, of the experts.  `UserError` as in `agreement`.
    """
    less = column(offsets, names)
    agree, count = [], []
    for name in names:
        at, winner = _winners(exact[name])
        mask = are_candidates(bigrams[name][:, at] - less, min_candidates, candidate_margin)
        agree.append(np.take_along_axis(mask, winner[None], 0).mean())
        count.append(mask.sum(0).mean())
    return float(_over_domains(agree)), float(np.mean(count))


def fit(
    bigrams: Mapping[str, Float[np.ndarray, "E _"]],
    exact: Mapping[str, Float[np.ndarray, "E _"]],
    names: Sequence[str],
    min_candidates: int,
    at_least: float,
) -> CandidateFit:
    """The least margin, with or without offsets, whose agreement with exact routing is `at_least`.

    Arguments as in `measure`.  Offsets are `fit_offsets` of all windows.  The margin, and what
    the `CandidateFit` says, rest on offsets that did not see the window they are taken off in:
    they are fitted on every other window of each domain and tried on those in between, both ways
    round.  The margin is the least, exactly, that will do.  Offsets are used if there are then
    fewer candidates on average.  `UserError` when a domain has fewer than two windows with a
    winner, or no margin will do because bigram models have residuals that are not finite.
    """
    near, winners = {}, {}
    for name in names:
        at, winners[name] = _winners(exact[name])
        near[name] = bigrams[name][:, at]
        if len(at) < 2:
            raise UserError(
                f"{name} has a single validation window that the bank's rule scores: "
                "two are needed, for the offsets and for the margin"
            )
    options = [
        (near, None),
        (_less_unseen_offsets(near, winners), _offsets(near, winners, slice(None)).tolist()),
    ]
    fits = []
    for residuals, offsets in options:
        margins = {n: needed_margins(residuals[n], min_candidates) for n in names}
        needed = [np.take_along_axis(margins[n], winners[n][None], 0)[0] for n in names]
        margin = _least_margin(needed, at_least)
        fits.append(
            CandidateFit(
                min_candidates,
                float(at_least),
                margin,
                None if offsets is None else dict(zip(names, offsets, strict=True)),
                agreement=float(_over_domains([(x <= margin).mean() for x in needed])),
                mean_candidates=float(
                    np.mean([(margins[n] <= margin).sum(0).mean() for n in names])
                ),
                windows=sum(map(len, winners.values())),
            )
        )
    return min(fits, key=lambda fitted: fitted.mean_candidates)


def _offsets(near, winners, some: slice):
    """Offsets fitted on some windows of every domain."""
    return fit_offsets(
        np.concatenate([x[:, some] for x in near.values()], -1),
        np.concatenate([x[some] for x in winners.values()]),
    )


def _less_unseen_offsets(near, winners):
    """Residuals less offsets that were fitted on the other half of the windows."""
    less = {name: np.empty(x.shape) for name, x in near.items()}
    even, odd = slice(None, None, 2), slice(1, None, 2)
    for half, other in ((even, odd), (odd, even)):
        offsets = _offsets(near, winners, other)[:, None]
        for name, residuals in near.items():
            less[name][:, half] = residuals[:, half] - offsets
    return less


def _least_margin(needed: Sequence[Float[np.ndarray, " _"]], at_least: float) -> float:
    """needed: per domain the margin that each window needs, nats/token."""
    margins = np.unique(np.concatenate([[0.0], *needed]))
    margins = margins[np.isfinite(margins)]
    agree = _over_domains(
        [np.searchsorted(np.sort(x), margins, side="right") / x.size for x in needed]
    )
    if agree[-1] < at_least:
        raise UserError(
            "no margin makes the exact winners candidates: some bigram models have no "
            "finite residual, store them again"
        )
    return float(margins[agree >= at_least][0])


def _over_domains(shares):
    """Mean over the first axis.  Rounded: the last bits of a mean depend on the order of its terms,
    and a share that is just reached must not be missed by them (nine of 0.9 are below 0.9)."""
    return np.round(np.mean(shares, 0), 12)


def column(offsets: Mapping[str, float] | None, names: Sequence[str]) -> Float[np.ndarray, "E 1"]:
    """Offsets, nats/token, in the order of the names; zeros for None."""
    return np.array([[offsets[n] if offsets else 0.0] for n in names])


def _winners(exact):
    """-> (the windows that have a winner, it)"""
    winner = lowest(exact)
    at = np.flatnonzero(winner >= 0)
    if not at.size:
        raise UserError("the bank's rule scores no token of these windows: give longer ones")
    return at, winner[at]
