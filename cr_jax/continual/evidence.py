"""Has unknown text arrived?  A sequential test over documents with a stated law of false alarms.

    p-value of a document -> its rank among all so far -> bets on small ranks -> sums -> an alarm

A document's score is the p-value that routing gives it under its winner.  Its rank q among the
winner's validation documents and the documents that the expert won before is uniform, and
independent of all earlier ranks, as long as they are exchangeable (Vovk, Nouretdinov and Gammerman
2003).  A bet of strength k pays k q^(k-1) on it, 1 on average.  The sums of Shiryaev and Roberts,

    R(0) = 0,   R(t) = (1 + R(t - 1)) k q(t)^(k - 1),   averaged over the bets k,

exceed the number of documents by nothing on average (R(t) - t is a martingale), so an alarm at
R >= c comes after c documents on average, or later, while nothing new arrives: the mean run length
between false alarms is at least c (Shin, Ramdas and Rinaldo 2022).  Not in the paper.
"""

import bisect
import dataclasses
import math

import numpy as np
from jaxtyping import Float

from cr_jax.bank import Expert
from cr_jax.errors import UserError

BETS = (0.25, 0.5, 0.75)  # strong and weak: nobody knows how strange new text will be
RUN_LENGTH = 1000.0  # documents between false alarms


def rank(p: float, calibrated: int, earlier: list[float], tie: float) -> float:
    """The smoothed conformal rank in (0, 1] of a document: small where it is unlike the others.

    p: its p-value by `calibrated` validation residuals; earlier: p-values of the expert's earlier
    documents, sorted; tie: in [0, 1), drawn anew for each document, places it among its equals.
    """
    below = min(calibrated, max(0, math.floor(p * (calibrated + 1) + 1e-9) - 1))
    first, last = bisect.bisect_left(earlier, p), bisect.bisect_right(earlier, p)
    equals = 1 + last - first
    return (below + first + (1 - tie) * equals) / (calibrated + 1 + len(earlier))


def bets(q: float) -> Float[np.ndarray, " K"]:
    """What each of the `BETS` pays on a rank: 1 on average over uniform ranks."""
    k = np.array(BETS)
    return k * q ** (k - 1)


def calibrated(expert: Expert) -> int:
    """How many validation texts stand behind an expert's p-values: its documents with margins, or
    without, or windows where it has too few of them."""
    if expert.own_documents is not None:
        return max(len(values) for values in expert.own_documents.margins.values())
    given = expert.calibration.documents or expert.calibration.residuals
    return max(len(values) for values in given.values())


@dataclasses.dataclass
class SequentialTest:
    """The running sums, and by expert the p-values of the documents that it won.

    run_length: documents between false alarms, on average, at least.  `UserError` below 1.
    """

    run_length: float = RUN_LENGTH
    earlier: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    sums: Float[np.ndarray, " K"] = dataclasses.field(default_factory=lambda: np.zeros(len(BETS)))
    documents: int = 0  # since the last alarm
    reached: float = 0.0  # evidence with the last document, also where that raised an alarm

    def __post_init__(self):
        if not (math.isfinite(self.run_length) and self.run_length >= 1):
            raise UserError(
                f"the run length must be a number of documents of at least 1, not {self.run_length}"
            )

    @property
    def evidence(self) -> float:
        """The average of the sums; an alarm at `run_length`."""
        return float(np.mean(self.sums))

    def add(self, expert: str, p: float, calibrated: int, tie: float) -> bool:
        """One more document; -> whether it raises an alarm, after which the sums begin anew."""
        earlier = self.earlier.setdefault(expert, [])
        q = rank(p, calibrated, earlier, tie)
        bisect.insort(earlier, p)
        self.sums = (1 + self.sums) * bets(q)
        self.documents += 1
        self.reached = self.evidence
        if self.evidence < self.run_length:
            return False
        self.restart()
        return True

    def restart(self) -> None:
        """Forgets the evidence, not the ranks."""
        self.sums, self.documents = np.zeros(len(BETS)), 0

    def forget(self, expert: str, p: float) -> None:
        """Takes out a document that was not the expert's: its domain has an expert now."""
        earlier = self.earlier.get(expert, [])
        at = bisect.bisect_left(earlier, p)
        if at < len(earlier) and earlier[at] == p:
            del earlier[at]
