"""How far an expert leads the others on its own documents, and the p-value that follows from it.

A residual alone does not know text of a near domain: C costs the Go expert little more than some
of its own files do.  But own text costs every other expert much more, and C does not: where the
lead is small, nobody is at home.  numpy only.  Not in the paper.
"""

import dataclasses
import functools
import math
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from cr_jax.errors import UserError
from cr_jax.scoring.calibration import FEWEST, MOST, MOST_SIZE, between

FIELDS = ("residuals", "margins")
_LEAST = 1e-6  # nats/token of spread: documents that are all alike


class _Fit(NamedTuple):
    """What k first windows of own documents say: medians, spreads, and their novelty scores."""

    residual: float
    residual_spread: float
    margin: float
    margin_spread: float
    novelty: Float[np.ndarray, " n"]  # sorted


@dataclasses.dataclass(frozen=True, eq=False)
class OwnDocuments:
    """An expert's validation documents as it and the others see their beginnings.

    residuals[k], margins[k]: float64 [n], of the first k windows of n documents, both in the same
    order: nats/token by the expert itself, and how much more the best of the others needs.
    against: the others, by name.  `UserError` when these are not finite, not as many, fewer than
    `FEWEST`, or there are none.
    """

    against: tuple[str, ...]
    residuals: Mapping[int, Float[np.ndarray, " _"]]
    margins: Mapping[int, Float[np.ndarray, " _"]]

    def __post_init__(self):
        for field in FIELDS:
            of = {int(k): np.array(x, np.float64) for k, x in sorted(getattr(self, field).items())}
            for x in of.values():
                x.setflags(write=False)
            object.__setattr__(self, field, types.MappingProxyType(of))
        sizes = [{k: x.shape for k, x in getattr(self, field).items()} for field in FIELDS]
        values = [x for field in FIELDS for x in getattr(self, field).values()]
        if (
            not self.against
            or not sizes[0]
            or sizes[0] != sizes[1]
            or any(not 1 <= k <= MOST_SIZE for k in sizes[0])
            or any(x.ndim != 1 or not FEWEST <= x.size <= MOST for x in values)
            or not all(np.isfinite(x).all() for x in values)
        ):
            raise UserError("the margins of own documents make no sense: measure them again")

    def high_p(self, residual: float, margin: float, count: int, otherwise: float) -> float:
        """One-sided p-value of a document: small where it costs its expert more than own ones do,
        or leads the others by less.

            novelty = (residual - median) / spread + (median of margins - margin) / their spread

        spread: from the median of own documents to the 95th percentile of residuals and to the 5th
        of margins.  p = (1 + #{own documents as novel}) / (n + 1), between two calibrated numbers
        of windows the mean of both by the logarithm of the number, as `Calibration.document_p`.
        Conformal but for median and spread, which are of the same documents.

        residual, margin: nats/token, of the whole document; count: its whole windows; otherwise: a
        valid p-value, taken where it is less and no own document is as novel.  NaN where it is
        shorter than every calibrated beginning, or a number is.
        """
        if not (math.isfinite(residual) and math.isfinite(margin)):
            return math.nan
        near = between(self.residuals, count)
        if not near:
            return math.nan
        return sum(share * self._rank(k, residual, margin, otherwise) for k, share in near)

    def _rank(self, k, residual, margin, otherwise):
        fit = self._fits[k]
        known = fit.novelty
        as_far = known.size - int(np.searchsorted(known, _novelty(fit, residual, margin), "left"))
        p = (1 + as_far) / (known.size + 1)
        return p if as_far or math.isnan(otherwise) else min(p, otherwise)

    @functools.cached_property
    def _fits(self) -> dict[int, _Fit]:
        fits = {}
        for k, of in self.residuals.items():
            leads = self.margins[k]
            middle, dear = np.quantile(of, [0.5, 0.95])
            far, small = np.quantile(leads, [0.5, 0.05])
            fit = _Fit(middle, max(dear - middle, _LEAST), far, max(far - small, _LEAST), of)
            fits[k] = fit._replace(novelty=np.sort(_novelty(fit, of, leads)))
        return fits

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; `from_json` gives the same object back."""
        plain = lambda of: {str(k): [float(x) for x in v] for k, v in of.items()}
        return {
            "against": list(self.against),
            **{field: plain(getattr(self, field)) for field in FIELDS},
        }

    @classmethod
    def from_json(cls, raw: Any) -> "OwnDocuments":
        """`UserError` when `raw` is not what `to_json` wrote."""
        try:
            arrays = [
                {int(k): np.array(v, np.float64) for k, v in raw[field].items()} for field in FIELDS
            ]
            return cls(tuple(map(str, raw["against"])), *arrays)
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                "the margins of own documents cannot be read: measure them again"
            ) from error


def _novelty(fit: _Fit, residual, margin):
    return (residual - fit.residual) / fit.residual_spread + (
        fit.margin - margin
    ) / fit.margin_spread


def margins_of(
    residuals: Float[np.ndarray, " E"], against: Bool[np.ndarray, "E E"]
) -> Float[np.ndarray, " E"]:
    """How much more than each expert the best of those needs that its row of `against` names,
    nats/token, of the experts that scored the text; NaN where there is none.

    >>> margins_of(np.array([2.0, 3.5, 2.5]), np.array([[0, 1, 0], [1, 0, 1], [0, 0, 0]], bool))
    array([ 1.5, -1.5,  nan])
    """
    scored = np.isfinite(residuals)
    best = np.where(against & scored[None], residuals[None], np.inf).min(1, initial=np.inf)
    known = scored & np.isfinite(best)
    return np.where(known, best - np.where(scored, residuals, 0.0), np.nan)
