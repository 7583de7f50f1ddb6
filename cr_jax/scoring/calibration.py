"""What residuals an expert makes on its own domain, and the p-values that follow from them.

numpy only: stored with the expert, used by the router.  Not in the paper, which says "unknown"
when *all* experts rebuild an input poorly without saying how poor that is.
"""

import dataclasses
import functools
import math
import types
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cr_jax.errors import UserError

FORMAT = 1
SHORTEST = 8  # tokens; a residual over fewer says too little to calibrate
MOST = 1000  # residuals kept per length
MOST_SIZE = 1 << 62  # tokens of a window, or windows of a document
FEWEST = 20  # documents: with fewer none could have p < 0.05
# Of alpha, for text that is too predictable; the rest is for text that is not predictable enough.
# At alpha = 0.05 less than 0.0476 leaves `FEWEST` documents able to refuse text that is too hard
# (1 / 21 / 0.9524), and more than 0.03996 lets documents be refused whose windows all lie below
# 1,000 calibrated ones (2 / 1001 / 0.03996); about the middle of the two.
LOW_SHARE = 0.044
# Older files hold documents' means of four digits: such a number may stand for any this near.
ROUNDED = 0.5e-4
PERCENTILE = 95  # of an expert's own residuals: what exceeds it is not typical of the expert


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """Sorted mean residuals (nats/token) of windows of an expert's own validation split.

    `residuals[l]`: float64 [n], one number per window cut to its first l tokens.  `documents[k]`:
    sorted too, one number for the first k windows of a whole validation document, the mean of
    their p-values weighted by tokens; empty where there were too few documents.  Raises `UserError`
    when a length is below 1, empty, too long, not finite or not sorted, or a mean no share.
    """

    residuals: Mapping[int, Float[np.ndarray, " n"]]
    documents: Mapping[int, Float[np.ndarray, " _"]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        kept = _sorted_arrays(self.residuals, np.isfinite, "at length {}", "finite residuals")
        if not kept:
            raise UserError("calibration is empty; calibrate the expert on its validation windows")
        documents = _sorted_arrays(
            self.documents, lambda x: (x >= 0) & (x <= 1), "of documents of {} windows", "shares"
        )
        object.__setattr__(self, "residuals", types.MappingProxyType(kept))
        object.__setattr__(self, "documents", types.MappingProxyType(documents))

    def p_value(
        self, residual: Float[np.ndarray, " B"], length: Int[np.ndarray, " B"]
    ) -> Float[np.ndarray, " B"]:
        """One-sided conformal p-value of each window, (1 + #{calibration >= residual}) / (n + 1):
        small where the residual is high.

        A window of `length` real tokens is compared at the largest calibrated length that does
        not exceed it.  NaN where it is shorter than all of them: nothing can be said then.  On
        windows exchangeable with the calibration's, P(p <= a) <= a for every a.
        """
        return self._one_sided(residual, length, _as_high)

    def low_p_value(
        self, residual: Float[np.ndarray, " B"], length: Int[np.ndarray, " B"]
    ) -> Float[np.ndarray, " B"]:
        """The other side, (1 + #{calibration <= residual}) / (n + 1): small where the residual is
        low, the window more predictable than the expert's own text.  As valid as `p_value`.
        """
        return self._one_sided(residual, length, _as_low)

    def _one_sided(self, residual, length, reached):
        residual = np.asarray(residual, np.float64)
        at = self._place(length)
        p = np.full(residual.shape, np.nan)
        for i, known in enumerate(self.residuals.values()):
            here = at == i
            p[here] = (1 + reached(known, residual[here])) / (known.size + 1)
        return p

    def document_p(
        self, weighted: float, total: int, most: int, count: int, low_weighted: float | None = None
    ) -> float:
        """A document's p-value from the totals of `p_sums`; NaN when none of its windows has one.

        (1 + #{validation documents with as low a mean}) / (n + 1): documents vary as wholes, and
        windows of one of them alike.  Below all of them, where this could say no less than
        1 / (n + 1), `merged_p` if it is less; and `merged_p` where there were too few validation
        documents, or windows in it.  Valid: the rank is conformal, and `merged_p`, valid too,
        decides only for a below 1 / (n + 1), where the rank alone never has p <= a.

        Between two calibrated numbers of windows, the mean of both p-values, by the logarithm of
        the number, so that one more window never changes much.  A mean over more windows varies
        less: the rank at the lower number is too cautious, that at the higher one too bold, and
        their mean is at most alpha as often as it may be (simulated in the tests, not proven).

        weighted: of `p_value`s.  low_weighted: the sum of tokens * `low_p_value`; with it the
        p-value is `two_sided`.  Its lower side counts, in the same way, validation documents with
        as high a mean of `p_value`s, or merges the `low_p_value`s.
        """
        high, low = self.document_sides(weighted, total, most, count, low_weighted)
        return high if low is None else float(two_sided(high, low))

    def document_sides(
        self, weighted: float, total: int, most: int, count: int, low_weighted: float | None = None
    ) -> tuple[float, float | None]:
        """The one-sided p-values that `document_p` is made of: small where the document is less
        predictable than own ones, and where it is more; the latter None without `low_weighted`."""
        near = between(self.documents, count if total else 0)

        def side(side_weighted, reached):
            merged = merged_p(side_weighted, total, most)
            if not near:
                return merged
            mean = weighted / total
            found = ((share, self._document_rank(k, mean, reached)) for k, share in near)
            return sum(share * (p if as_far else min(p, merged)) for share, (as_far, p) in found)

        low = None if low_weighted is None else side(low_weighted, _as_high)
        return side(weighted, _as_low), low

    def _document_rank(self, k: int, mean: float, reached) -> tuple[int, float]:
        """How many validation documents are as far as one of this mean of k windows, and its
        p-value."""
        known = self.documents[k]
        if k in self._rounded:
            mean += ROUNDED if reached is _as_low else -ROUNDED
        as_far = int(reached(known, mean))
        return as_far, (1 + as_far) / (known.size + 1)

    @functools.cached_property
    def _rounded(self) -> set[int]:
        """Numbers of windows whose means come from an older file."""
        return {k for k, means in self.documents.items() if (means == np.round(means, 4)).all()}

    def limit(self, length: Int[np.ndarray, " B"]) -> Float[np.ndarray, " B"]:
        """The 95th percentile of the expert's own residuals, nats/token, for windows of `length`
        real tokens, at the same calibrated length as `p_value`; NaN where it is shorter than all.
        """
        at = self._place(length)
        return np.where(at < 0, np.nan, self._limits[at])

    @functools.cached_property
    def _limits(self):
        return np.array([np.percentile(known, PERCENTILE) for known in self.residuals.values()])

    def _place(self, length):
        """Index of the largest calibrated length that does not exceed it; -1: none."""
        return np.searchsorted(list(self.residuals), np.asarray(length), side="right") - 1

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types with a format number; `from_json` gives the same object back."""
        plain = lambda of: {str(k): [float(x) for x in v] for k, v in of.items()}
        return {
            "format": FORMAT,
            "unit": "nats/token",
            "residuals": plain(self.residuals),
            **({"documents": plain(self.documents)} if self.documents else {}),
        }

    @classmethod
    def from_json(cls, raw: Any) -> "Calibration":
        """Raises `UserError` when `raw` is not what `to_json` wrote."""
        try:
            if raw["format"] != FORMAT:
                raise UserError(
                    f"calibration has format {raw['format']!r}, this version reads "
                    f"{FORMAT}; calibrate the expert again or upgrade cr_jax"
                )
            arrays = lambda of: {int(k): np.array(v, np.float64) for k, v in of.items()}
            return cls(arrays(raw["residuals"]), arrays(raw.get("documents", {})))
        except UserError:
            raise
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            raise UserError("calibration cannot be read; calibrate the expert again") from error


def between(calibrated: Iterable[int], count: int) -> list[tuple[int, float]]:
    """(k, share) of the calibrated numbers of windows next to this one; shares add up to 1.  Empty
    where all of them are higher.

    >>> between((2, 8), 4)
    [(2, 0.5), (8, 0.5)]
    """
    lower = max((k for k in calibrated if k <= count), default=0)
    upper = min((k for k in calibrated if k > count), default=0)
    if not lower or not upper:
        return [(lower, 1.0)] if lower else []
    share = math.log(count / lower) / math.log(upper / lower)
    return [(lower, 1 - share), (upper, share)]


def two_sided(
    high: float | Float[np.ndarray, "..."], low: float | Float[np.ndarray, "..."]
) -> Float[np.ndarray, "..."]:
    """One p-value from those of the two sides: `LOW_SHARE` of the errors go to the lower one.

    min(1, high / (1 - LOW_SHARE), low / LOW_SHARE).  Valid when both are: P(p <= a) is at most
    P(high <= (1 - LOW_SHARE) a) + P(low <= LOW_SHARE a) <= a.  NaN where one of them is.
    """
    return np.asarray(
        np.minimum(1.0, np.minimum(np.divide(high, 1 - LOW_SHARE), np.divide(low, LOW_SHARE)))
    )


def _as_high(known, value):
    """How many of the sorted numbers are as high as each value."""
    return known.size - np.searchsorted(known, value, side="left")


def _as_low(known, value):
    return np.searchsorted(known, value, side="right")


def _sorted_arrays(given, allowed, where: str, what: str) -> dict[int, np.ndarray]:
    """Read-only float64 arrays by length or count, ascending.  `UserError` for what is none."""
    kept = {}
    for size in sorted(given):
        values = np.asarray(given[size], np.float64)
        if (
            not 1 <= size <= MOST_SIZE
            or values.ndim != 1
            or not 0 < values.size <= MOST
            or not allowed(values).all()
            or (np.diff(values) < 0).any()
        ):
            raise UserError(
                f"calibration {where.format(size)}: 1 to {MOST} sorted {what} are "
                "needed; calibrate the expert again"
            )
        values.setflags(write=False)
        kept[int(size)] = values
    return kept


def too_few(calibrations: Mapping[str, Calibration], alpha: float) -> str | None:
    """One line where experts have too few residuals of whole windows to call any window unknown.

    The p-value of text that is too hard is at least 1 / (n + 1) / (1 - `LOW_SHARE`).  None when all
    can, or alpha is 0 and nothing is ever unknown.
    """
    least = lambda n: float(two_sided(1 / (n + 1), 1.0))
    sizes = {name: c.residuals[max(c.residuals)].size for name, c in calibrations.items()}
    few = [f"{name} {n}" for name, n in sizes.items() if least(n) >= alpha]
    if not few or not alpha:
        return None
    enough = math.floor(1 / alpha / (1 - LOW_SHARE))
    return (
        f"note: too few validation windows to ever call text unknown at alpha={alpha:g}: "
        f"{', '.join(few)}; give {enough} or more to each expert"
    )


def few_documents(calibrations: Mapping[str, Calibration], enough: int = 100) -> str | None:
    """One line where experts were calibrated on fewer than `enough` documents of two windows or
    more: with n of them the rate of false alarms is alpha up to about sqrt(alpha / n).  None where
    all have enough."""
    most = lambda c: max((means.size for means in c.documents.values()), default=0)
    sizes = {name: most(c) for name, c in calibrations.items()}
    few = [f"{name} {n or f'below {FEWEST}'}" for name, n in sizes.items() if n < enough]
    if not few:
        return None
    return (
        f"note: few validation documents of two windows or more: {', '.join(few)}; what is called "
        f"unknown is rough for them (below {FEWEST}: judged by windows alone); give {enough} or "
        "more to each expert"
    )


def p_sums(
    p: Float[np.ndarray, " B"], tokens: Int[np.ndarray, " B"]
) -> tuple[float, int, int, int]:
    """(sum of tokens * p, sum of tokens, most tokens in one window, windows), without those whose p
    is NaN.  Totals of several parts of a document: add, add, take the larger, add.
    """
    known = ~np.isnan(p)
    tokens = np.where(known, tokens, 0)
    return (
        float(np.sum(tokens * np.nan_to_num(p))),
        int(tokens.sum()),
        int(tokens.max(initial=0)),
        int(known.sum()),
    )


def merged_p(weighted: float, total: int, most: int) -> float:
    """Totals of `p_sums` -> a document's p-value, valid however its windows depend on each other.

    Mean of the windows' p, all of one side, weighted by their share w of the tokens, times
    min(2, 1 / max w): valid when each window's is (Vovk & Wang 2020, "Combining p-values via
    averaging").  Twice the mean for many full windows, p itself for one, and a short last window
    hardly counts.  Cautious: it calls far fewer than a share alpha of known documents unknown at
    alpha.  NaN when no window has a p-value.
    """
    return min(1.0, weighted / total * min(2.0, total / most)) if total else math.nan
