"""Group timing that both frameworks share.  Device work is asynchronous: a group is dispatched
whole and waited for once, so launch gaps show only where the device really waits for the host."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds per call: median over groups, and the fastest and slowest group."""

    median: float
    fastest: float
    slowest: float
    calls: int


def time_calls(
    call: Callable[[int], Any],
    wait: Callable[[Any], None],
    seconds: float,
    warmup: int = 2,
    groups: int = 5,
    most: int = 200,
) -> Timing:
    """Times `call(i)` in `groups` groups of equal length that together last about `seconds`.

    `wait(result)` blocks until the result is there.  The first `warmup` calls, and one more that
    sets the group length, stay out of the figures.
    """
    count = 0
    for _ in range(max(1, warmup)):
        wait(call(count))
        count += 1
    start = time.perf_counter()
    wait(call(count))
    once = max(time.perf_counter() - start, 1e-6)
    count += 1
    size = int(min(most, max(1, seconds / groups / once)))
    times = []
    for _ in range(groups):
        start = time.perf_counter()
        for _ in range(size):
            result = call(count)
            count += 1
        wait(result)
        times.append((time.perf_counter() - start) / size)
    return Timing(statistics.median(times), min(times), max(times), groups * size)


class Budget:
    """Says whether another trial still fits: it should take no longer than the last one."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds
        self.longest = 0.0

    def left(self) -> float:
        """Seconds left."""
        return self.end - time.monotonic()

    def fits(self) -> bool:
        """True while the time left covers the longest trial so far."""
        return self.left() > self.longest

    def spent(self, seconds: float) -> None:
        """Notes how long a trial took."""
        self.longest = max(self.longest, seconds)
