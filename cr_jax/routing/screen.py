"""Where bigram models alone decide a document, and which experts it needs elsewhere.

    bigram residuals [D, E] -> the experts that may win; whether one of them is certain, and known

Of a document's bigram residual two things are certain enough: an expert whose bigram model lies
more than a margin above the lowest does not win, and where one expert is left, and its bigram
residual and the lead of it are usual for its own documents, they know the text.  Margin and usual
range are measured against exact routing on validation documents.  numpy only.  Not in the paper.
Letters: D documents, E experts.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from cr_jax.bank.screen_file import Screen
from cr_jax.errors import UserError
from cr_jax.scoring.calibration import FEWEST

LEAD = 0.1  # share of an expert's documents that lead by too little to be usual without a look
LOW = 0.01  # share of an expert's documents that are too predictable to be usual without a look
HIGH = 0.85  # share of those that are cheap enough to be usual, at most
SLACK = 0.05  # of them, between the dearest usual one and the cheapest that its expert refused
SPARE = 1.25  # times the margin that was needed: a few hundred documents do not show the largest
DOCUMENTS = 4 * FEWEST  # of all experts, at least, for a margin


class Verdicts(NamedTuple):
    """candidates: the experts that may win; certain: whether the one that is left needs no expert
    to be the winner and to know the document."""

    candidates: Bool[np.ndarray, "D E"]
    certain: Bool[np.ndarray, " D"]


class Measured(NamedTuple):
    """Validation documents, cut to as many windows: residuals of the bigram models, nats/token; the
    exact winner, and whether it knows the document."""

    residuals: Float[np.ndarray, "D E"]
    winner: Int[np.ndarray, " D"]
    known: Bool[np.ndarray, " D"]


def decide(
    screen: Screen | None,
    names: Sequence[str],
    residuals: Float[np.ndarray, "D E"],
    windows: Int[np.ndarray, " D"],
    alpha: float,
) -> Verdicts:
    """What the bigram models say of documents.

    residuals: nats/token; windows: whole windows of each.  A document shorter than all that were
    measured, and every one where there is no screen, has all experts for candidates.  What is usual
    for an expert with too few documents of some length is what is usual for shorter ones, which
    scatter more: exact routing too judges such a text by its own documents of the same length.
    """
    candidates = np.ones(residuals.shape, bool)
    certain = np.zeros(len(residuals), bool)
    if screen is None or not len(residuals):
        return Verdicts(candidates, certain)
    nearest = residuals.argmin(1)
    lowest = residuals.min(1)
    leads = _leads(residuals)
    for k, upto in _buckets(screen.margins):
        at = np.flatnonzero((windows >= k) & (windows < upto))
        margin = np.array([_margin_of(screen, name, k) for name in names])
        candidates[at] = residuals[at] <= lowest[at, None] + margin
        usual = np.array([_upto(screen.usual[name], k) for name in names])
        low, high, lead = usual[nearest[at]].T
        alone = candidates[at].sum(1) == 1
        certain[at] = alone & (low <= lowest[at]) & (lowest[at] <= high) & (lead <= leads[at])
    # What is known at one alpha is known at every smaller one.
    return Verdicts(candidates, certain & (alpha <= screen.alpha))


def fit(
    measured: Mapping[int, Measured],
    names: Sequence[str],
    alpha: float,
    typicality_weight: float,
    at_least: float,
) -> Screen:
    """The screen of a bank.  Its margins hold the exact winner of `at_least` of the documents.

    measured: by number of first windows; of fewer than `DOCUMENTS` documents nothing is certain,
    and an expert that won fewer than `FEWEST` of them has the margin and the usual range of fewer
    windows.  `UserError` when there are no more of any length.
    """
    most = max((len(m.winner) for m in measured.values()), default=0)
    measured = {k: m for k, m in measured.items() if len(m.winner) >= DOCUMENTS}
    if not measured:
        raise UserError(
            f"a screen needs {DOCUMENTS} validation documents of a window or more, of all experts "
            f"together; there are {most}"
        )
    margins = {k: _margin(m, at_least) for k, m in measured.items()}
    usual = {
        name: {k: found for k, m in measured.items() if (found := _usual(m, e))}
        for e, name in enumerate(names)
    }
    few = {
        k: tuple(n for n, won in zip(names, wins, strict=True) if won < FEWEST)
        for k, m in measured.items()
        if (wins := np.bincount(m.winner, minlength=len(names))).min() < FEWEST
    }
    made = Screen(margins, usual, alpha, typicality_weight, at_least, 0.0, 0.0, 0, few)
    right, decided, count = 0, 0, 0
    for k, (residuals, winner, known) in measured.items():
        said = decide(made, names, residuals, np.full(len(winner), k), alpha)
        kept = said.candidates[np.arange(len(winner)), winner]
        right += int((kept & (known | ~said.certain)).sum())
        decided += int(said.certain.sum())
        count += len(winner)
    return dataclasses.replace(
        made, agreement=right / count, decided=decided / count, documents=count
    )


def _margin(measured: Measured, at_least: float) -> float:
    residuals, winner, _ = measured
    needed = residuals[np.arange(len(winner)), winner] - residuals.min(1)
    missed = min(int((1 - at_least) * len(winner)), len(winner) - 1)
    return float(SPARE * np.sort(needed)[::-1][missed])


def _margin_of(screen: Screen, name: str, k: int) -> float:
    """Within which an expert may win documents of k windows: where it won too few of them, the
    margin of the most windows of which it won enough, for it shrinks with the length; infinite
    where there are none."""
    enough = [j for j in screen.margins if j <= k and name not in screen.few.get(j, ())]
    return screen.margins[max(enough)] if enough else math.inf


def _leads(residuals: Float[np.ndarray, "D E"]) -> Float[np.ndarray, " D"]:
    """How much more than the lowest the next one needs, nats/token; infinite for one expert."""
    if residuals.shape[1] == 1:
        return np.full(len(residuals), np.inf)
    lowest, second = np.partition(residuals, 1, axis=1)[:, :2].T
    return second - lowest


def _usual(measured: Measured, expert: int) -> tuple[float, float, float] | None:
    """(low, high, lead) of the documents that are nearest to an expert; None: too few to say."""
    residuals, _, known = measured
    own, leads = residuals.argmin(1) == expert, _leads(residuals)
    if own.sum() < FEWEST:
        return None
    lead = float(np.quantile(leads[own], LEAD)) if np.isfinite(leads[own]).all() else 0.0
    own &= leads >= lead
    order = np.argsort(residuals[own, expert])
    sizes, refused = residuals[own, expert][order], np.flatnonzero(~known[own][order])
    first = refused[0] / len(sizes) - SLACK if len(refused) else 1.0
    last = int(min(HIGH, first) * len(sizes)) - 1
    begin = int(LOW * len(sizes))
    return (float(sizes[begin]), float(sizes[last]), lead) if last > begin else None


def _upto(usual: Mapping[int, tuple[float, float, float]], k: int) -> tuple[float, float, float]:
    """The range of the most windows that are no more than k; one that holds nothing: none."""
    return usual[max(at)] if (at := [j for j in usual if j <= k]) else (np.inf, -np.inf, 0.0)


def _buckets(margins: Mapping[int, float]) -> list[tuple[int, float]]:
    """(from so many windows, below so many), ascending."""
    sizes = sorted(margins)
    return list(zip(sizes, [*sizes[1:], np.inf], strict=True))
