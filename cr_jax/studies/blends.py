"""Study `blends`: p % of a window comes from domain A, the rest from B.  Where does it go?

The paper names windows that mix domains as an open question (granularity); no figures there.

    select, blend -> windows -> sums -> run
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Real

from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.studies.sums import Sums

SHARES = (0, 5, 10, 20, 30, 40, 45, 50, 55, 60, 70, 80, 90, 95, 100)  # %
LAYOUTS = ("contiguous", "chunks")


def select(
    count: int, window: int, percent: float, layout: str, chunk: int, seed: int
) -> Bool[np.ndarray, "N L"]:
    """Which tokens come from A: round(window * percent / 100) of them in every window.

    contiguous: one run at a random place.  chunks: A and B in turn, spread evenly from a random
    place on; runs of the rarer one have at most `chunk` tokens, those of the other fill up.
    """
    if not 0 <= percent <= 100 or layout not in LAYOUTS or chunk < 1:
        raise UserError(
            f"a blend needs a percentage in [0, 100], a layout of "
            f"{', '.join(LAYOUTS)} and chunks of 1 token or more; got {percent}, "
            f"{layout!r}, {chunk}"
        )
    draw, size = np.random.default_rng([seed, count]), round(window * percent / 100)
    places = np.arange(window)
    if layout == "contiguous":
        start = np.floor(draw.random(count) * (window - size + 1)).astype(int)
        return (places >= start[:, None]) & (places < (start + size)[:, None])
    # Rounding what is owed so far, not each run, makes the sum exact.
    rarer = min(size, window - size)
    runs = max(1, -(-rarer // chunk))
    bounds = np.round(np.arange(runs + 1) * window / runs).astype(int)
    owed = np.round(np.arange(runs + 1) * size / runs).astype(int)
    one = np.zeros(window, bool)
    for begin, a in zip(bounds[:-1], np.diff(owed), strict=True):
        one[begin : begin + a] = True
    shift = draw.integers(0, window, count)
    return one[(places[None] + shift[:, None]) % window]


def windows(
    a: Windows,
    b: Windows,
    shares: Sequence[float] = SHARES,
    layout: str = "contiguous",
    chunk: int = 32,
    seed: int = 0,
) -> dict[float, Windows]:
    """-> {percent of A: windows}: tokens keep their places, those of A overlay those of B.

    Window i of A meets window i of B, at every share alike; only full windows are used.  Text is
    tokenised before it is cut, so a token is never half A's.  `UserError` when the shapes differ
    or either has no full window.
    """
    whole = [w.tokens[w.mask.all(-1)] for w in (a, b)]
    count = min(map(len, whole))
    if not count or whole[0].shape[1] != whole[1].shape[1]:
        raise UserError("a blend needs full windows of the same length from both domains")
    a_ids, b_ids = (w[:count] for w in whole)
    blended = {}
    for percent in shares:
        chosen = select(count, a_ids.shape[1], percent, layout, chunk, seed)
        blended[percent] = Windows(
            np.where(chosen, a_ids, b_ids),
            np.ones(chosen.shape, bool),
            np.arange(count, dtype=np.int64),
        )
    return blended


def run(names: Sequence[str], a: str, b: str, curves: Mapping[str, Mapping[float, Sums]]) -> dict:
    """-> {"a", "b", "layouts": {layout: curve}} of one pair of domains.

    names: experts in the order of the rows; curves: per layout the sums at each percentage of A.
    A curve holds, per share: "won_a", "won_b", "won_other" (shares of windows), "residual_a",
    "residual_b", "residual_least" (mean nats/token), and the figures "flip": the percentage at
    which A's expert wins half of the windows that A or B win; "flip_residual": where the two mean
    residuals cross; "width": percentages between A winning a tenth and nine tenths.  A figure is
    null when its level is not crossed.
    """
    missing = [n for n in (a, b) if n not in names]
    if missing or a == b:
        raise UserError(
            f"a blend needs two experts; {a!r} and {b!r} are not both among {', '.join(names)}"
        )
    rows = [list(names).index(n) for n in (a, b)]
    return {
        "a": a,
        "b": b,
        "layouts": {layout: _curve(points, *rows) for layout, points in curves.items()},
    }


def _curve(points: Mapping[float, Sums], a: int, b: int) -> dict:
    shares = np.array(sorted(points))
    sums = [points[p] for p in sorted(points)]
    won = [s.residual.argmin(0) for s in sums]
    won_a, won_b = (np.array([float((w == e).mean()) for w in won]) for e in (a, b))
    mean_a, mean_b = (np.array([s.residual[e].mean() for s in sums]) for e in (a, b))
    either = won_a + won_b > 0
    relative = won_a[either] / (won_a + won_b)[either]
    low, high = crossing(shares, won_a, 0.1), crossing(shares, won_a, 0.9)
    return {
        "share": [float(p) for p in shares],
        "windows": len(won[0]),
        "won_a": won_a.tolist(),
        "won_b": won_b.tolist(),
        "won_other": [float(((w != a) & (w != b)).mean()) for w in won],
        "residual_a": mean_a.tolist(),
        "residual_b": mean_b.tolist(),
        "residual_least": [float(s.residual.min(0).mean()) for s in sums],
        "flip": crossing(shares[either], relative, 0.5),
        "flip_residual": crossing(shares, mean_b - mean_a, 0.0),
        "width": None if low is None or high is None else high - low,
    }


def crossing(x: Real[np.ndarray, " N"], y: Real[np.ndarray, " N"], level: float) -> float | None:
    """Where y, read from the left, first reaches `level` from below; linear between points.

    None when it starts at or above the level, or never reaches it.
    """
    if not y.size or y[0] >= level:
        return None
    at = np.flatnonzero((y[:-1] < level) & (y[1:] >= level))
    if not at.size:
        return None
    i = at[0]
    return float(x[i] + (x[i + 1] - x[i]) * (level - y[i]) / (y[i + 1] - y[i]))
