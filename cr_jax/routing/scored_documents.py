"""Validation documents of every expert, scored by all of them: what fits of a whole bank read.

Not in the paper.  Letters: D documents, E experts, B windows.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from cr_jax.bank import ExpertBank
from cr_jax.config import DOCUMENT_WINDOWS
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.routing.chosen import Scorer, joined, per_document
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.ready import experts_of
from cr_jax.scoring.batching import BatchSizes, check_bank
from cr_jax.scoring.calibration import FEWEST
from cr_jax.scoring.own_documents import OwnDocuments, margins_of
from cr_jax.scoring.residuals import WindowSums

LENGTHS = (1, *DOCUMENT_WINDOWS)  # first windows of a document
DOCUMENTS = 100  # of each expert, at most
# Documents times experts, about: every expert scores every document, so that no winner is missed;
# ten small experts take several minutes for a hundred documents of each on a CPU.
WORK = 20_000
DIGITS = 5  # of what is stored, nats/token


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredDocuments:
    """Whole windows of D documents: whose they are, by name, and every expert's sums [E, B]."""

    windows: list[Windows]
    owner: list[str]
    sums: list[WindowSums]

    @property
    def lengths(self) -> Int[np.ndarray, " D"]:
        """Windows of each."""
        return np.array([len(x) for x in self.windows], int)


def score_documents(
    bank: ExpertBank, documents: Mapping[str, Windows], sizes: BatchSizes | None = None
) -> ScoredDocuments:
    """documents: per expert, windows of whole validation documents (`data.document_windows`), which
    no expert was trained on; `documents_each` of each say most.  Those below one window are left
    out.  `UserError` when no document is as long as a window, or the bank is empty.
    """
    check_bank(bank)
    cut = [
        (name, own.take(np.flatnonzero(own.document == d)))
        for name, own in documents.items()
        for d in np.unique(own.document)
    ]
    cut = [(name, x.take(np.flatnonzero(x.mask.all(1)))) for name, x in cut if x.mask[0].all()]
    if not cut:
        raise UserError("validation documents of at least one window are needed")
    windows = [x for _, x in cut]
    ends = np.cumsum([len(x) for x in windows])
    with Scorer(experts_of(bank), RouteOptions(), sizes) as scorer:
        every = np.ones((len(bank.names), ends[-1]), bool)
        sums = scorer.begin(joined(windows), every, surprise=True)()
    return ScoredDocuments(windows, [name for name, _ in cut], per_document(sums, ends))


def own_documents(bank: ExpertBank, scored: ScoredDocuments) -> dict[str, OwnDocuments]:
    """What each expert's own documents cost and surprise it, and how far it leads the others on
    them; without experts that have fewer than `FEWEST` of them, and empty for a bank of one."""
    found = {}
    rivals = ~np.eye(len(bank.names), dtype=bool)
    for e, name in enumerate(bank.names):
        own = [x for x, owner in zip(scored.sums, scored.owner, strict=True) if owner == name]
        others = tuple(n for n in bank.names if n != name)
        measured = {
            k: _witnesses([x for x in own if x.residual.shape[1] >= k], k, e, rivals)
            / [[bank.model.window]]
            for k in LENGTHS
        }
        kept = {k: np.round(x, DIGITS) for k, x in measured.items() if x.shape[1] >= FEWEST}
        every = all(np.isfinite(x[2]).all() for x in kept.values())
        fields = [{k: x[i] for k, x in kept.items()} for i in range(3 if every else 2)]
        if kept:
            found[name] = OwnDocuments(others, *fields)
    return found


def _witnesses(sums: list[WindowSums], k: int, e: int, rivals) -> Float[np.ndarray, "3 D"]:
    """Mean nats of the first k windows of documents: residual, margin and surprise of one expert;
    without those that it or all others have no number of."""
    means = [np.asarray(x.residual[:, :k], np.float64).mean(1) for x in sums]
    rows = [
        (m[e], margins_of(m, rivals)[e], np.mean(x.surprise[e, :k], dtype=np.float64))
        for m, x in zip(means, sums, strict=True)
    ]
    found = np.array(rows, np.float64).reshape(-1, 3).T
    return found[:, np.isfinite(found[:2]).all(0)]


def with_own_documents(bank: ExpertBank, measured: Mapping[str, OwnDocuments]) -> ExpertBank:
    """The bank, whose experts' documents are judged by what was measured."""
    experts = tuple(
        dataclasses.replace(e, own_documents=measured.get(e.name, e.own_documents))
        for e in bank.experts
    )
    return bank.changed(experts=experts)


def documents_each(experts: int) -> int:
    """How many documents of each expert to measure with: fewer where there are many experts, and
    twice as many as a usual range needs at least."""
    return max(2 * FEWEST, min(DOCUMENTS, WORK // max(1, experts) ** 2))


def first_documents(windows: Windows, count: int) -> Windows:
    """The windows of at most `count` documents, evenly spread."""
    every = np.unique(windows.document)
    some = every[np.linspace(0, len(every) - 1, min(count, len(every))).astype(int)]
    return windows.take(np.flatnonzero(np.isin(windows.document, some)))
