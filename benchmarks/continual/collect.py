"""What a growing bank forgets -> results/continual.json: reports, stored runs and costs joined.

    python -m benchmarks.continual.collect --reports runs/s*/report.json \\
        --runs twenty=results/bank/half_s0 sixty_four=results/bank/experts64 \\
        --scale results/continual_scale.json --out results/continual.json

--reports: runs of configs/continual.py with rivals, of one order that differ in their seed; --runs:
residuals of stored runs by name, of which the last has the headline; --scale: what
benchmarks.continual.scale wrote.  What is not given, and keys of --out that are other programs'
("detection", "kills", "remove_bit_identical"), stay as they are.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bank.residuals import means, read_run, record_of, rules_of
from benchmarks.results import answered, commit, write
from cr_jax.errors import UserError
from cr_jax.studies.continual.scores import Scores
from cr_jax.studies.continual.table import study

OTHERS = ("detection", "kills", "remove_bit_identical")
FIGURES = ("acc", "bwt", "fwt", "forgetting")
LEFT_OUT = ("matrix", "orders", "timeline", "windows")  # which a page shows, of each stage
RULE = "code"  # of the stored runs: code length


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes --out and prints its short form; the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--reports", nargs="*", type=Path, default=[], metavar="REPORT")
    p.add_argument("--runs", nargs="*", default=[], metavar="NAME=RUN")
    p.add_argument("--scale", type=Path)
    p.add_argument("--out", required=True)
    return answered("benchmarks.continual.collect", run, p.parse_args(arguments), arguments)


def run(a: argparse.Namespace, command: str) -> None:
    found = _old(Path(a.out))
    if a.reports:
        found |= methods([_read(path) for path in a.reports], a.reports)
    for named in a.runs:
        name, mark, path = named.partition("=")
        if not (name.isidentifier() and mark and path):
            raise UserError(f"--runs: {named} is not NAME=RUN, such as twenty=results/bank/half_s0")
        made = study(stored(path))
        kept = {k: v for k, v in made.items() if k not in LEFT_OUT}
        found.setdefault("stored", {})[name] = {**kept, "run": path}
        found["orders"], found["growth"] = made["orders"], made["growth"][made["chosen"]]
    if a.scale:
        costs = _read(a.scale)
        found["scale"] = {str(costs.pop("experts")): costs}
    found |= {"commit": commit(), "command": command}
    write(a.out, json.dumps(found, separators=(",", ":"), allow_nan=False) + "\n")
    for name, of in found.get("methods", {}).items():
        print(f"{name:28s} {_line(of)}")
    for name, of in found.get("stored", {}).items():
        for rule in dict.fromkeys(("plain", of["chosen"])):
            print(f"{name:12s} {rule:20s} {_line(of['rules'][rule])}")


def methods(reports: Sequence[Mapping[str, Any]], paths: Sequence[Path]) -> dict[str, Any]:
    """{"methods": {name: figures, and "run"}, "runs": {name of a run: `joined`, with where it is
    from}}; a method of several runs is that of the one with the most domains."""
    groups: dict[str, list[int]] = {}
    for i, report in enumerate(reports):
        groups.setdefault(str(report.get("name")), []).append(i)
    runs = {}
    for name, places in groups.items():
        first = reports[places[0]].get("provenance", {})
        runs[name] = {
            **joined([_study(reports[i], paths[i]) for i in places]),
            **{k: first[k] for k in ("commit", "command", "devices") if k in first},
        }
    found: dict[str, Any] = {}
    for name, of in sorted(runs.items(), key=lambda run: run[1]["domains"]):
        found |= {n: {**row, "run": name} for n, row in of["methods"].items()}
    return {"methods": found, "runs": runs}


def joined(studies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{"methods": {name: means over runs}, "domains": their number, and what the first of them says
    of itself}.

    A method's "acc", "bwt", "fwt" are of TRA before routing, which of frozen experts nothing
    changes; "bwt_after_routing" of the TRA of whoever reads a window; "routing" the same of routing
    accuracy; "spread": the least and largest "bwt_after_routing".  `UserError` where the runs have
    other methods, or another order.
    """
    first = studies[0]
    if any(s["methods"].keys() != first["methods"].keys() for s in studies):
        raise UserError("the reports have other rivals: join runs that differ in their seed alone")
    if any(s["methods_order"] != first["methods_order"] for s in studies):
        raise UserError("the reports have other orders: join runs that differ in their seed alone")
    found = {}
    for name in first["methods"]:
        each = [method(s["methods"][name]) for s in studies]
        after = [e["bwt_after_routing"] for e in each]
        found[name] = {
            **_means(each),
            "seeds": len(each),
            "spread": None if None in after else [min(after), max(after)],
        }
    kept = ("chosen", "before_routing", "methods_order", "rules")
    rules = {n: first["rules"][n] for n in ("plain", first["chosen"]) if n in first["rules"]}
    domains = len(first["orders"][first["methods_order"]])
    return {"methods": found, "domains": domains, **{k: first[k] for k in kept}, "rules": rules}


def method(of: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of one rival of one run under the names of the results."""
    kept = {k: of.get(k) for k in ("stored_bytes", "parameters")}
    if "flip_rate" not in of:  # one compressor for all text: nothing is routed
        figures = {k: of.get(k) for k in FIGURES}
        code = of.get("code_length", {})
        return {
            **figures,
            "bwt_after_routing": of.get("bwt"),
            "flip_rate": None,
            "nats_per_token": code.get("acc"),
            **kept,
        }
    rebuilt = of["tra"]
    return {
        **{k: rebuilt[k] for k in FIGURES},
        "bwt": 0.0,  # the experts are frozen (tested)
        "bwt_after_routing": rebuilt["bwt"],
        "flip_rate": of["flip_rate"],
        "lost_rate": of["lost_rate"],
        "routing": {k: of[k] for k in ("acc", "bwt", "forgetting")},
        **kept,
    }


def stored(path: str) -> Scores:
    """The residuals of a stored run.  `UserError` as `benchmarks.bank.residuals`."""
    spec = record_of(path)["spec"]
    names, window = tuple(spec["domains"]), spec["model"]["window"]
    sums = read_run(path, names)
    splits = (means(names, sums, RULE, s, window, rules_of(path)) for s in ("valid", "test"))
    return Scores(names, *splits)


def _study(report: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    found = report.get("continual", {})
    if "methods" not in found:
        raise UserError(
            f"{path} has no rivals: run configs/continual.py with config.continual.rivals"
        )
    return found


def _old(path: Path) -> dict[str, Any]:
    """What --out holds already; the keys of other programs are there from the start."""
    return {**dict.fromkeys(OTHERS), **(_read(path) if path.exists() else {})}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no JSON file that can be read: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is no report")
    return found


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        k: _means([r[k] for r in rows])
        if isinstance(v, Mapping)
        else None
        if v is None
        else float(np.mean([r[k] for r in rows]))
        for k, v in rows[0].items()
    }


def _line(of: Mapping[str, Any]) -> str:
    shown = ("acc", "bwt", "bwt_after_routing", "flip_rate")
    return "  ".join(f"{k} {100 * of[k]:.2f} %" for k in shown if of.get(k) is not None)


if __name__ == "__main__":
    sys.exit(main())
