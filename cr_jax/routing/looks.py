"""A few windows of a document stand for all of them, where that says enough.

    nats of each window by the bigram models -> `LOOKED` windows, one of each stratum -> scored by
    the experts -> each stands for its stratum -> the p-value is far above alpha: known

A window's bigram residual says most of what its expert will say (on files of the shipped bank's
domains a correlation of 0.95 with the residual, 0.77 with the surprise, and 0.86 of both leads), so
windows that are as novel by it are alike, and a few of all degrees stand for the document three
times better than as many of its beginning.  numpy only.  Not in the paper.
Letters: B windows of one document, E experts.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from cr_jax.routing.result import Route

if TYPE_CHECKING:
    from cr_jax.scoring.residuals import WindowSums

LOOKED = 4  # windows
SHORTEST = 3 * LOOKED  # whole windows of a document of which not all are looked at
# p-value from which on a document is known without its other windows.  By 4 of 27 windows of each
# of 390 files that the bigram models left open, 236 reached it, and one of these less than 0.05 by
# all windows.
SURE = 0.15


class Look(NamedTuple):
    """at: windows that are scored first; stand_in: of every window, one of these."""

    at: Int[np.ndarray, " n"]
    stand_in: Int[np.ndarray, " B"]

    def of_all(self, sums: "WindowSums", lengths: Int[np.ndarray, " B"]) -> "WindowSums":
        """What all windows cost, [E, B] in nats, if each costs per token what stands for it does.

        sums: [E, B], of the windows that were looked at; lengths: tokens of each window.
        """
        found = sums.take((slice(None), self.stand_in))
        share = lengths / lengths[self.stand_in]
        surprise = None if found.surprise is None else found.surprise * share
        return found._replace(residual=found.residual * share, surprise=surprise)


def look(
    nats: Float[np.ndarray, "B E"], lengths: Int[np.ndarray, " B"], window: int
) -> Look | None:
    """Which windows to look at first; None: all, of a short document.

    nats: of each window by each bigram model; lengths: tokens of each; window: of a whole one.
    Windows are ordered from the most usual to the most novel one: by the rank of the residual of
    the document's nearest bigram model, less that of the second one's distance from it.
    """
    whole = np.flatnonzero(lengths == window)
    if len(whole) < SHORTEST or nats.shape[1] < 2:
        return None
    nearest, second = np.argsort(nats.sum(0), kind="stable")[:2]
    own, lead = nats[whole, nearest], nats[whole, second] - nats[whole, nearest]
    strata = np.array_split(whole[np.argsort(_rank(own) - _rank(lead), kind="stable")], LOOKED)
    at = np.array([stratum[len(stratum) // 2] for stratum in strata])
    stand_in = np.full(len(nats), at[LOOKED // 2])  # of a window that is not whole
    for middle, stratum in zip(at, strata, strict=True):
        stand_in[stratum] = middle
    return Look(at, stand_in)


def sure(route: Route) -> bool:
    """Whether the windows that a look leaves out can be left out."""
    p = route.p_values[route.nearest]
    return bool(route.known) and not math.isnan(p) and p >= SURE


def _rank(x: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    return np.argsort(np.argsort(x, kind="stable"), kind="stable")
