"""Which window to measure next, so that every curve of TRA against L crosses the threshold.

Pure: a ladder of windows and what was measured on it -> the next rung.  Not in the paper.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from cr_jax.studies.capacity.capacity import logit

FAR = 3.0  # logits from the threshold: two rungs at once


def nearest(windows: Sequence[int], window: float) -> int:
    """The rung nearest to `window`, by ratio."""
    return min(windows, key=lambda w: abs(math.log(w / window)))


def next_window(
    windows: Sequence[int],
    tra: Mapping[int, Sequence[float]],
    tokens: int,
    threshold: float,
    start: float,
) -> int | None:
    """The rung to measure next; None when nothing is left to learn.

    windows: the ladder.  tra: per measured window the TRA of every cell of the stack, over `tokens`
    evaluated tokens.  A cell is settled when two neighbouring rungs lie on both sides of
    `threshold`, or when it stays on one side up to the ladder's end.  Cells are served in their
    order.  start: where to begin, in tokens.
    """
    ladder = sorted(windows)
    if not tra:
        return nearest(ladder, start)
    level = math.log(threshold / (1 - threshold))
    for cell in range(len(next(iter(tra.values())))):
        here = np.array([v[cell] for v in tra.values()])
        excess = dict(zip(tra, logit(here, np.full(len(here), tokens)) - level))
        above = [w for w, e in excess.items() if e >= 0]
        below = [w for w, e in excess.items() if e < 0]
        if above and below:
            low, high = max(above), min(below)
            between = [w for w in ladder if low < w < high]
            if between:
                return between[len(between) // 2]
            continue
        end, step = (max(above), 1) if above else (min(below), -1)
        beyond = [w for w in ladder[::step] if step * (w - end) > 0]
        if beyond:
            jump = abs(excess[end]) > FAR and len(beyond) > 1
            return beyond[1 if jump else 0]
    return None


def neighbours(windows: Sequence[int], window: int) -> list[int]:
    """The rungs beside `window`: worth compiling while it is trained."""
    ladder = sorted(windows)
    at = ladder.index(window)
    return ladder[max(0, at - 1) : at] + ladder[at + 1 : at + 2]
