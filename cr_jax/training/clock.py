"""How far a run is: one progress in [0, 1] from steps, tokens or seconds."""

import dataclasses
import time

from cr_jax.config import TrainConfig


@dataclasses.dataclass
class Clock:
    """Training time without pauses.  `elapsed` survives in the checkpoint."""

    config: TrainConfig
    window: int
    elapsed: float = 0.0  # seconds of training before this start
    _since: float | None = None

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
        """Share of the run done before step number `step` (from 0); 1 or more means stop."""
        c = self.config
        if c.steps:
            return step / c.steps
        if c.tokens:
            return self.tokens(step) / c.tokens
        return self.seconds() / c.seconds
