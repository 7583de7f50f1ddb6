"""Which expert a window goes to, by what is known at a stage; and rules that flip fewer windows.

    Router.mount(own, old)  as an expert joins      Router.route(residual [k, N]) -> winner [N]

A router sees what a bank sees: when an expert joins, the validation windows of its own domain
scored by all experts that are there.  It never sees an expert that comes later, nor, unless it says
so, text of a domain that came earlier.  What it keeps of old domains is numbers (`stored_bytes`).
Not in the paper, whose rule is `plain`.  Letters: k experts so far, the new one last, N windows.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from cr_jax.scoring.calibration import PERCENTILE
from cr_jax.scoring.offsets import fit_offsets, least_offset

NUMBER = 4  # bytes of a stored one


@runtime_checkable
class Router(Protocol):
    """A bank's rule while it grows."""

    def mount(
        self, own: Float[np.ndarray, "k n"], old: Sequence[Float[np.ndarray, " _"]] = ()
    ) -> None:
        """An expert joins.  own: residuals of all experts on its validation windows; old: its own
        on the validation windows of each domain before, only where the rule keeps text."""

    def route(
        self, residual: Float[np.ndarray, "k N"], before: Int[np.ndarray, " N"] | None = None
    ) -> Int[np.ndarray, " N"]:
        """The winner of each window, by its place in the order of arrival.  before: what it was
        before the last expert joined, which spares asking the others again."""

    def stored_bytes(self) -> int:
        """Of numbers that are kept of all domains so far, beyond the experts themselves."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """family, setting: rules that differ in one number, of which validation windows choose.
    keeps_text: it needs validation windows of old domains."""

    name: str
    make: Callable[[], Router]
    family: str
    setting: float = 0.0
    keeps_text: bool = False


class Claims:
    """Experts are asked in the order of arrival; each claims windows from the winner before it.

    score = residual + weight * max(0, residual - own 95th percentile).  An expert claims a window
    where its score is lower than the winner's by more than its `required` lead, nats/token, and
    where the winner's residual lies above the `quantile` of the winner's own.  Without these it is
    the lowest score.

    lead: share of the lead that an expert requires which its own validation windows give: the lead
    that all but `spent` of them have.  0: none.  by_winner: likewise of each old winner for itself,
    and none of a winner that fewer than `spent` of them come from.
    """

    def __init__(
        self,
        weight: float = 0.0,
        quantile: float | None = None,
        lead: float = 0.0,
        spent: float = 0.01,
        by_winner: bool = False,
    ):
        self.weight, self.quantile = weight, quantile
        self.lead, self.spent, self.by_winner = lead, spent, by_winner
        self.limits: list[float] = []
        self.typical: list[float] = []
        self.required: list[np.ndarray] = []  # of each expert, from each winner before it

    def mount(self, own, old=()):
        self.limits.append(float(np.percentile(own[-1], PERCENTILE)))
        if self.quantile is not None:
            self.typical.append(float(np.quantile(own[-1], self.quantile)))
        self.required.append(self._required(own))

    def route(self, residual, before=None):
        columns = np.arange(residual.shape[1])
        winner = np.zeros(columns.size, np.int64) if before is None else before
        for k in range(1 if before is None else len(residual) - 1, len(residual)):
            held = residual[winner, columns]
            led = self._score(held, winner) - self._score(residual[k], k)
            claimed = led > self.required[k][winner]
            if self.quantile is not None:
                claimed &= held > np.asarray(self.typical)[winner]
            winner = np.where(claimed, k, winner)
        return winner

    def stored_bytes(self):
        numbers = len(self.typical) + (len(self.limits) if self.weight else 0)
        if self.lead:
            numbers += sum(len(x) for x in self.required) if self.by_winner else len(self.required)
        return NUMBER * numbers

    def _score(self, residual, expert):
        """Of residuals [N] by one expert, or each by one of its own."""
        if not self.weight:
            return residual
        return residual + self.weight * np.maximum(0, residual - np.asarray(self.limits)[expert])

    def _required(self, own):
        before = len(own) - 1
        if not before or not self.lead:
            return np.zeros(before)
        winner = self.route(own[:-1])
        held = own[winner, np.arange(winner.size)]
        led = self._score(held, winner) - self._score(own[-1], before)
        lead_of = lambda some: max(0.0, self.lead * float(np.quantile(some, self.spent)))
        if not self.by_winner:
            return np.full(before, lead_of(led))
        found = np.full(before, np.inf)
        for e in range(before):
            from_e = led[winner == e]
            if from_e.size > self.spent * led.size:
                found[e] = lead_of(from_e)
        return found


class Offsets:
    """Each new expert gets the least offset with which it wins `share` of its validation windows;
    the lowest residual minus offset wins.

    With numbers alone the offsets of old experts cannot be fitted again: what the new one makes of
    their text is not known.  text: it is, and all are fitted anew at each mount.
    """

    def __init__(self, share: float, text: bool = False):
        self.share, self.text = share, text
        self.offsets = np.zeros(0)
        self.seen: list[np.ndarray] = []  # of each domain [its experts so far, n]

    def mount(self, own, old=()):
        if self.text:
            grown = [np.concatenate([x, r[None]]) for x, r in zip(self.seen, old, strict=True)]
            self.seen = [*grown, own]
            winner = np.repeat(np.arange(len(own)), [x.shape[1] for x in self.seen])
            self.offsets = fit_offsets(np.concatenate(self.seen, 1), winner, self.share)
            return
        new = own.copy()
        new[:-1] -= self.offsets[:, None]
        self.offsets = np.append(self.offsets, least_offset(new, len(own) - 1, self.share))

    def route(self, residual, before=None):
        return (residual - self.offsets[: len(residual), None]).argmin(0)

    def stored_bytes(self):
        return NUMBER * (self.offsets.size + sum(x.size for x in self.seen))


class LeadOfText:
    """The required lead with which a new expert loses and takes least on validation windows of its
    own and of all old domains: the bound that a rule without text is compared with."""

    def __init__(self):
        self.required: list[float] = []
        self.seen: list[tuple[np.ndarray, np.ndarray]] = []  # (residuals, winner) of each domain

    def mount(self, own, old=()):
        residuals = [
            *(np.concatenate([x, r[None]]) for (x, _), r in zip(self.seen, old, strict=True)),
            own,
        ]
        before = [*(winner for _, winner in self.seen), self.route(own[:-1])]
        self.required.append(0.0)
        if len(own) > 1:
            led = [
                x[winner, np.arange(winner.size)] - x[-1]
                for x, winner in zip(residuals, before, strict=True)
            ]
            tried = np.unique(np.concatenate([[0.0], *(np.maximum(0, x) for x in led)]))
            taken = np.sum([_above(x, tried) for x in led[:-1]], 0)
            self.required[-1] = float(tried[np.argmin(taken - _above(led[-1], tried))])
        winners = [self.route(x, w) for x, w in zip(residuals, before, strict=True)]
        self.seen = list(zip(residuals, winners, strict=True))

    def route(self, residual, before=None):
        columns = np.arange(residual.shape[1])
        winner = np.zeros(columns.size, np.int64) if before is None else before
        for k in range(1 if before is None else len(residual) - 1, len(residual)):
            claimed = residual[winner, columns] - residual[k] > self.required[k]
            winner = np.where(claimed & (winner != k), k, winner)
        return winner

    def stored_bytes(self):
        return NUMBER * (len(self.required) + sum(x.size + w.size for x, w in self.seen))


def _above(values, limits):
    """The share of values above each limit."""
    return 1 - np.searchsorted(np.sort(values), limits, side="right") / len(values)


def _claims(family: str, setting: float, **options) -> Rule:
    return Rule(f"{family}_{setting:g}", lambda: Claims(**options), family, setting)


PLAIN = Rule("plain", Claims, "plain")
RULES: tuple[Rule, ...] = (
    PLAIN,
    *(_claims("typicality", w, weight=w) for w in (0.5, 1.0, 2.0, 4.0, 8.0)),
    *(Rule(f"offsets_{s:g}", lambda s=s: Offsets(s), "offsets", s) for s in (0.5, 0.8, 0.9, 0.95)),
    *(_claims("untypical", q, quantile=q) for q in (0.5, 0.8, 0.9, 0.95, 0.99)),
    *(_claims("lead", x, lead=x) for x in (0.25, 0.5, 0.75, 1.0)),
    *(_claims("lead_by_winner", x, lead=x, by_winner=True) for x in (0.0625, 0.25, 0.5, 1.0)),
    *(_claims("typicality_lead", x, weight=2.0, lead=x) for x in (0.25, 0.5, 0.75, 1.0)),
    *(_claims("wide_lead", x, lead=x, spent=0.05) for x in (0.25, 0.5, 0.75)),
    *(
        _claims("typicality_wide_lead", x, weight=2.0, lead=x, spent=0.05)
        for x in (0.25, 0.5, 0.75)
    ),
    Rule("offsets_text", lambda: Offsets(0.5, True), "offsets_text", 0.5, True),
    Rule("lead_text", LeadOfText, "lead_text", 0.0, True),
)
