"""A power law of near-lossless capacity with error bars.  numpy only, no files.

    capacities -> fit -> predict

The law is log L* = a + b log M + c log d_z (+ further terms), L* in tokens.  A censored capacity
tells the fit only which side of the measured windows it lies on.  The paper (open question 1)
asks for the law and gives none.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from cr_jax.errors import UserError
from cr_jax.studies.capacity.capacity import BOUND, SETTING, TERMS, Capacity

_FLOOR = 1e-3  # least scatter of log L*: a perfect fit would divide by zero


@dataclasses.dataclass(frozen=True)
class Law:
    """log L* = intercept + sum over terms of exponent * log(setting[term]).

    verdict: "law" when the 95 % interval of some exponent leaves out 0; "no law" when none does;
    "undetermined" when too few settings cross the threshold to fit one (numbers are then NaN).
    scatter: standard deviation of log L* about the law; seed_scatter: between seeds of a setting.
    """

    terms: tuple[str, ...]
    verdict: Literal["law", "no law", "undetermined"]
    reason: str
    coefficients: Float[np.ndarray, " P"]  # intercept, then one exponent per term
    draws: Float[np.ndarray, "N P"]  # bootstrap, same order
    scatter: float
    seed_scatter: float
    r2: float
    counts: Mapping[str, int]  # seeds of settings: exact, above, below

    def interval(self, number: int) -> tuple[float, float]:
        """95 % interval of coefficient `number` (0: the intercept)."""
        if not len(self.draws):
            return math.nan, math.nan
        low, high = np.percentile(self.draws[:, number], (2.5, 97.5))
        return float(low), float(high)

    def to_json(self) -> dict:
        """Plain JSON types; NaN becomes null."""
        cell = lambda n: {
            "value": _number(self.coefficients[n]),
            "interval_95": [_number(v) for v in self.interval(n)],
        }
        return {
            "form": "log L* = intercept + sum of exponent * log(term)",
            "verdict": self.verdict,
            "reason": self.reason,
            "intercept": cell(0),
            "exponents": {t: cell(n) for n, t in enumerate(self.terms, 1)},
            "scatter": _number(self.scatter),
            "seed_scatter": _number(self.seed_scatter),
            "r2": _number(self.r2),
            "counts": dict(self.counts),
            "bootstrap_draws": len(self.draws),
        }

    def __str__(self) -> str:
        exact, above, below = (self.counts[k] for k in ("exact", "above", "below"))
        head = (
            f"{self.verdict}: {self.reason} ({exact} capacities measured, {above} beyond the "
            f"largest window, {below} below the smallest)"
        )
        if self.verdict == "undetermined":
            return head
        cells = [
            f"{name} = {self.coefficients[n]:.2f} [{low:.2f}, {high:.2f}]"
            for n, name in enumerate(("intercept", *self.terms))
            for low, high in [self.interval(n)]
        ]
        return (
            f"{head}\nlog L* = intercept + "
            + " + ".join(f"b_{t} log({t})" for t in self.terms)
            + "\n  "
            + "\n  ".join(cells)
        )


def fit(
    points: Sequence[Capacity], terms: Sequence[str] | None = None, draws: int = 500, seed: int = 0
) -> Law:
    """Maximum-likelihood power law with censoring, and its bootstrap.

    terms: fields of the setting; None takes those of `TERMS` that vary among the points.  Error
    bars: settings are drawn with replacement, then seeds within each, so that they hold both the
    noise between seeds and the law's own misfit; deviations are widened by sqrt(n / (n - P)).
    """
    if terms is None:
        value = lambda p, t: p.setting.get(t)
        terms = [
            t
            for t in TERMS
            if len({value(p, t) for p in points}) > 1 and all(value(p, t) for p in points)
        ]
    terms = tuple(terms)
    counts = {"exact": 0, "above": 0, "below": 0}
    groups: dict[tuple, list[Capacity]] = {}
    for p in points:
        counts[p.censored or "exact"] += 1
        groups.setdefault(tuple(p.setting.get(k) for k in SETTING), []).append(p)
    size = 1 + len(terms)
    sets = [_arrays(g, terms) for g in groups.values()]
    crossing = [s for s in sets if np.any(s[2] == 0)]
    unknown = np.full(size, np.nan)

    def undetermined(reason):
        return Law(
            terms,
            "undetermined",
            reason,
            unknown,
            np.zeros((0, size)),
            math.nan,
            math.nan,
            math.nan,
            counts,
        )

    if not terms:
        return undetermined("no term varies between the settings: measure several M or d_z")
    if len(crossing) <= size:
        return undetermined(
            f"only {len(crossing)} of {len(sets)} settings cross the threshold inside the measured "
            f"windows, a law of {len(terms)} terms needs {size + 1}: widen the windows"
        )
    whole = _stack(sets)
    if not _determined(*whole):
        return undetermined(
            "the terms do not vary independently among the settings that cross the threshold"
        )
    best, scatter = _censored_regression(*whole)
    x, y, side = whole
    exact = side == 0
    means = [s[1][s[2] == 0].mean() for s in crossing]
    level = np.mean(means)
    residual = y[exact] - x[exact] @ best
    total = float(np.sum((y[exact] - level) ** 2))
    within = [s[1][s[2] == 0] - m for s, m in zip(crossing, means)]
    free = sum(len(w) - 1 for w in within)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(20 * draws):
        if len(found) == draws:
            break
        drawn = [sets[i] for i in rng.integers(0, len(sets), len(sets))]
        drawn = [
            tuple(a[pick] for a in s)
            for s in drawn
            for pick in [rng.integers(0, len(s[1]), len(s[1]))]
        ]
        stacked = _stack(drawn)
        if _determined(*stacked):
            found.append(_censored_regression(*stacked)[0])
    wider = math.sqrt(len(crossing) / (len(crossing) - size))
    spread = best + (np.reshape(found, (-1, size)) - best) * wider
    law = Law(
        terms,
        "no law",
        "",
        best,
        spread,
        scatter,
        math.sqrt(sum(float(w @ w) for w in within) / free) if free else math.nan,
        1 - float(residual @ residual) / total if total else math.nan,
        counts,
    )
    sure = [t for n, t in enumerate(terms, 1) if np.prod(np.sign(law.interval(n))) > 0]
    if sure:
        return dataclasses.replace(
            law,
            verdict="law",
            reason=(f"L* changes with {', '.join(sure)} beyond the error bars, R2 {law.r2:.2f}"),
        )
    return dataclasses.replace(
        law, reason=(f"every exponent's 95 % interval holds 0, R2 {law.r2:.2f}")
    )


def predict(law: Law, setting: Mapping, seed: int = 0) -> dict:
    """-> {"window", "low", "high"} in tokens: L* of a setting and its 95 % interval.

    The interval holds the law's error bars and the scatter about it.  `UserError` when there is
    no fit or the setting lacks a term.
    """
    if law.verdict == "undetermined":
        raise UserError(f"there is no law to predict from: {law.reason}")
    missing = [t for t in law.terms if not setting.get(t)]
    if missing:
        raise UserError(f"a prediction needs {', '.join(missing)}")
    x = np.array([1.0, *(math.log(setting[t]) for t in law.terms)])
    noise = np.random.default_rng(seed).normal(0, law.scatter, len(law.draws))
    low, high = np.percentile(law.draws @ x + noise, (2.5, 97.5))
    return {
        "window": float(np.exp(x @ law.coefficients)),
        "low": float(np.exp(low)),
        "high": float(np.exp(high)),
    }


def bound_law() -> Law:
    """The same fit on the six figures of `BOUND`."""
    return fit([Capacity({"latents": m}, 0, float(n)) for m, n in BOUND.items()], ("latents",))


def _arrays(points, terms):
    x = np.array([[1.0, *(math.log(p.setting[t]) for t in terms)] for p in points])
    side = np.array([{"": 0, "above": 1, "below": -1}[p.censored] for p in points])
    return x, np.log([p.window for p in points]), side


def _stack(sets):
    return tuple(np.concatenate(parts) for parts in zip(*sets))


def _determined(x, y, side) -> bool:
    exact = x[side == 0]
    return len(exact) >= x.shape[1] and int(np.linalg.matrix_rank(exact)) == x.shape[1]


def _censored_regression(x, y, side, steps: int = 200):
    """Tobit by expectation-maximisation: (coefficients, standard deviation of the residual)."""
    exact = side == 0
    best = np.linalg.lstsq(x[exact], y[exact], rcond=None)[0]
    scatter = max(_FLOOR, float(np.std(y[exact] - x[exact] @ best)))
    if exact.all():
        free = max(1, len(y) - x.shape[1])
        rest = y - x @ best
        return best, max(_FLOOR, math.sqrt(float(rest @ rest) / free))
    scatter = max(scatter, 0.1)  # a start: a perfect first fit would never hear the censored ones
    solve, censored = np.linalg.pinv(x), ~exact  # the same rows in every step
    for _ in range(steps):
        mean = x @ best
        # Distance from the law to the limit, towards the side where the value lies.
        a = np.clip(side * (y - mean) / scatter, -30, 30)
        mills = np.zeros(len(a))
        mills[censored] = _mills(a[censored])
        filled = np.where(exact, y, mean + side * scatter * mills)
        extra = np.where(exact, 0.0, scatter**2 * np.clip(1 + a * mills - mills**2, 0, 1))
        new = solve @ filled
        scatter = max(_FLOOR, math.sqrt(float(np.mean((filled - x @ new) ** 2 + extra))))
        moved, best = float(np.max(np.abs(new - best))), new
        if moved < 1e-5:
            break
    return best, scatter


def _mills(a: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Normal density at a over the mass above a."""
    near = np.minimum(a, 8)
    above = np.array([math.erfc(v) for v in (near / math.sqrt(2)).tolist()])
    ratio = np.exp(-near * near / 2) / math.sqrt(math.pi / 2) / above
    return np.where(a > 8, a + 1 / np.maximum(a, 8), ratio)


def _number(value) -> float | None:
    return float(value) if math.isfinite(value) else None
