"""Which batch of a short list is still worth a trial: every trial costs a compilation."""

import itertools

from benchmarks.workload import Batch


class BatchSearch:
    """Remembers tokens/s by batch; assumes that they rise and then fall with its size.

    Batches with and without rematerialised blocks are searched apart.
    """

    def __init__(self):
        self.tried: dict[Batch, float] = {}

    def add(self, batch: Batch, tokens_per_s: float) -> None:
        """Notes a trial; 0 tokens/s: it ran out of memory."""
        self.tried[batch] = tokens_per_s

    def worth(self, batch: Batch) -> bool:
        """False when the trials so far say that `batch` cannot be the fastest."""
        alike = sorted(
            (b.windows, rate) for b, rate in self.tried.items() if b.remat == batch.remat
        )
        if any(not rate and batch.windows >= windows for windows, rate in alike):
            return False
        ran = [(windows, rate) for windows, rate in alike if rate]
        for (small, slow), (large, fast) in itertools.pairwise(ran):
            if (fast > slow and batch.windows < small) or (fast < slow and batch.windows > large):
                return False
        return True

    def best(self) -> Batch | None:
        """The fastest batch; None when none ran."""
        ran = {b: rate for b, rate in self.tried.items() if rate}
        return max(ran, key=ran.get) if ran else None
