"""Study `witnesses`: every domain left out in turn, and which witness tells its text.

Not in the paper.  Experts are independent, so leaving a domain out needs no training: its expert's
rows are dropped, and every witness is fitted anew on the others' own validation windows.
"""

import collections
import dataclasses
import types
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool

from cr_jax.errors import UserError
from cr_jax.studies.unknown import witnesses
from cr_jax.studies.unknown.detection import auroc, fpr_at_95, limit
from cr_jax.studies.unknown.token_statistics import TokenStatistics, join

FIGURES = ("auroc", "fpr95", "reject_at_1pct")
ALARM = "false_alarm_at_1pct"
HELD_OUT, UNSEEN, ATTACK = "held_out", "unseen", "attack"


@dataclasses.dataclass(frozen=True)
class Rule:
    """How windows find their winner, and how thresholds are set.

    typicality_weight: as `config.Scoring`'s; the limit is each expert's 95th percentile on its own
    validation windows.  Thresholds let in all but `false_alarm` of validation windows, each scored
    by witnesses fitted on the other `folds` - 1 parts.
    """

    typicality_weight: float = 0.0
    false_alarm: float = 0.01
    folds: int = 5


USUAL = Rule()


def run(
    names: Sequence[str],
    valid: Mapping[str, TokenStatistics],
    test: Mapping[str, TokenStatistics],
    rule: Rule = USUAL,
    copied: Mapping[str, Bool[np.ndarray, " N"]] = types.MappingProxyType({}),
) -> dict:
    """-> {"witnesses": {name: {"auroc", "fpr95", "reject_at_1pct", "false_alarm_at_1pct",
    "attack_accept", "attack_accept_strange", "valid_auroc", "per_domain"}}, "default",
    "target_false_alarm"}.

    names: experts in the order of the rows, each named after its domain.  Entries of `test` that
    are no expert's are unseen text, attacks where the name begins with "attack/"; they stand in
    `per_domain` alone, and attack_accept is the mean share of attacks let in.  copied: which of
    their windows stand in an expert's training text, "copied" is their share; without these
    "reject_strange_at_1pct" and attack_accept_strange, None where none is left.  The other figures
    are means over domains left out.  default: the witness with the best valid_auroc, of left-out
    domains' validation windows.  `UserError`: fewer than three experts, windows of a domain that
    are missing or too few, or too few validation windows for such a threshold.
    """
    _check(names, valid, test, rule)
    found: dict = collections.defaultdict(lambda: {"per_domain": {}})
    alarms, on_valid = collections.defaultdict(list), collections.defaultdict(list)
    for left_out, domain in enumerate(names):
        known = _Known(names, valid, test, rule, left_out)
        for w, cell in known.figures(test[domain]).items():
            found[w]["per_domain"][domain] = {"kind": HELD_OUT, **cell}
            alarms[w].append(float(np.mean(known.test[w] > known.limits[w])))
        for w, x in known.score(valid[domain]).items():
            on_valid[w].append(auroc(known.valid[w], x))
    foreign = [n for n in test if n not in names]
    if foreign:
        whole = _Known(names, valid, test, rule)
        for name in foreign:
            kind = ATTACK if name.startswith(f"{ATTACK}/") else UNSEEN
            own = copied.get(name, np.zeros(len(test[name]), bool))
            for w, cell in whole.figures(test[name], own).items():
                found[w]["per_domain"][name] = {"kind": kind, **cell}
    for w, entry in found.items():
        attacks = [c for c in entry["per_domain"].values() if c["kind"] == ATTACK]
        held_out = [c for c in entry["per_domain"].values() if c["kind"] == HELD_OUT]
        entry |= {k: float(np.mean([c[k] for c in held_out])) for k in FIGURES}
        entry[ALARM] = float(np.mean(alarms[w]))
        entry["attack_accept"] = _let_in(attacks, "reject_at_1pct")
        entry["attack_accept_strange"] = _let_in(attacks, "reject_strange_at_1pct")
        entry["valid_auroc"] = float(np.mean(on_valid[w]))
    return {
        "witnesses": dict(found),
        "default": max(found, key=lambda w: found[w]["valid_auroc"]),
        "target_false_alarm": rule.false_alarm,
    }


def merge(reports: Sequence[dict]) -> dict:
    """Results of `run`, with "by_length" or without, of several banks of the same domains as one:
    means over banks, their number as "seeds" and the default chosen again; "attacks": the share of
    each kind that the default lets in.  `UserError` when they have other domains or witnesses."""

    def mean(parts):
        if isinstance(parts[0], Mapping):
            if any(p.keys() != parts[0].keys() for p in parts):
                raise UserError(
                    "the runs have other domains, lengths or witnesses: give runs of the same "
                    "settings that differ by their seed"
                )
            return {k: mean([p[k] for p in parts]) for k in parts[0]}
        if isinstance(parts[0], str):
            return parts[0]
        numbers = [p for p in parts if p is not None]
        return float(np.mean(numbers)) if numbers else None

    found = mean([r["witnesses"] for r in reports])
    for entry in found.values():
        entry["seeds"] = len(reports)
    default = max(found, key=lambda w: found[w]["valid_auroc"])
    cells = found[default]["per_domain"].items()
    return {
        "witnesses": found,
        "default": default,
        "attacks": {
            n.removeprefix(f"{ATTACK}/"): 1 - c["reject_at_1pct"]
            for n, c in cells
            if c["kind"] == ATTACK
        },
        "target_false_alarm": reports[0]["target_false_alarm"],
    }


class _Known:
    """The witnesses of one set of known domains, and their scores on the knowns' windows."""

    def __init__(self, names, valid, test, rule: Rule, left_out: int | None = None):
        self.rows = [e for e in range(len(names)) if e != left_out]
        self.left_out, self.weight = left_out, rule.typicality_weight
        own = [valid[names[e]] for e in self.rows]
        parts = [[np.arange(k, len(s), rule.folds) for k in range(rule.folds)] for s in own]
        scored = []
        for k in range(rule.folds):
            rest = [s.take(np.concatenate([*p[:k], *p[k + 1 :]])) for s, p in zip(own, parts)]
            left = join([s.take(p[k]) for s, p in zip(own, parts)])
            scored.append(self._fitted(rest)(left))
        self.valid = {w: np.concatenate([s[w] for s in scored]) for w in scored[0]}
        self.limits = {w: limit(x, rule.false_alarm) for w, x in self.valid.items()}
        self.score = self._fitted(own)
        self.test = self.score(join([test[names[e]] for e in self.rows]))

    def _fitted(self, own: Sequence[TokenStatistics]):
        home = np.repeat(np.arange(len(own)), [len(s) for s in own])
        high = np.array(
            [np.quantile(s.residual[e], 0.95) for e, s in zip(self.rows, own, strict=True)]
        )[:, None]
        score = witnesses.fit(witnesses.view(join(own), self.rows, home, self.left_out))

        def of(statistics):
            residual = statistics.residual[self.rows]
            ranking = residual + self.weight * np.maximum(0, residual - high)
            return score(witnesses.view(statistics, self.rows, ranking.argmin(0), self.left_out))

        return of

    def figures(
        self, unknown: TokenStatistics, copied: Bool[np.ndarray, " N"] | None = None
    ) -> dict[str, dict[str, float | None]]:
        found = {}
        for w, strange in self.score(unknown).items():
            refused = strange > self.limits[w]
            found[w] = {
                "auroc": auroc(self.test[w], strange),
                "fpr95": fpr_at_95(self.test[w], strange),
                "reject_at_1pct": float(np.mean(refused)),
            }
            if copied is not None:
                rest = refused[~copied]
                found[w] |= {
                    "copied": float(np.mean(copied)),
                    "reject_strange_at_1pct": float(np.mean(rest)) if rest.size else None,
                }
        return found


def _let_in(cells: Sequence[dict], key: str) -> float | None:
    """Mean share that is not refused, over the kinds that have such windows."""
    refused = [cell[key] for cell in cells if cell[key] is not None]
    return 1 - float(np.mean(refused)) if refused else None


def _check(names, valid, test, rule: Rule) -> None:
    if len(names) < 3:
        raise UserError(
            "the study of witnesses leaves one of at least three domains out; "
            f"there are {len(names)}"
        )
    for split, given in (("validation", valid), ("test", test)):
        missing = [n for n in names if n not in given]
        if missing:
            raise UserError(f"{split} windows of {', '.join(missing)} are missing")
    short = [n for n in names if len(valid[n]) < max(2, rule.folds)]
    if short or rule.folds < 2:
        raise UserError(
            f"at least {max(2, rule.folds)} validation windows of every domain are needed "
            f"(folds={rule.folds}): {', '.join(short)}"
        )
