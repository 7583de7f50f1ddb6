"""Study `ood`: is text of a domain that no expert knows told from text that one of them knows?

Not in the paper beyond its rule that text which all compressors rebuild poorly is unknown.  Experts
are independent, so leaving a domain out needs no training: its expert's row is dropped.

    windows -> sums -> signals -> run
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Real

from cr_jax.data.tokenizers.token_table import Tokenizer
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.studies.capacity.text_statistics import complexity, repetition
from cr_jax.studies.sums import Sums
from cr_jax.studies.unknown.attacks import attacks as make_attacks
from cr_jax.studies.unknown.detection import auroc, fpr_at_95, limit
from cr_jax.studies.unknown.scores import Signals, available, join

ATTACK = "attack/"
_MEANS = ("auroc", "fpr95", "aupr", "reject_at_1pct")


def windows(
    tokenizer: Tokenizer,
    domains: Mapping[str, Windows],
    unseen: Mapping[str, Windows],
    count: int,
    seed: int,
) -> dict[str, Windows]:
    """Test windows of known domains and of unseen ones, and `count` of each attack ("attack/...").

    The known texts that attacks are made from are the known domains' own test windows.
    """
    first = next(iter(domains.values()))
    texts = {
        n: [tokenizer.decode(t[m]) for t, m in zip(w.tokens[:64], w.mask[:64], strict=True)]
        for n, w in domains.items()
    }
    made = make_attacks(tokenizer, first.tokens.shape[1], count, seed, texts)
    return {**domains, **unseen, **{ATTACK + kind: w for kind, w in made.items()}}


def signals(
    sums: Mapping[str, Sums],
    inputs: Mapping[str, Windows],
    tokenizer: Tokenizer | None = None,
    compressor: str = "zlib",
) -> dict[str, Signals]:
    """Residuals [E, N], how the texts repeat and, with a tokenizer, their complexities [N]."""
    return {
        n: Signals(
            s.residual,
            None if tokenizer is None else complexity(tokenizer, inputs[n], compressor),
            repetition=repetition(inputs[n]),
        )
        for n, s in sums.items()
    }


def aupr(known: Real[np.ndarray, " N"], unknown: Real[np.ndarray, " U"]) -> float:
    """Average precision with unknown as the positive class, both classes given equal mass.

    1: told apart perfectly; 0.5: all alike, whatever the numbers of windows.  Ties count as one
    threshold.
    """
    values = np.concatenate([known, unknown])
    is_unknown = np.arange(len(values)) >= len(known)
    order = np.argsort(-values, kind="stable")
    last = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
    # counts, so that the ends of the scale are exact
    caught = np.cumsum(is_unknown[order])[last]
    alarms = last + 1 - caught
    precision = caught * len(known) / (caught * len(known) + alarms * len(unknown))
    return float(np.sum(np.diff(caught, prepend=0) * precision) / len(unknown))


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How unknown text is told in `run`.

    generalist: an expert used only as a reference: its domain is neither known nor unknown.
    left_out: the domains left out in turn; None is all.  A domain that the generalist or the
    experts' common seed was trained on is no unknown text and should not be among them.
    rule: the one whose figures stand at the top; None takes the best mean AUROC on `valid` (each
    domain left out, and the further entries).  Thresholds let in all but `false_alarm` of
    validation windows, each scored by rules fitted on other parts (`folds` consecutive parts) of
    the validation windows.
    """

    generalist: str | None = None
    left_out: tuple[str, ...] | None = None
    rule: str | None = None
    false_alarm: float = 0.01
    folds: int = 5


USUAL = Protocol()


def run(
    names: Sequence[str],
    valid: Mapping[str, Signals],
    test: Mapping[str, Signals],
    protocol: Protocol = USUAL,
) -> dict:
    """-> detection of each domain left out, of unseen domains and of attacks, by several rules.

    names: experts in the order of the rows, each named after its domain.  `valid` and `test` hold
    windows of every domain.  Further entries of `test` are unseen, attacks where the name begins
    with "attack/"; further entries of `valid` are unknown texts that only help to choose the rule.

    Returns {"auroc", "fpr95", "aupr", "reject_at_1pct", "attack_accept", "false_alarm" (what the
    thresholds gave on test windows), "rule", "per_domain", "scores": {rule: the same}}: means over
    left-out and unseen domains; reject_at_1pct is the share rejected at the target `false_alarm`,
    attack_accept the mean share of attacks let in.
    `UserError` when a domain has no windows or too few for such a threshold.
    """
    generalist, left_out, rule = protocol.generalist, protocol.left_out, protocol.rule
    domains = [n for n in names if n != generalist]
    _check(names, domains, valid, test, protocol)
    if left_out is not None and (not left_out or set(left_out) - set(domains)):
        raise UserError(f"left_out must name some of {', '.join(domains)}")
    foreign = [n for n in test if n not in names]
    tuning = [n for n in valid if n not in names]
    whole = _Known(names, domains, valid, test, protocol)
    if rule is not None and rule not in whole.scorers:
        raise UserError(f"rule {rule!r} is unknown; use {', '.join(whole.scorers)}")
    per_rule = {r: {"per_domain": {}, "valid": []} for r in whole.scorers}

    def enter(known, name, kind):
        for r, found in known.figures(test[name]).items():
            per_rule[r]["per_domain"][name] = {"kind": kind, **found}

    for domain in domains if left_out is None else left_out:
        known = _Known(names, [d for d in domains if d != domain], valid, test, protocol)
        enter(known, domain, "held_out")
        for r, found in known.on_valid(valid[domain]).items():
            per_rule[r]["valid"].append(found)
    for name in foreign:
        enter(whole, name, "attack" if name.startswith(ATTACK) else "unseen")
    for name in tuning:
        for r, found in whole.on_valid(valid[name]).items():
            per_rule[r]["valid"].append(found)
    alarms = whole.false_alarms()
    scores = {
        r: _summary(x["per_domain"], alarms[r], float(np.mean(x["valid"])))
        for r, x in per_rule.items()
    }
    return {
        **_top(scores, rule),
        "target_false_alarm": protocol.false_alarm,
        "domains": domains,
        "generalist": generalist,
        "scores": scores,
    }


def merge(reports: Sequence[dict], rule: str | None = None) -> dict:
    """Results of `run` on several banks of the same domains as one: a domain's figures are means
    over the banks that left it out, and the rule is chosen again."""
    scores = {}
    for r in reports[0]["scores"]:
        if not all(r in f["scores"] for f in reports):  # it needs a reference that one bank lacks
            continue
        parts = [f["scores"][r] for f in reports]
        cells = {}
        for name in dict.fromkeys(n for p in parts for n in p["per_domain"]):
            these = [p["per_domain"][name] for p in parts if name in p["per_domain"]]
            cells[name] = {
                "kind": these[0]["kind"],
                **{k: float(np.mean([c[k] for c in these])) for k in _MEANS},
            }
        mean = lambda k, parts=parts: float(np.mean([p[k] for p in parts]))
        scores[r] = _summary(cells, mean("false_alarm"), mean("valid_auroc"))
    keep = ("target_false_alarm", "domains", "generalist")
    return {**_top(scores, rule), **{k: reports[0][k] for k in keep}, "scores": scores}


def _top(scores: dict, rule: str | None) -> dict:
    chosen = rule or max(scores, key=lambda r: scores[r]["valid_auroc"])
    return {
        **scores[chosen],
        "rule": chosen,
        "rule_chosen_on": "valid" if rule is None else "given",
    }


class _Known:
    """The rules fitted for one set of known domains, with their thresholds."""

    def __init__(self, names, domains, valid, test, protocol: Protocol):
        rows, generalist = [list(names).index(d) for d in domains], protocol.generalist
        reference = None if generalist is None else list(names).index(generalist)
        self._active = lambda s: Signals(
            s.residual[rows],
            s.complexity,
            None if reference is None else s.residual[reference],
            s.repetition,
        )
        own = [self._active(valid[d]) for d in domains]
        rules = available(own[0])
        self.scorers = {r: fit(own) for r, fit in rules.items()}
        self._valid = {r: [] for r in rules}
        for k in range(protocol.folds):
            parts = [np.array_split(np.arange(len(s)), protocol.folds) for s in own]
            rest = [s.take(np.concatenate([*p[:k], *p[k + 1 :]])) for s, p in zip(own, parts)]
            left = join([s.take(p[k]) for s, p in zip(own, parts)])
            for r, fit in rules.items():
                self._valid[r].append(fit(rest)(left))
        self._valid = {r: np.concatenate(x) for r, x in self._valid.items()}
        self.limits = {r: limit(x, protocol.false_alarm) for r, x in self._valid.items()}
        tested = join([self._active(test[d]) for d in domains])
        self._test = {r: score(tested) for r, score in self.scorers.items()}

    def figures(self, unknown: Signals) -> dict[str, dict[str, float]]:
        of_rule = {}
        for r, score in self.scorers.items():
            strange, known = score(self._active(unknown)), self._test[r]
            of_rule[r] = {
                "auroc": auroc(known, strange),
                "fpr95": fpr_at_95(known, strange),
                "aupr": aupr(known, strange),
                "reject_at_1pct": float(np.mean(strange > self.limits[r])),
            }
        return of_rule

    def on_valid(self, unknown: Signals) -> dict[str, float]:
        return {
            r: auroc(self._valid[r], score(self._active(unknown)))
            for r, score in self.scorers.items()
        }

    def false_alarms(self) -> dict[str, float]:
        return {r: float(np.mean(x > self.limits[r])) for r, x in self._test.items()}


def _summary(per_domain: dict, false_alarm: float, valid_auroc: float) -> dict:
    cells = per_domain.values()
    unknown = [c for c in cells if c["kind"] != "attack"]
    out = {k: float(np.mean([c[k] for c in unknown])) for k in _MEANS}
    out |= {"auroc_worst": float(min(c["auroc"] for c in unknown))}
    for kind in ("held_out", "unseen"):
        some = [c for c in unknown if c["kind"] == kind]
        if some:
            out |= {f"{k}_{kind}": float(np.mean([c[k] for c in some])) for k in _MEANS}
    accepted = [1 - c["reject_at_1pct"] for c in cells if c["kind"] == "attack"]
    out["attack_accept"] = float(np.mean(accepted)) if accepted else None
    out["attack_accept_worst"] = float(max(accepted)) if accepted else None
    return {**out, "false_alarm": false_alarm, "valid_auroc": valid_auroc, "per_domain": per_domain}


def _check(names, domains, valid, test, protocol: Protocol) -> None:
    generalist, folds = protocol.generalist, protocol.folds
    if generalist is not None and generalist not in names:
        raise UserError(f"generalist {generalist!r} is no expert; use one of {', '.join(names)}")
    if len(domains) < 3:
        raise UserError("leaving a domain out needs at least three known domains")
    for split, given in (("validation", valid), ("test", test)):
        missing = [d for d in domains if d not in given]
        if missing:
            raise UserError(f"{split} windows of {', '.join(missing)} are missing")
        for name, s in given.items():
            if len(s.residual) != len(names) or not len(s) or not np.isfinite(s.residual).all():
                raise UserError(
                    f"{name} ({split}): finite residuals of all {len(names)} experts "
                    "on at least one window are needed"
                )
    short = [d for d in domains if len(valid[d]) < max(2, folds)]
    if short or folds < 2:
        raise UserError(
            f"at least {max(2, folds)} validation windows of every domain are needed "
            f"(folds={folds}): {', '.join(short)}"
        )
