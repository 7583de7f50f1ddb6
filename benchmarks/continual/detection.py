"""How soon a growing bank hears of a new domain, and how often without one -> "detection".

    python -m benchmarks.continual.detection --config configs/pretrained.py \\
        --config.data.root=DATA --unseen code_c wiki ... --out results/continual.json

Documents of the bank's own domains and of others are routed exactly, once; then they arrive in many
orders at the sequential test of `cr-jax bank grow` (`cr_jax.continual.evidence`).  *documents*: new
ones until the alarm, where every second document that arrives is new and those before it were
known; *run_length*: documents between false alarms while only known ones arrive, each drawn anew,
at most `--most` of them.  Only the key "detection" of --out is written.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.bank.documents import add_arguments, documents_of, experiment, judgements
from benchmarks.results import answered, commit, write, written
from cr_jax.bank import ExpertBank
from cr_jax.continual.evidence import RUN_LENGTH, SequentialTest, calibrated
from cr_jax.data import Windows
from cr_jax.errors import UserError
from cr_jax.routing.options import RouteOptions

KNOWN_FIRST = 40  # known documents before a new domain arrives


class Judged(NamedTuple):
    """A document's nearest expert and p-value."""

    expert: str
    p: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes --out; the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(p)
    p.add_argument("--run-length", type=float, default=RUN_LENGTH)
    p.add_argument("--orders", type=int, default=50)
    p.add_argument("--most", type=int, default=20_000)
    p.add_argument("--out", required=True)
    a, a_overrides = p.parse_known_args(arguments)
    a.overrides = a_overrides
    return answered("benchmarks.continual.detection", run, a, arguments)


def run(a: argparse.Namespace, command: str) -> None:
    """Measures and writes."""
    e = experiment(a)
    bank = ExpertBank.load(a.bank, lms=False)
    domains = (*e.data.domains, *e.data.unseen)
    check(a, bank.names, domains)
    old = written(a.out)
    judged = {}
    for name in domains:
        judged[name] = judge(bank, documents_of(e, bank, name, a))
        print(f"{name:16s} {len(judged[name])} documents", flush=True)
    known = [one for name in bank.names for one in judged[name]]
    new = {name: of for name, of in judged.items() if name not in bank.names}
    behind = {expert.name: calibrated(expert) for expert in bank.experts}
    found = measured(known, new, behind, a)
    about = {"commit": commit(), "command": command.replace(str(e.data.root), "DATA")}
    write(
        a.out,
        json.dumps({**old, "detection": found | about}, separators=(",", ":"), allow_nan=False)
        + "\n",
    )
    print(json.dumps(found, indent=1))


def check(a: argparse.Namespace, experts: Sequence[str], domains: Sequence[str]) -> None:
    """`UserError` for what cannot be measured, before anything is."""
    if missing := [name for name in experts if name not in domains]:
        raise UserError(
            f"the config has no domain {missing[0]!r}, which the bank has an expert of: give the "
            "config that the bank was made by"
        )
    if all(name in experts for name in domains):
        raise UserError("the bank knows every domain: name others with --unseen")
    for flag, value in (("--orders", a.orders), ("--most", a.most)):
        if value < 1:
            raise UserError(f"{flag} must be at least 1, not {value}")
    SequentialTest(a.run_length)


def judge(bank: ExpertBank, documents: Windows) -> list[Judged]:
    """Every document by all experts."""
    found = []
    for (route,) in judgements((bank,), documents, RouteOptions()):
        if not np.isnan(route.p_values[route.nearest]):
            found.append(Judged(route.nearest, route.p_values[route.nearest]))
    return found


def measured(
    known: Sequence[Judged], new: Mapping[str, Sequence[Judged]], behind: Mapping[str, int], a
) -> dict:
    """{"documents": mean over the new domains, "by_domain": {name: {"mean", "most"}}, "run_length",
    "false_alarms", "known_documents", "wanted_run_length"}.  A domain that raises no alarm counts
    with all of its documents.  `UserError` for too few documents."""
    if len(known) <= KNOWN_FIRST:
        raise UserError(
            f"the bank's own domains have {len(known)} documents that an expert could judge; more "
            f"than {KNOWN_FIRST} are needed: raise --documents or --windows"
        )
    for name, documents in new.items():
        if not documents:
            raise UserError(f"no expert could judge a document of {name!r}: raise --windows")
    by_domain = {}
    for name, documents in new.items():
        counts = [
            until_alarm(known, documents, behind, a.run_length, seed) for seed in range(a.orders)
        ]
        by_domain[name] = {"mean": float(np.mean(counts)), "most": int(max(counts))}
    alarms = false_alarms(known, behind, a.run_length, a.most)
    return {
        "documents": float(np.mean([row["mean"] for row in by_domain.values()])),
        "by_domain": by_domain,
        "run_length": a.most / max(alarms, 1),
        "false_alarms": alarms,
        "known_documents": a.most,
        "wanted_run_length": a.run_length,
        "orders": a.orders,
    }


def until_alarm(known, new, behind, run_length: float, seed: int) -> int:
    """New documents until the alarm."""
    draw = np.random.default_rng([7, seed])
    test = SequentialTest(run_length)
    old = [known[i] for i in draw.permutation(len(known))]
    for one in old[:KNOWN_FIRST]:
        test.add(one.expert, one.p, behind[one.expert], draw.random())
    rest = old[KNOWN_FIRST:]
    for count, i in enumerate(draw.permutation(len(new)), 1):
        if test.add(new[i].expert, new[i].p, behind[new[i].expert], draw.random()):
            return count
        before = rest[count % len(rest)]
        test.add(before.expert, before.p, behind[before.expert], draw.random())
    return len(new)


def false_alarms(known, behind, run_length: float, most: int) -> int:
    """Alarms among so many known documents, each drawn anew."""
    draw, test, alarms = np.random.default_rng(11), SequentialTest(run_length), 0
    for i in draw.integers(len(known), size=most):
        one = known[i]
        alarms += test.add(one.expert, one.p, behind[one.expert], draw.random())
    return alarms


if __name__ == "__main__":
    sys.exit(main())
