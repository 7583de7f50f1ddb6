"""Offsets: nats/token off the residual of a compressor that others code its text better than.

A compressor that learnt less than its neighbours is dearer than they are on its own text too, and
by about as much on every window.  What is taken off is fitted on validation windows; no gate is
trained.  numpy only.  Not in the paper; compare post-hoc logit adjustment (Menon et al. 2021).
Letters: E experts, N windows.
"""

import numpy as np
from jaxtyping import Float, Int

FEWEST = 8  # windows that an offset is fitted on
ROUNDS = 30
SETTLED = 1e-4  # nats/token


def least_offset(residuals: Float[np.ndarray, "E N"], expert: int, share: float) -> float:
    """The least offset >= 0 with which `expert`, if it alone had one, has the lowest residual in
    `share` of these windows, nats/token: that quantile, rounded up to a window's, of its residual
    minus the lowest other one.  residuals: nats/token, finite; N >= 1.
    """
    if len(residuals) == 1:
        return 0.0
    behind = residuals[expert] - np.delete(residuals, expert, 0).min(0)
    return max(0.0, float(np.quantile(behind, share, method="higher")))


def fit_offsets(
    residuals: Float[np.ndarray, "E N"], winner: Int[np.ndarray, " N"], share: float = 0.5
) -> Float[np.ndarray, " E"]:
    """Offsets of all experts at once, nats/token, each the least with which its expert has the
    lowest residual in `share` of the windows that it should win.

    winner: which expert should win each window.  All are fitted anew against the others' last ones
    until none moves by 1e-4, for at most 30 rounds: two that lose to each other would outbid each
    other for ever.  An expert with fewer than 8 windows gets 0, a window with a residual that is
    not finite is left out.
    """
    finite = np.isfinite(residuals).all(0)
    residuals, winner = residuals[:, finite], winner[finite]
    own = {
        e: at for e in range(len(residuals)) if (at := np.flatnonzero(winner == e)).size >= FEWEST
    }
    offsets = np.zeros(len(residuals))
    for _ in range(ROUNDS):
        new = np.zeros(len(residuals))
        for e, at in own.items():
            here = residuals[:, at] - offsets[:, None]
            here[e] = residuals[e, at]
            new[e] = least_offset(here, e, share)
        moved = np.abs(new - offsets).max()
        offsets = new
        if moved < SETTLED:
            break
    return offsets
