"""Near-lossless capacity: the largest window L with TRA >= a threshold.  numpy only, no files.

    rows of ablation.jsonl -> TRA against L -> L* per seed -> beside the per-sample bound

A setting whose TRA stays above or falls below the threshold on all measured windows is censored,
and says so: it is never dropped.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Real

from cr_jax.errors import UserError

THRESHOLD = 0.99
# Tokens that M vectors of 768 hold at >= 99 % when the vectors of each text are optimised and the
# decoder is teacher-forced: yurakuratov/hidden_capacity (github), frozen language model of 160 M.
BOUND = {1: 80, 2: 192, 4: 384, 8: 640, 16: 1280, 32: 2016}
BOUND_WIDTH = 768
TERMS = ("latents", "d_latent", "d_model", "budget_tokens", "xz_bits")
SETTING = ("domain", "size", *TERMS)


@dataclasses.dataclass(frozen=True)
class Capacity:
    """Capacity of one seed of one setting.  `window`: L* in tokens, or the limit it lies beyond.

    setting: the fields of `SETTING`; censored "above": L* is at least the largest window
    measured; "below": L* is less than the smallest.
    """

    setting: Mapping[str, float | str | None]
    seed: int
    window: float
    censored: Literal["", "above", "below"] = ""


def logit(tra: Real[np.ndarray, "..."], tokens: Real[np.ndarray, "..."]) -> np.ndarray:
    """log(p / (1 - p)); a share of 0 or 1 over `tokens` counts as half a token from the end."""
    edge = 0.5 / np.asarray(tokens, float)
    p = np.clip(np.asarray(tra, float), edge, 1 - edge)
    return np.log(p / (1 - p))


def decreasing(values: Real[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """The non-increasing sequence nearest in squares (pool adjacent violators)."""
    blocks: list[list[float]] = []
    for value in np.asarray(values, float):
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            (a, n), (b, m) = blocks[-2:]
            blocks[-2:] = [[(a * n + b * m) / (n + m), n + m]]
    return np.concatenate([np.full(int(n), v) for v, n in blocks])


def capacity(
    windows: Sequence[int],
    tra: Sequence[float],
    tokens: Sequence[int],
    threshold: float = THRESHOLD,
) -> tuple[float, Literal["", "above", "below"]]:
    """(L*, censored): where TRA falls through `threshold`, by interpolating logit(TRA) in log L.

    `tokens`: evaluated tokens behind each TRA.  TRA is first made non-increasing in L.  `UserError`
    when a window comes twice.
    """
    order = np.argsort(windows)
    x = np.log(np.asarray(windows, float)[order])
    if np.any(np.diff(x) == 0):
        raise UserError(
            "capacity: one window is measured twice for the same setting and seed; "
            "keep one line of it in ablation.jsonl"
        )
    y = decreasing(logit(np.asarray(tra)[order], np.asarray(tokens)[order]))
    level = math.log(threshold / (1 - threshold))
    if y[0] < level:
        return float(np.exp(x[0])), "below"
    if y[-1] >= level:
        return float(np.exp(x[-1])), "above"
    i = int(np.flatnonzero(y >= level)[-1])
    share = (y[i] - level) / (y[i] - y[i + 1])
    return float(np.exp(x[i] + share * (x[i + 1] - x[i]))), ""


def capacities(rows: Iterable[Mapping], threshold: float = THRESHOLD) -> list[Capacity]:
    """Lines of ablation.jsonl -> one `Capacity` per setting and seed."""
    curves: dict[tuple, list[Mapping]] = {}
    for row in rows:
        curves.setdefault((*(row.get(k) for k in SETTING), row["seed"]), []).append(row)
    measured = []
    for (*setting, seed), points in curves.items():
        window, censored = capacity(
            *zip(*((p["window"], p["tra"], p["tokens"]) for p in points)), threshold
        )
        measured.append(Capacity(dict(zip(SETTING, setting)), seed, window, censored))
    return measured


def miss(prediction: Mapping[str, float], points: Sequence[Capacity]) -> dict:
    """A prediction beside what was measured later: seeds of one setting, geometric mean.

    ratio: measured over predicted, None when every seed is censored; inside: whether the interval
    holds the measurement, for a censored one whether it reaches the side where L* lies.
    """
    exact = [p.window for p in points if not p.censored]
    line = {
        "setting": dict(points[0].setting),
        "predicted": dict(prediction),
        "seeds": len(points),
        "censored": sorted({p.censored for p in points} - {""}),
    }
    if exact:
        measured = float(np.exp(np.mean(np.log(exact))))
        return line | {
            "measured": measured,
            "ratio": measured / prediction["window"],
            "inside": bool(prediction["low"] <= measured <= prediction["high"]),
        }
    limit = points[0].window
    inside = (
        prediction["high"] >= limit if points[0].censored == "above" else prediction["low"] < limit
    )
    return line | {"measured": None, "limit": limit, "ratio": None, "inside": bool(inside)}


def against_bound(points: Sequence[Capacity]) -> list[dict]:
    """Each capacity beside `BOUND` at the same M: tokens, and latent numbers spent per token.

    The bound is of another task (each text's vectors optimised, teacher forcing), so it is compared
    with and is no target.  Between its M it is interpolated, log in log; outside them it is None.
    """
    m, tokens = np.log(list(BOUND)), np.log(list(BOUND.values()))
    out = []
    for p in points:
        latents, width = p.setting["latents"], p.setting["d_latent"]
        inside = min(BOUND) <= latents <= max(BOUND)
        bound = float(np.exp(np.interp(math.log(latents), m, tokens))) if inside else None
        out.append(
            {
                **p.setting,
                "seed": p.seed,
                "window": p.window,
                "censored": p.censored,
                "numbers_per_token": latents * width / p.window,
                "bound_window": bound,
                "bound_numbers_per_token": bound and latents * BOUND_WIDTH / bound,
            }
        )
    return out
