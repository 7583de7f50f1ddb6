"""A long document is read only until it is certain which expert rebuilds it best.

After every few windows each other expert's nats minus the leader's, window by window, meet
Student's t test.  Any rival could be the one that is truly best, so each test may risk its share
only (Bonferroni); the k-th look spends 1 / (k (k + 1)) of what the whole document may risk, so
that looking often does not add up.  Where windows are drawn alike and independently, and margins
are about normal, a stop is wrong with a probability of at most 1 - confidence; a text that changes
later is judged by its beginning, as by `max_windows`.  How far residuals scatter is taken from the
text itself: `studies.sequential`, which asks for a posterior, needs two numbers fitted on
validation documents, and no bank has them.
Not in the paper.  Letters: E experts, B windows.
"""

import numpy as np
from jaxtyping import Float

from cr_jax.errors import UserError

LOOK = 8  # windows between two looks


class LeaderTest:
    """Whether the expert with the least nats so far would stay ahead; constant memory, [E, E]."""

    def __init__(self, experts: int, confidence: float):
        check_stop(confidence)
        self._risk = 1 - confidence
        self._windows = self._looks = 0
        self._sums, self._products = np.zeros(experts), np.zeros((experts, experts))
        self._finite = np.ones(experts, bool)

    def add(self, nats: Float[np.ndarray, "E B"]) -> None:
        """Adds windows: the sum over the tokens of each."""
        self._finite &= np.isfinite(nats).all(1)
        nats = np.where(self._finite[:, None], nats, 0.0)
        self._sums += nats.sum(1)
        self._products += nats @ nats.T
        self._windows += nats.shape[1]

    def certain(self) -> bool:
        """One look.  Experts without a finite residual have lost."""
        from scipy.special import stdtr  # it comes with JAX, and is slow to import

        self._looks += 1
        if self._windows < 2 or not self._finite.any():
            return False
        n, leader = self._windows, int(np.where(self._finite, self._sums, np.inf).argmin())
        rivals = self._finite & (np.arange(len(self._sums)) != leader)
        mean = (self._sums[rivals] - self._sums[leader]) / n
        square = (
            np.diag(self._products)[rivals]
            + self._products[leader, leader]
            - 2 * self._products[rivals, leader]
        ) / n
        error = np.sqrt(np.maximum(square - mean**2, 0) / (n - 1))
        # Experts that are alike in every window have neither a margin nor an error.
        t = np.divide(mean, error, out=np.where(mean > 0, np.inf, 0.0), where=error > 0)
        largest = stdtr(n - 1, -t).max(initial=0) * rivals.sum()
        return bool(largest <= self._risk / (self._looks * (self._looks + 1)))


def check_stop(stop: float) -> None:
    """`UserError` unless it is 0 (read everything) or a confidence below 1."""
    if not 0 <= stop < 1:
        raise UserError(
            f"stop is the confidence at which reading ends, at least 0 (read "
            f"everything) and below 1, got {stop}"
        )
