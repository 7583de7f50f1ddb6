"""Which experts a cascade's scouts leave to score in full, and how many that takes.

Kept are the `keep` experts with the nearest scouts and every other whose scout lies within
`margin` nats/token of the nearest: sure scouts keep few, scouts that cannot tell keep many.
Offsets, one for each scout, are taken off first.  numpy only.  Not in the paper.
Letters: E experts, B windows.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from cr_jax.bank.cascade_file import Choice
from cr_jax.errors import UserError
from cr_jax.scoring import offsets as head_starts
from cr_jax.scoring.residuals import lowest

LEAST = np.finfo(np.float64).tiny  # the margin that keeps a scout as near as one that is kept


def nearest(residuals: Float[np.ndarray, "E B"], keep: int) -> Int[np.ndarray, "K B"]:
    """The `keep` experts with the lowest residual, nearest first; of equal ones the first."""
    return np.argsort(residuals, axis=0, kind="stable")[:keep]


def gaps(residuals: Float[np.ndarray, "E B"], keep: int) -> Float[np.ndarray, "E B"]:
    """The least margin, nats/token, with which each expert is kept: 0 for the `keep` nearest, for
    others what their scout lies above the nearest, and infinite without a finite residual.

    residuals: of the scouts, nats/token, less their offsets.
    """
    near = nearest(residuals, keep)
    finite = np.isfinite(residuals)
    lowest_of = np.where(finite, residuals, np.inf).min(0)
    above = np.where(finite, residuals, np.inf) - np.where(np.isfinite(lowest_of), lowest_of, 0)
    found = np.maximum(above, LEAST)  # as near as the last that is kept, and not kept without one
    np.put_along_axis(found, near, 0.0, 0)
    return found


def kept(residuals: Float[np.ndarray, "E B"], keep: int, margin: float = 0.0
         ) -> Bool[np.ndarray, "E B"]:
    """Whether each expert is scored in full: the `keep` nearest, and all within `margin` nats/token
    of the nearest.  In each window these are its nearest, however many.

    residuals: of the scouts, nats/token, less their offsets.
    """
    return gaps(residuals, keep) <= margin


def agreement(scouts: Float[np.ndarray, "E B"], exact: Float[np.ndarray, "E B"]
              ) -> Float[np.ndarray, " E"]:
    """Share of windows whose exact winner is among the k nearest scouts, for k = 1 ... E.

    exact: what the bank compares (`router.compared`); scouts are compared by plain residuals.
    Windows of which the bank's rule scores no token have no winner and are left out; `UserError`
    when no other is there.
    """
    at, winner = _won(exact)
    order = nearest(scouts[:, at], len(scouts))
    rank = (order == winner[None]).argmax(0)
    return np.cumsum(np.bincount(rank, minlength=len(scouts))) / len(rank)


def measured(scouts: Mapping[str, Float[np.ndarray, "E _"]],
             exact: Mapping[str, Float[np.ndarray, "E _"]], names: Sequence[str], keep: int,
             margin: float = 0.0, offsets: Mapping[str, float] | None = None
             ) -> tuple[float, float]:
    """(agreement with exact routing, experts kept): means over windows, then over the domains.

    scouts, exact: as in `agreement`, of the windows of each domain; names: of the domains and, in
    the order of the rows, of the experts.  `UserError` as in `agreement`.
    """
    less = column(offsets, names)
    agree, count = [], []
    for name in names:
        at, winner = _won(exact[name])
        mask = kept(scouts[name][:, at] - less, keep, margin)
        agree.append(np.take_along_axis(mask, winner[None], 0).mean())
        count.append(mask.sum(0).mean())
    return float(_over_domains(agree)), float(np.mean(count))


def choose(scouts: Mapping[str, Float[np.ndarray, "E _"]],
           exact: Mapping[str, Float[np.ndarray, "E _"]], names: Sequence[str], keep: int,
           at_least: float) -> Choice:
    """The least margin, with or without offsets, whose agreement with exact routing is `at_least`.

    Arguments as in `measured`.  Offsets are `head_starts.together` of all windows.  The margin,
    and what the Choice says, rest on offsets that did not see the window they are taken off in:
    they are fitted on every other window of each domain and judged on those in between, both ways
    round.  The margin is the least, exactly, that will do.  Offsets are used if fewer experts are
    then kept on average.  `UserError` when a domain has fewer than two windows with a winner, or
    no margin will do because scouts have residuals that are not finite.
    """
    near, winners = {}, {}
    for name in names:
        at, winners[name] = _won(exact[name])
        near[name] = scouts[name][:, at]
        if len(at) < 2:
            raise UserError(f"{name} has a single validation window that the bank's rule scores: "
                            "two are needed, for the offsets and for the margin")
    halves = slice(None, None, 2), slice(1, None, 2)
    fit = lambda of: head_starts.together(
        np.concatenate([near[n][:, of] for n in names], -1),
        np.concatenate([winners[n][of] for n in names]))[:, None]
    others = [fit(half) for half in reversed(halves)]
    less = {}
    for name, residuals in near.items():
        less[name] = np.empty(residuals.shape)
        for half, offsets in zip(halves, others, strict=True):
            less[name][:, half] = residuals[:, half] - offsets
    best = None
    for judged, offsets in ((near, None), (less, dict(zip(
            names, map(float, fit(slice(None))[:, 0]), strict=True)))):
        found = {n: gaps(judged[n], keep) for n in names}
        needed = [np.take_along_axis(found[n], winners[n][None], 0)[0] for n in names]
        margin = _least_margin(needed, at_least)
        agree = float(_over_domains([(x <= margin).mean() for x in needed]))
        count = float(np.mean([(found[n] <= margin).sum(0).mean() for n in names]))
        if best is None or count < best.kept:
            best = Choice(keep, float(at_least), margin, offsets, agree, count,
                          sum(map(len, winners.values())))
    return best


def _least_margin(needed: Sequence[Float[np.ndarray, " _"]], at_least: float) -> float:
    """needed: per domain the margin that each window needs, nats/token."""
    margins = np.unique(np.concatenate([[0.0], *needed]))
    margins = margins[np.isfinite(margins)]
    agree = _over_domains([np.searchsorted(np.sort(x), margins, side="right") / x.size
                           for x in needed])
    if agree[-1] < at_least:
        raise UserError("no margin keeps the exact winners: some scouts have no finite residual, "
                        "store them again")
    return float(margins[agree >= at_least][0])


def _over_domains(shares):
    """Mean over the first axis.  Rounded: the last bits of a mean depend on the order of its terms,
    and a share that is just reached must not be missed by them (nine of 0.9 are below 0.9)."""
    return np.round(np.mean(shares, 0), 12)


def column(offsets: Mapping[str, float] | None, names: Sequence[str]) -> Float[np.ndarray, "E 1"]:
    """Offsets, nats/token, in the order of the names; zeros for None."""
    return np.array([[offsets[n] if offsets else 0.0] for n in names])


def _won(exact):
    """-> (the windows that have a winner, it)"""
    winner = lowest(exact)
    at = np.flatnonzero(winner >= 0)
    if not at.size:
        raise UserError("the bank's rule scores no token of these windows: give longer ones")
    return at, winner[at]
