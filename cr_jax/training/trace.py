"""A profiler trace of some steps of a run, for Perfetto, XProf or TensorBoard."""

from pathlib import Path

import jax


class Trace:
    """Records the steps after `steps[0]` up to and with `steps[1]` below `folder`; None: nothing.

    A run that goes on from a checkpoint inside the range records the rest of it.  `close` ends
    a recording that the run's end cuts short.
    """

    def __init__(self, steps: tuple[int, int] | None, folder: Path):
        self._steps, self._folder, self._running = steps, folder, False

    def before(self, done: int) -> None:
        """Call before the step that follows `done` finished ones."""
        if self._steps and not self._running and self._steps[0] <= done < self._steps[1]:
            jax.profiler.start_trace(self._folder)
            self._running = True

    def after(self, done: int, sums) -> None:
        """Call when `done` steps are dispatched; `sums`: what the last one gives."""
        if self._running and done >= self._steps[1]:
            jax.block_until_ready(sums)
            self.close()

    def close(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
