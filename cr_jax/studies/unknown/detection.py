"""How well a score tells unknown from known.  Scores grow with novelty score, as residuals do.

Not in the paper, which shows the gap between domains but no detection figures.  numpy only.
"""

import numpy as np
from jaxtyping import Real

from cr_jax.errors import UserError


def auroc(known: Real[np.ndarray, " N"], unknown: Real[np.ndarray, " U"]) -> float:
    """P(an unknown scores above a known) + P(tie) / 2, over all pairs (Mann-Whitney, exact).

    1: told apart perfectly; 0.5: chance.  `UserError` when a side is empty or has NaN.

    >>> auroc(np.array([1, 2, 3]), np.array([3, 4])), auroc(np.array([1, 2]), np.array([1, 2]))
    (0.9166666666666666, 0.5)
    """
    known, unknown = _checked(known, unknown)
    below = np.searchsorted(known, unknown, side="left")
    not_above = np.searchsorted(known, unknown, side="right")
    return float(np.sum(below + not_above) / (2 * known.size * unknown.size))


def fpr_at_95(
    known: Real[np.ndarray, " N"], unknown: Real[np.ndarray, " U"], share: float = 0.95
) -> float:
    """Share of unknowns let in by the lowest threshold that lets in `share` of the knowns.

    0 is best.  `UserError` when a side is empty or has NaN.
    """
    if not 0 < share <= 1:
        raise UserError(f"the share of knowns let in must lie in (0, 1], got {share}")
    known, unknown = _checked(known, unknown)
    # ceil of an exact product: 0.95 * 20 is 19, whatever floating point makes of it
    place = int(np.ceil(round(share * known.size, 9))) - 1
    return float(np.mean(unknown <= known[place]))


def limit(values: Real[np.ndarray, " N"], false_alarm: float) -> float:
    """A score that a further exchangeable window exceeds with probability <= `false_alarm`.

    `UserError`: a rate outside (0, 1), or too few values for it.
    """
    # rounded: 100 * 0.99 must be 99, whatever floating point makes of it
    place = int(np.ceil(round((len(values) + 1) * (1 - false_alarm), 9)))
    if not 0 < false_alarm < 1 or place > len(values):
        raise UserError(
            f"a false alarm rate of {false_alarm} must lie in (0, 1) and needs at "
            f"least {int(np.ceil(1 / max(false_alarm, 1e-9))) - 1} validation "
            f"windows; there are {len(values)}"
        )
    return float(np.sort(values)[place - 1])


def _checked(known, unknown):
    sides = [np.sort(np.asarray(x, np.float64).ravel()) for x in (known, unknown)]
    if not all(x.size and not np.isnan(x).any() for x in sides):
        raise UserError("detection figures need at least one known and one unknown score, no NaN")
    return sides
