"""What the training loop is doing, and for how long it did what."""

import collections
import time
from collections.abc import Mapping

# Phase -> what a run that hangs there waits for.
PHASES = {
    "start": "its first batch",
    "compile": "the compiler",
    "data": "the next batch",
    "step": "the devices",
    "validate": "the validation",
    "checkpoint": "the checkpoint",
    "others": "the other processes",
    "log": "the log",
}


class Phases:
    """The loop is in exactly one phase at any time; `enter` ends the one before.

    On an accelerator steps run while the host goes on: "data" and "checkpoint" are times for
    which the loop stood still, "step" those for which it dispatched or waited for the device.
    A checkpoint that is written while steps run costs no "checkpoint" time: the copy off the
    device does, and waiting for the save before.
    """

    def __init__(self):
        self.name = "start"
        self._since = time.perf_counter()
        self._seconds: collections.Counter[str] = collections.Counter()
        self._told: dict[str, float] = {}

    def enter(self, name: str) -> None:
        """name: one of `PHASES`."""
        now = time.perf_counter()
        self._seconds[self.name] += now - self._since
        self.name, self._since = name, now

    def seconds(self) -> dict[str, float]:
        """Seconds spent in each phase up to now."""
        self.enter(self.name)
        return {name: self._seconds[name] for name in PHASES}

    def news(self) -> dict[str, float]:
        """The same since the last call."""
        now = self.seconds()
        before, self._told = self._told, now
        return {name: s - before.get(name, 0.0) for name, s in now.items()}


def added(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """Seconds per phase of earlier starts and of this one."""
    return {name: before.get(name, 0.0) + seconds for name, seconds in now.items()}


def shares(seconds: Mapping[str, float]) -> str:
    """Phases by their share of the time: "step 97.1 %, data 2.0 %, checkpoint 0.9 %".

    Phases of less than 0.05 % are left out.
    """
    total = sum(seconds.values())
    parts = sorted(((s / total, name) for name, s in seconds.items() if total), reverse=True)
    return ", ".join(f"{name} {100 * s:.1f} %" for s, name in parts if s >= 0.0005)
