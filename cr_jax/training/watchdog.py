"""Says which step a run hangs in; does not end it.  Not in the paper."""

import faulthandler
import sys
import threading
import time
from pathlib import Path

from tqdm import tqdm

from cr_jax.training.phases import PHASES, Phases


class Watchdog:
    """A thread that speaks up when no step finishes for `seconds`; 0: never.

    One line on stderr names the step and what it waits for; the stacks of all threads are
    appended to `path`.  Once for each step.  Use it in a `with` block and call `finished(step)`
    after every step.
    """

    def __init__(self, seconds: float, phases: Phases, path: Path, step: int = 0):
        self.seconds, self.phases, self.path = seconds, phases, path
        self._beat = (step, time.monotonic())
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def finished(self, step: int) -> None:
        """`step` steps are done."""
        self._beat = (step, time.monotonic())

    def __enter__(self) -> "Watchdog":
        if self.seconds:
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        warned = None
        while not self._end.wait(min(1.0, self.seconds / 4)):
            step, since = self._beat
            if time.monotonic() - since < self.seconds or step == warned:
                continue
            warned = step
            line = (
                f"no step has finished for {self.seconds:g} s: step {step + 1} waits for "
                f"{PHASES[self.phases.name]}; {self._write()}"
            )
            tqdm.write(line, file=sys.stderr)

    def _write(self) -> str:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                print(
                    f"step {self._beat[0] + 1}, {self.phases.name}, "
                    f"{time.strftime('%Y-%m-%d %H:%M:%S')}",
                    file=file,
                    flush=True,
                )
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as error:
            return f"its stacks cannot be written to {self.path} ({error.strerror})"
        return f"its stacks are in {self.path}"
