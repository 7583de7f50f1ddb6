"""Rules that say how unknown a window is, from the residuals of the known domains' experts.

A rule is fitted on validation windows of the known domains only and then gives one number per
window, larger for stranger ones.  numpy only.  Not in the paper, which says that an input is
unknown when *all* compressors rebuild it poorly and gives no rule.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

_NEAREST = 10  # neighbours
_MOST = 256  # validation windows of a domain that neighbours are looked for among
_BLOCK = 2048


@dataclasses.dataclass(frozen=True)
class Signals:
    """What is known of N windows.

    residual: nats/token by each of E experts; generalist: the same by the reference expert;
    complexity: nats/token by a general-purpose compressor; repetition: two statistics of the text
    alone (`text_statistics`).
    """

    residual: Float[np.ndarray, "E N"]
    complexity: Float[np.ndarray, " N"] | None = None
    generalist: Float[np.ndarray, " N"] | None = None
    repetition: Float[np.ndarray, "N 2"] | None = None

    def __len__(self) -> int:
        return self.residual.shape[1]

    def take(self, at) -> "Signals":
        """The windows at `at` (a slice or indices)."""
        part = lambda x: None if x is None else x[at]
        return Signals(
            self.residual[:, at],
            part(self.complexity),
            part(self.generalist),
            part(self.repetition),
        )


def join(parts: Sequence[Signals]) -> Signals:
    """The windows of all parts, in order."""

    def along(values):
        return None if values[0] is None else np.concatenate(values)

    return Signals(
        np.concatenate([p.residual for p in parts], 1),
        along([p.complexity for p in parts]),
        along([p.generalist for p in parts]),
        along([p.repetition for p in parts]),
    )


# own[e]: validation windows of active expert e's own domain, scored by all active experts
Own = Sequence[Signals]
Scorer = Callable[[Signals], np.ndarray]
Rule = Callable[[Own], Scorer]


def available(signals: Signals) -> dict[str, Rule]:
    """The rules that these signals allow, by name.

    The winner is the expert with the lowest residual; "own" refers to its own domain.

    p: 1 - the winner's conformal p-value (the router's own rule).
    novelty_score: least over experts of (residual - median) / (95th percentile - median), both of
      own text, as in study `routing`.
    two_sided: the winner's, where a residual below the median counts too (median - 5th percentile
      is then the unit): an input that is rebuilt too easily is unusual as well.
    p_two_sided: 1 - the winner's two-sided p-value.
    margin: minus the difference of the two lowest residuals.
    bank: two_sided for the residual minus the median of all experts' residuals.
    generalist, complexity: two_sided for the residual minus the generalist's residual, or minus
      the compressor's size.
    gain: novelty score of the residual minus the generalist's: an expert that knows the text
      gains on a reference of its own kind, and for text that no expert knows none does.
    novelty_score_gain: the larger of novelty score and gain, as in `largest`.
    worst: the largest of two_sided, bank, generalist and complexity.
    joint: the same statistics together, Mahalanobis distance of the winner's to own text.
    fingerprint: Mahalanobis distance of the vector of all experts' log residuals (the
      generalist's too) to the nearest domain, with one covariance per domain.
    fingerprint_complexity: the same with the compressor's size in the vector.
    neighbours: distance of fingerprint's vector, in units of the pooled spread within domains, to
      its 10th nearest validation window.
    novelty_score_repetition: the larger of novelty score and half the distance of the text's
      repetition from that of the nearest expert's own text, in the same units: easy inputs repeat.
    largest: the larger of novelty score and the last fingerprint at hand, each in units of its
      upper spread over known validation text.
    """
    kinds = _kinds(signals)
    rules = {
        "p": _p(False),
        "novelty_score": _strange("residual"),
        "two_sided": _two_sided(("residual",)),
        "p_two_sided": _p(True),
    }
    if len(signals.residual) > 1:
        rules["margin"] = lambda own: _margin
    rules |= {kind: _two_sided((kind,)) for kind in kinds[1:]}
    if signals.generalist is not None:
        rules |= {
            "gain": _strange("generalist"),
            "novelty_score_gain": _largest(_strange("residual"), _strange("generalist")),
        }
    if len(kinds) > 1:
        rules |= {"worst": _two_sided(kinds), "joint": _joint(kinds)}
    rules["fingerprint"] = last = _fingerprint(_vector)
    if signals.complexity is not None:
        rules["fingerprint_complexity"] = last = _fingerprint(
            lambda s: np.column_stack([_vector(s), np.log1p(s.complexity)])
        )
    if signals.repetition is not None:
        rules["novelty_score_repetition"] = _strange_or_repetitive
    return rules | {"neighbours": _neighbours, "largest": _largest(_strange("residual"), last)}


def _kinds(signals: Signals) -> tuple[str, ...]:
    """Statistics [E, N] at hand; nats/token, of which the generalist's and the compressor's parts
    are log likelihood ratios."""
    kinds = ["residual"]
    if len(signals.residual) > 1:
        kinds.append("bank")
    return (*kinds, *(k for k in ("generalist", "complexity") if getattr(signals, k) is not None))


def _statistic(signals: Signals, kind: str) -> np.ndarray:
    residual = signals.residual
    if kind == "residual":
        return residual
    if kind == "bank":
        return residual - np.median(residual, 0)[None]
    return residual - getattr(signals, kind)[None]


def _own(own: Own, kind: str) -> list[np.ndarray]:
    return [_statistic(signals, kind)[e] for e, signals in enumerate(own)]


def _p(two_sided: bool) -> Rule:
    def fit(own):
        known = [np.sort(values) for values in _own(own, "residual")]

        def score(signals):
            residual, won = signals.residual, signals.residual.argmin(0)
            out = np.empty(len(signals))
            for e, values in enumerate(known):
                here = won == e
                x = residual[e, here]
                above = 1 + values.size - np.searchsorted(values, x, side="left")
                below = 1 + np.searchsorted(values, x, side="right")
                least = np.minimum(1.0, 2 * np.minimum(above, below) / (values.size + 1))
                out[here] = 1 - (least if two_sided else above / (values.size + 1))
            return out

        return score

    return fit


def _strange(kind: str) -> Rule:
    def fit(own):
        middle, high = _quantiles(own, kind, (0.5, 0.95))
        unit = np.maximum(high - middle, 1e-6)
        return lambda signals: ((_statistic(signals, kind) - middle) / unit).min(0)

    return fit


def _two_sided(kinds: Sequence[str]) -> Rule:
    def fit(own):
        shapes = {k: _quantiles(own, k, (0.05, 0.5, 0.95)) for k in kinds}

        def score(signals):
            away = []
            for kind, (low, middle, high) in shapes.items():
                x = _statistic(signals, kind)
                away.append(
                    _winner(
                        signals,
                        np.where(
                            x > middle,
                            (x - middle) / np.maximum(high - middle, 1e-6),
                            (middle - x) / np.maximum(middle - low, 1e-6),
                        ),
                    )
                )
            return np.max(away, 0)

        return score

    return fit


def _quantiles(own: Own, kind: str, shares: Sequence[float]) -> np.ndarray:
    """[quantiles, E, 1] of a statistic of each expert on its own domain."""
    return np.array([np.quantile(v, shares) for v in _own(own, kind)]).T[..., None]


def _winner(signals: Signals, values: np.ndarray) -> np.ndarray:
    return values[signals.residual.argmin(0), np.arange(len(signals))]


def _margin(signals: Signals) -> np.ndarray:
    first, second = np.partition(signals.residual, 1, axis=0)[:2]
    return first - second


def _joint(kinds: Sequence[str]) -> Rule:
    def fit(own):
        # windows x statistics per expert
        shapes = [
            _gaussian(np.stack(x, 1)) for x in zip(*(_own(own, k) for k in kinds), strict=True)
        ]

        def score(signals):
            stack = np.stack([_statistic(signals, k) for k in kinds], -1)  # [E, N, K]
            return _winner(
                signals,
                np.stack([_distance(x, *shape) for x, shape in zip(stack, shapes, strict=True)]),
            )

        return score

    return fit


def _vector(signals: Signals) -> np.ndarray:
    """[N, E], one more with a generalist; logarithms, because residuals far from home spread over
    many nats."""
    rows = (
        signals.residual
        if signals.generalist is None
        else np.concatenate([signals.residual, signals.generalist[None]])
    )
    return np.log1p(np.maximum(rows.T, 0))


def _fingerprint(vector: Callable[[Signals], np.ndarray]) -> Rule:
    def fit(own):
        shapes = [_gaussian(vector(signals)) for signals in own]
        return lambda signals: np.min([_distance(vector(signals), *s) for s in shapes], 0)

    return fit


def _largest(*rules: Rule) -> Rule:
    def fit(own):
        known, parts = join(own), []
        for scorer in (rule(own) for rule in rules):
            middle, high = np.quantile(scorer(known), [0.5, 0.95])
            parts.append((scorer, middle, max(high - middle, 1e-6)))
        return lambda signals: np.max([(f(signals) - m) / unit for f, m, unit in parts], 0)

    return fit


def _strange_or_repetitive(own: Own) -> Scorer:
    middle, high = _quantiles(own, "residual", (0.5, 0.95))
    shapes = [_gaussian(s.repetition) for s in own]

    def parts(signals):
        away = (signals.residual - middle) / np.maximum(high - middle, 1e-6)
        distance = np.stack([_distance(signals.repetition, *shape) for shape in shapes])
        return away.min(0), distance[away.argmin(0), np.arange(len(signals))]

    units = []
    for values in parts(join(own)):
        usual, most = np.quantile(values, [0.5, 0.99])
        units.append((usual, max(most - usual, 1e-6)))
    (m, unit), (n, other) = units

    def score(signals):
        strange, repetitive = parts(signals)
        return np.maximum((strange - m) / unit, 0.5 * (repetitive - n) / other)

    return score


def _neighbours(own: Own) -> Scorer:
    vectors = [_vector(signals) for signals in own]
    unit = np.sqrt(np.mean([v.var(0) for v in vectors], 0)) + 1e-6
    spread = lambda v: np.linspace(0, len(v) - 1, min(len(v), _MOST)).astype(int)
    known = np.concatenate([v[spread(v)] for v in vectors]) / unit
    place = min(_NEAREST, len(known)) - 1

    def score(signals):
        x, out = _vector(signals) / unit, np.empty(len(signals))
        for i in range(0, len(x), _BLOCK):
            part = x[i : i + _BLOCK]
            square = (part**2).sum(1)[:, None] + (known**2).sum(1)[None] - 2 * part @ known.T
            out[i : i + _BLOCK] = np.partition(square, place, axis=1)[:, place]
        return out

    return score


def _gaussian(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and inverse covariance of rows, a tenth of the variances added against chance ties."""
    centred = x - x.mean(0)
    covariance = centred.T @ centred / max(1, len(x) - 1)
    return x.mean(0), np.linalg.inv(covariance + np.diag(0.1 * np.diag(covariance) + 1e-9))


def _distance(x: np.ndarray, mean: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    away = x - mean
    return np.sqrt(np.einsum("ni,ij,nj->n", away, inverse, away, optimize=True))
