"""How far a run is: one progress in [0, 1] from steps, tokens or seconds."""

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from cr_jax.config import TrainConfig


@dataclasses.dataclass
class Clock:
    """Time of a run's steps: neither compilation nor validation nor checkpoints count.

    `elapsed` survives in the checkpoint.

    texts: positions of windows, padding too, in which each expert's training text is read once
    (`data.epoch_positions`), for `of_experts`.  lengths: tokens after which
    each expert stops learning, at most the run's; none: all learn to the end.
    """

    config: TrainConfig
    window: int
    texts: Sequence[float]
    elapsed: float = 0.0  # seconds of training before this start
    lengths: Sequence[int] = ()
    _since: float | None = None

    @property
    def stands(self) -> bool:
        return self._since is None

    def start(self) -> None:
        self._since = time.perf_counter()

    def pause(self) -> None:
        self.elapsed, self._since = self.seconds(), None

    def seconds(self) -> float:
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self.elapsed + running

    def tokens(self, step: int) -> int:
        """Tokens per expert after `step` steps."""
        return step * self.config.batch * self.window

    def progress(self, step: int) -> float:
        """Share of the run done before step number `step` (from 0); 1 or more means stop.

        Of several limits the nearest counts.
        """
        c = self.config
        return max(
            done / limit
            for done, limit in (
                (step, c.steps),
                (self.tokens(step), c.tokens),
                (self.seconds(), c.seconds),
            )
            if limit
        )

    def of_experts(self, step: int) -> Float[np.ndarray, " E"]:
        """Each expert's progress before step number `step`; one that is at 1 has stopped learning.

        With `max_epochs`, an expert with little text goes through its whole schedule, warm-up to
        cool-down, in as many steps as read its text that often, and one with a length of its own
        in that length.  The others' is the run's.
        """
        own = self._share(step, self.config.max_epochs * np.asarray(self.texts, np.float64))
        if len(self.lengths):
            own = np.maximum(own, self._share(step, np.asarray(self.lengths, np.float64)))
        return np.clip(self.progress(step), own, 1.0).astype(np.float32)

    def _share(self, step: int, most: np.ndarray) -> np.ndarray:
        """Of each expert's `most` tokens, 0: of no limit."""
        return np.divide(self.tokens(step), most, out=np.zeros_like(most), where=most > 0)
