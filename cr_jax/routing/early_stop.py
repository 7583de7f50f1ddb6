"""A long document is read only until it is certain which expert rebuilds it best.

Neighbouring windows of a document are alike: in 41 long ones the differences of two experts had a
correlation of 0.4 from one window to the next in code and 0.1 to 0.4 in prose, and their sums over
32 windows a variance five times that of independent windows, up to 29 times
(`python -m benchmarks.autocorrelation`).  So windows are summed in blocks, 24 to 47 of them, which
grow with the document.  At every sixth block each other expert's nats minus the leader's, block by
block, meet Student's t test, in which as many independent blocks count as their correlation leaves.
Any rival could be the one that is truly best, so each test may risk its share only (Bonferroni);
the k-th look spends 1 / (k (k + 1)) of what the whole document may risk, so that looking often does
not add up.  A stop is then wrong with a probability of about 1 - confidence at most, where margins
are about normal and vary in waves shorter than a few blocks (simulated in the tests up to a
correlation of 0.95); a text that changes later is judged by its beginning, as by `max_windows`.
How far residuals scatter is taken from the text itself: `studies.sequential`, which asks for a
posterior, needs two numbers fitted on validation documents, and no bank has them.
Not in the paper.  Letters: E experts, B windows, K blocks.
"""

import numpy as np
from jaxtyping import Float

from cr_jax.errors import UserError

LOOK = 8  # windows that are scored at a time
FEWEST = 24  # blocks; twice as many are merged in pairs
FIRST_BLOCK = 2  # windows: shorter documents than 48 windows are read to their end
_EVERY = 6  # blocks between two looks


class LeaderTest:
    """Whether the expert with the least nats so far would stay ahead; constant memory, [E, 48]."""

    def __init__(self, experts: int, confidence: float):
        check_stop(confidence)
        self._risk = 1 - confidence
        self._looks, self._looked = 0, -1
        self._sums = np.zeros(experts)
        self._finite = np.ones(experts, bool)
        self._size = FIRST_BLOCK  # windows of a block
        self._blocks = np.zeros((experts, 0))
        self._rest = np.zeros((experts, 0))  # windows after the last whole block

    def add(self, nats: Float[np.ndarray, "E B"]) -> None:
        """Adds windows: the sum over the tokens of each."""
        self._finite &= np.isfinite(nats).all(1)
        nats = np.where(self._finite[:, None], nats, 0.0)
        self._sums += nats.sum(1)
        rest = np.concatenate([self._rest, nats], 1)
        while rest.shape[1] >= self._size:
            whole, rest = rest[:, : self._size].sum(1), rest[:, self._size :]
            self._blocks = np.concatenate([self._blocks, whole[:, None]], 1)
            if self._blocks.shape[1] == 2 * FEWEST:
                self._blocks = self._blocks[:, ::2] + self._blocks[:, 1::2]
                self._size *= 2
        self._rest = rest

    def certain(self) -> bool:
        """One look, where another is due.  Experts without a finite residual have lost."""
        leader = int(np.where(self._finite, self._sums, np.inf).argmin())
        rivals = self._finite & (np.arange(len(self._sums)) != leader)
        count = self._blocks.shape[1]
        read = count * self._size
        if count < FEWEST or count % _EVERY or self._rest.size or read == self._looked:
            return False
        if not self._finite.any():
            return False
        self._looks, self._looked = self._looks + 1, read
        p = p_values(self._blocks[rivals] - self._blocks[leader][None])
        largest = p.max(initial=0) * rivals.sum()
        return bool(largest <= self._risk / (self._looks * (self._looks + 1)))


def p_values(blocks: Float[np.ndarray, "R K"]) -> Float[np.ndarray, " R"]:
    """One-sided p-values of the mean of K > 4 numbers that depend on their neighbours being 0 or
    less, for each of R rows.

    The correlation of neighbours is estimated, its bias of -(1 + 3 r) / K taken off (Kendall 1954)
    and one standard error added; r leaves K (1 - r) / (1 + r) independent numbers, by which the
    scatter and the degrees of freedom are corrected.  1 where that is 2 or less.
    """
    from scipy.special import stdtr  # slow to import

    count = blocks.shape[1]
    mean = blocks.mean(1)
    from_mean = blocks - mean[:, None]
    squares = (from_mean**2).sum(1)
    # Experts that differ alike in every block have a margin or none, and no error.
    alike = squares <= 1e-24 * count * np.maximum(mean**2, np.finfo(float).tiny)
    squares = np.where(alike, 1.0, squares)
    r = (from_mean[:, 1:] * from_mean[:, :-1]).sum(1) / squares
    r += (1 + 3 * np.abs(r)) / count + np.sqrt(np.maximum(1 - r**2, 0) / count)
    r = np.clip(r, 0.0, 1.0)
    independent = np.maximum(count * (1 - r) / (1 + r), 2.0)
    variance = squares / count / (1 - 1 / independent)
    t = mean / np.sqrt(variance / independent)
    p = np.where(independent > 2, stdtr(independent - 1, -t), 1.0)
    return np.where(alike, np.where(mean > 0, 0.0, 1.0), p)


def check_stop(stop: float) -> None:
    """`UserError` unless it is 0 (read everything) or a confidence below 1."""
    if not 0 <= stop < 1:
        raise UserError(
            f"stop is the confidence at which reading ends, at least 0 (read "
            f"everything) and below 1, got {stop}"
        )
