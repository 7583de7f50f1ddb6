"""How routing accuracy and flips go with the number of experts, and the law of it.

    error(k) / (1 - error(k)) = c (k - 1)^b      k experts, b: 1 where each one takes its share

Not in the paper.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from cr_jax.studies.continual import flips
from cr_jax.studies.continual.stages import History

RESAMPLED = 1000


def accuracy(history: History) -> Float[np.ndarray, " T"]:
    """Routing accuracy after each mount, mean over the domains that are there."""
    routed = history.routed
    return np.array([routed[k, : k + 1].mean() for k in range(len(routed))])


def curve(histories: Sequence[History]) -> dict:
    """{"experts": 2 ... T, "accuracy", "flips": means over orders, "accuracy_low",
    "accuracy_high": the least and the largest}."""
    reached = np.array([accuracy(h)[1:] for h in histories])
    moved = np.array([flips.rates(h)[0] for h in histories])
    return {
        "experts": list(range(2, reached.shape[1] + 2)),
        "accuracy": reached.mean(0).tolist(),
        "accuracy_low": reached.min(0).tolist(),
        "accuracy_high": reached.max(0).tolist(),
        "flips": moved.mean(0).tolist(),
    }


def law(
    experts: Int[np.ndarray, " K"], errors: Float[np.ndarray, "R K"], seed: int = 0
) -> dict[str, float | list[float] | None]:
    """The odds of an error, c (k - 1)^b, by least squares of logarithms of the mean over R orders.

    -> {"c", "b": with "c_range", "b_range": 95 % of 1,000 resamplings of the orders, "residual":
    root mean square of the logarithms}.  Stages without an error are left out; None where fewer
    than three are left.
    """
    mean = errors.mean(0)
    at = (mean > 0) & (mean < 1) & (np.asarray(experts) > 1)
    if at.sum() < 3:
        return {"c": None, "b": None, "c_range": None, "b_range": None, "residual": None}
    x = np.log(experts[at] - 1.0)
    again = np.random.default_rng(seed).integers(len(errors), size=(RESAMPLED, len(errors)))
    # An order without an error at a stage counts there as half of the least error that there is.
    least = errors[errors > 0].min() / 2
    means = np.clip(np.stack([mean, *errors[again].mean(1)])[:, at], least, 1 - least)
    odds = np.log(means / (1 - means))
    slopes, starts = _lines(x, odds)
    low, high = np.quantile([np.exp(starts[1:]), slopes[1:]], [0.025, 0.975], axis=1)
    off = odds[0] - starts[0] - slopes[0] * x
    return {
        "c": float(np.exp(starts[0])),
        "b": float(slopes[0]),
        "c_range": [float(low[0]), float(high[0])],
        "b_range": [float(low[1]), float(high[1])],
        "residual": float(np.sqrt(np.mean(off**2))),
    }


def predicted(found: dict, experts: int) -> float:
    """The error that a law gives for so many experts."""
    odds = found["c"] * (experts - 1) ** found["b"]
    return float(odds / (1 + odds))


def _lines(x, y):
    """(slope, start) of the least-squares line of each row of y."""
    middle = x - x.mean()
    slopes = y @ middle / (middle @ middle)
    return slopes, y.mean(1) - slopes * x.mean()
