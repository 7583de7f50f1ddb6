"""Witnesses: numbers that say how unlike its winner's own text a window is.  Not in the paper.

Each is fitted on what the known experts' own validation windows look like from their own expert,
and on nothing else: no foreign text, no gate.  Larger is stranger.

    TokenStatistics, winner -> View -> fit -> {witness: [N]}
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from cr_jax.studies.unknown.token_statistics import TokenStatistics

STRONGEST = 3  # other experts that a mean over pairs is of
SHRINK, FLOOR = 0.5, 0.1  # of a covariance: share of the mean variance, and what is added, nats^2
JOINED = ("residual", "pair_clipped", "pair_share")
WITH_VECTOR = ("residual", "vector", "pair_share")
NOVEL, SURPRISE = "novel", "surprise"  # only where the statistics have them


@dataclasses.dataclass(frozen=True)
class View:
    """N windows as their winners see them; K known experts.  nats/token; pairs are of the winner
    and each known expert, as in `TokenStatistics`."""

    winner: Int[np.ndarray, " N"]  # place among the known
    residual: Float[np.ndarray, " N"]
    deviation: Float[np.ndarray, " N"]
    dearest: Float[np.ndarray, " N"]
    regret: Float[np.ndarray, " N"]
    lead: Float[np.ndarray, " N"]
    distinct: Float[np.ndarray, " N"]
    clipped: Float[np.ndarray, "N K"]
    share: Float[np.ndarray, "N K"]
    excess: Float[np.ndarray, "N K"]
    novel: Float[np.ndarray, " N"] | None = None
    surprise: Float[np.ndarray, " N"] | None = None

    @property
    def itself(self) -> Bool[np.ndarray, "N K"]:
        """The winner's own column, which says nothing."""
        return np.arange(self.clipped.shape[1]) == self.winner[:, None]


def view(
    statistics: TokenStatistics,
    known: Sequence[int],
    winner: Int[np.ndarray, " N"],
    left_out: int | None = None,
) -> View:
    """known: rows of the experts that are there, all but `left_out`; winner: places among them."""
    known, at = np.asarray(known), np.arange(len(statistics))
    row = known[winner]
    gone = row if left_out is None else np.full_like(row, left_out)
    pairs = (
        x[row[:, None], known, at[:, None]]
        for x in (statistics.clipped, statistics.share, statistics.excess)
    )
    return View(
        winner,
        statistics.residual[row, at],
        statistics.deviation[row, at],
        statistics.dearest[row, at],
        statistics.rival_excess[row, gone, at],
        statistics.rival_lead[row, gone, at],
        statistics.distinct,
        *pairs,
        *(None if x is None else x[row, at] for x in (statistics.novel, statistics.surprise)),
    )


Score = Callable[[View], np.ndarray]
Fit = Callable[[View], Score]


def fit(own: View) -> Callable[[View], dict[str, np.ndarray]]:
    """own: validation windows, each seen from its own expert -> all witnesses of further windows.

    residual: the winner's residual less the median of its own text, in units of its upper spread
      (95th percentile - median).
    residual_nats: the same in nats/token.
    deviation, dearest: the same for the deviation of the nats of its tokens, and for the mean of
      the dearest twentieth.
    lead: minus the mean lead over the best other expert at each token, less the median.
    regret: nats/token that the best other expert at each token would have saved, less the median.
    pair_regret: the same against each other expert alone, each less its median; mean of the
      `STRONGEST`.
    pair_clipped: as pair_regret, of differences that are held within +-`CLIP` nats.
    pair_share: as pair_regret, of the share of tokens that the other expert has clearly won.
    vector: distance of the residual and of the clipped differences to all other experts from
      their medians, where only what is above them counts, under the winner's own covariance.
    repetition: the share of distinct tokens, unlike own text on either side.
    novel: share of trigrams of tokens that the winner's own training text has not, less the median;
      only where the statistics have it, as sum_novel: the mean of `WITH_VECTOR` and novel.
    surprise: nats/token by which the winner's encoder is surprised beyond the entropy of its own
      predictions, as residual; only where the statistics have it, as sum_surprise and
      largest_surprise: of `WITH_VECTOR` and surprise.
    Joined, each in units of its spread over all own text (99th percentile - median): `sum` and
    `largest` of `JOINED`, `sum_vector` and `largest_vector` of `WITH_VECTOR`; `least_p` and
    `fisher` of the conformal p-values of `JOINED`; `sum_repetition`: the larger of `sum` and half
    of repetition.
    """
    missing = {n for n in (NOVEL, SURPRISE) if getattr(own, n) is None}
    singles = {n: make(own) for n, make in SINGLES.items() if n not in missing}
    before = {name: score(own) for name, score in singles.items()}
    units = {name: _spread(x, 0.99) for name, x in before.items()}
    tables = {
        name: [np.sort(before[name][own.winner == e]) for e in range(own.clipped.shape[1])]
        for name in JOINED
    }

    def score(seen: View) -> dict[str, np.ndarray]:
        found = {name: one(seen) for name, one in singles.items()}
        even = {name: (x - units[name][0]) / units[name][1] for name, x in found.items()}
        p = np.stack([_p_values(tables[n], found[n], seen.winner) for n in JOINED])
        for name in (NOVEL, SURPRISE):
            if name not in missing:
                found["sum_" + name] = np.mean([even[n] for n in (*WITH_VECTOR, name)], 0)
        if SURPRISE not in missing:
            every = [even[n] for n in (*WITH_VECTOR, SURPRISE)]
            found["largest_" + SURPRISE] = np.max(every, 0)
        for kind, names in (("", JOINED), ("_vector", WITH_VECTOR)):
            stack = np.stack([even[n] for n in names])
            found |= {"sum" + kind: stack.mean(0), "largest" + kind: stack.max(0)}
        return found | {
            "sum_repetition": np.maximum(found["sum"], 0.5 * even["repetition"]),
            "least_p": -p.min(0),
            "fisher": -np.log(p).sum(0),
        }

    return score


def _spread(x: np.ndarray, high: float) -> tuple[float, float]:
    middle, above = np.quantile(x, [0.5, high])
    return middle, max(above - middle, 1e-6)


def _by_winner(own: View, of: Callable[[np.ndarray], object]) -> list:
    return [of(np.flatnonzero(own.winner == e)) for e in range(own.clipped.shape[1])]


def _above(value: Score, scaled: bool = True) -> Fit:
    """How far above the winner's own median."""

    def make(own):
        x = value(own)
        middle, unit = np.array(_by_winner(own, lambda at: _spread(x[at], 0.95))).T
        unit = unit if scaled else np.ones_like(unit)
        return lambda seen: (value(seen) - middle[seen.winner]) / unit[seen.winner]

    return make


def _either_side(value: Score) -> Fit:
    def make(own):
        above, below = _above(value)(own), _above(lambda seen: -value(seen))(own)
        return lambda seen: np.maximum(above(seen), below(seen))

    return make


def _pairs(value: Callable[[View], np.ndarray]) -> Fit:
    """Mean of the strongest other experts, each above its own median against the winner."""

    def make(own):
        x = value(own)
        middle = np.stack(_by_winner(own, lambda at: np.median(x[at], 0)))

        def score(seen):
            above = np.where(seen.itself, -np.inf, value(seen) - middle[seen.winner])
            strongest = min(STRONGEST, above.shape[1] - 1)
            return -np.sort(-above, 1)[:, :strongest].mean(1)

        return score

    return make


def _vector(own: View) -> Score:
    def features(seen):
        return np.column_stack([seen.residual, np.where(seen.itself, 0, seen.clipped)])

    x = features(own)

    def shape(at):
        some = x[at]
        # few windows of many experts: half of the mean variance keeps the inverse tame
        covariance = np.cov(some.T) if len(some) > 1 else np.zeros((x.shape[1],) * 2)
        usual = np.trace(covariance) / max(1, x.shape[1] - 1)
        mixed = (1 - SHRINK) * covariance + (SHRINK * usual + FLOOR) * np.eye(x.shape[1])
        return np.median(some, 0), np.linalg.inv(mixed)

    middle, inverse = (np.stack(part) for part in zip(*_by_winner(own, shape), strict=True))

    def score(seen):
        away = np.maximum(0, features(seen) - middle[seen.winner])
        out = np.empty(len(away))
        for e in range(len(inverse)):
            at = seen.winner == e
            out[at] = np.einsum("ni,ij,nj->n", away[at], inverse[e], away[at], optimize=True)
        return np.sqrt(np.maximum(0, out))

    return score


def _p_values(own: list[np.ndarray], x: np.ndarray, winner: np.ndarray) -> np.ndarray:
    """Conformal p-values of x among the winner's own."""
    out = np.empty(len(x))
    for e, known in enumerate(own):
        at = winner == e
        above = known.size - np.searchsorted(known, x[at], side="left")
        out[at] = (1 + above) / (known.size + 1)
    return out


SINGLES: dict[str, Fit] = {
    "residual": _above(lambda seen: seen.residual),
    "residual_nats": _above(lambda seen: seen.residual, scaled=False),
    "deviation": _above(lambda seen: seen.deviation),
    "dearest": _above(lambda seen: seen.dearest),
    "lead": _above(lambda seen: -seen.lead, scaled=False),
    "regret": _above(lambda seen: seen.regret, scaled=False),
    "pair_regret": _pairs(lambda seen: seen.excess),
    "pair_clipped": _pairs(lambda seen: seen.clipped),
    "pair_share": _pairs(lambda seen: seen.share),
    "vector": _vector,
    "repetition": _either_side(lambda seen: seen.distinct),
    NOVEL: _above(lambda seen: seen.novel),
    SURPRISE: _above(lambda seen: seen.surprise),
}
