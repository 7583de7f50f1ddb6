"""What documents of its own look like to an expert, and the p-value that follows from it.

A residual alone does not know text of a near domain: C costs the Go expert little more than some
of its own files do.  Two more numbers tell.  The margin: own text costs every other expert much
more, and where the lead is small, nobody is at home.  The surprise: text that is hard in itself is
hard by the expert's own predictions too, foreign text is harder than they say.  numpy only.  Not in
the paper.
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

FIELDS = ("residuals", "margins", "surprises")
SURPRISE_FROM = 2  # windows: of one, the surprise says less than the residual
LEAST_LEAD = 0.05  # nats/token; below it a lead is none, by whatever share
_LEAST = 1e-6  # of a spread: documents that are all alike


class Witnesses(NamedTuple):
    """What speaks of a document, by one expert: nats/token, or p-values of each.

    residual: what it costs; margin: how much more the best of the others needs; surprise: its
    encoder's nats less the entropy of its predictions, NaN where that was not measured.
    """

    residual: Any
    margin: Any
    surprise: Any = math.nan


class _Fit(NamedTuple):
    """What k first windows of own documents say of the witnesses that are joined: their names,
    medians and spreads, and the novelty of each document."""

    joined: tuple[str, str]
    median: Float[np.ndarray, " 2"]
    spread: Float[np.ndarray, " 2"]
    known: Float[np.ndarray, " n"]  # sorted

    def novelty(self, oriented: Witnesses) -> Float[np.ndarray, " _"]:
        """Of documents [n], or of one [1]."""
        x = np.array([np.atleast_1d(getattr(oriented, name)) for name in self.joined])
        return np.mean((x - self.median[:, None]) / self.spread[:, None], 0)


@dataclasses.dataclass(frozen=True, eq=False)
class OwnDocuments:
    """An expert's validation documents as it and the others see their beginnings.

    residuals[k], margins[k], surprises[k]: float64 [n], of the first k windows of n documents, all
    in the same order, nats/token (`Witnesses`); no surprises where the bank's rule has none, or in
    a file of an earlier version.  against: the others, by name.  `UserError` when these are not
    finite, not as many, fewer than `FEWEST`, or there are none.
    """

    against: tuple[str, ...]
    residuals: Mapping[int, Float[np.ndarray, " _"]]
    margins: Mapping[int, Float[np.ndarray, " _"]]
    surprises: Mapping[int, Float[np.ndarray, " _"]] = dataclasses.field(default_factory=dict)

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
            or sizes[2] not in ({}, sizes[0])
            or any(not 1 <= k <= MOST_SIZE for k in sizes[0])
            or any(x.ndim != 1 or not FEWEST <= x.size <= MOST for x in values)
            or not all(np.isfinite(x).all() for x in values)
        ):
            raise UserError("the margins of own documents make no sense: measure them again")

    def high_p(self, document: Witnesses, count: int, otherwise: float) -> float:
        """One-sided p-value of a document: small where it is stranger to its expert than own ones.

            novelty = mean of (x - median) / spread over two witnesses x

        of `SURPRISE_FROM` windows surprise and -log(margin); of fewer, or without surprises,
        residual and -log(margin).  spread: from the median of own documents to the 95th percentile.
        p = (1 + #{own documents as novel}) / (n + 1), between two calibrated numbers of windows the
        mean of both by the logarithm of the number, as `Calibration.document_p`.
        Conformal but for median and spread, which are of the same documents.

        document: nats/token, of the whole of it; count: its whole windows; otherwise: a valid
        p-value, taken where it is less and no own document is as novel.  NaN where it is shorter
        than every calibrated beginning, or residual or margin is.
        """
        if not (math.isfinite(document.residual) and math.isfinite(document.margin)):
            return math.nan
        near = between(self.residuals, count)
        oriented = _oriented(document)
        if not near:
            return math.nan
        return sum(share * self._rank(k, oriented, otherwise) for k, share in near)

    def each_p(self, document: Witnesses, count: int) -> Witnesses:
        """The one-sided p-value of every witness by itself; arguments as in `high_p`.  NaN where it
        was not measured."""
        near, oriented = between(self.residuals, count), _oriented(document)

        def p(name):
            value = getattr(oriented, name)
            known = [getattr(self._own[k], name) for k, _ in near]
            if not near or not math.isfinite(value) or not all(map(np.ndim, known)):
                return math.nan
            return sum(s * _p(np.sort(x), value)[1] for (_, s), x in zip(near, known, strict=True))

        return Witnesses(*map(p, Witnesses._fields))

    def _rank(self, k: int, oriented: Witnesses, otherwise: float) -> float:
        by_surprise = k >= SURPRISE_FROM and self.surprises and math.isfinite(oriented.surprise)
        fit = self._fits[k, bool(by_surprise)]
        as_far, p = _p(fit.known, float(fit.novelty(oriented)[0]))
        return p if as_far or math.isnan(otherwise) else min(p, otherwise)

    @functools.cached_property
    def _own(self) -> dict[int, Witnesses]:
        return {
            k: _oriented(Witnesses(x, self.margins[k], self.surprises.get(k, math.nan)))
            for k, x in self.residuals.items()
        }

    @functools.cached_property
    def _fits(self) -> dict[tuple[int, bool], _Fit]:
        fits = {}
        for k, own in self._own.items():
            for by_surprise in (False, True) if self.surprises else (False,):
                joined = ("surprise" if by_surprise else "residual", "margin")
                x = np.array([getattr(own, name) for name in joined])
                median, high = np.quantile(x, [0.5, 0.95], axis=1)
                fit = _Fit(joined, median, np.maximum(high - median, _LEAST), x[0])
                fits[k, by_surprise] = fit._replace(known=np.sort(fit.novelty(own)))
        return fits

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; `from_json` gives the same object back."""
        plain = lambda of: {str(k): [float(x) for x in v] for k, v in of.items()}
        numbers = {field: plain(getattr(self, field)) for field in FIELDS if getattr(self, field)}
        return {"against": list(self.against), **numbers}

    @classmethod
    def from_json(cls, raw: Any) -> "OwnDocuments":
        """`UserError` when `raw` is not what `to_json` of this version or an earlier one wrote."""
        try:
            arrays = [
                {int(k): np.array(v, np.float64) for k, v in of.items()}
                for of in (raw["residuals"], raw["margins"], raw.get("surprises", {}))
            ]
            return cls(tuple(map(str, raw["against"])), *arrays)
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                "the margins of own documents cannot be read: measure them again"
            ) from error


def _oriented(document: Witnesses) -> Witnesses:
    """The witnesses, each larger where it is less like own documents."""
    return document._replace(margin=-np.log(np.maximum(document.margin, LEAST_LEAD)))


def _p(known: Float[np.ndarray, " n"], value: float) -> tuple[int, float]:
    """How many of the sorted numbers are as high, and the conformal p-value."""
    as_far = known.size - int(np.searchsorted(known, value, "left"))
    return as_far, (1 + as_far) / (known.size + 1)


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
