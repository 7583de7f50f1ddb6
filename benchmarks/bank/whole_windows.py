"""What runs route of whole windows, and nothing else: for runs scored on valid/* and test/* alone.

    python -m benchmarks.bank.whole_windows --run OUT/half_s0 --out results/routing_half.json

Plain residuals, with the typicality penalty and with the offsets that are best on valid
(`cr_jax.studies.weak_experts`).  --members: further runs of the same domains, whose residuals in
nats/token are averaged with the first's: the rules that --rule names, every position that they
score.  --without: experts left out with their windows, before anything is chosen.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.bank.residuals import means, read_run, record_of, rules_of
from benchmarks.results import commit, write
from cr_jax.errors import UserError
from cr_jax.studies import weak_experts

SPLITS = ("valid", "test")


def main(arguments: list[str] | None = None) -> int:
    """Writes --out and prints its short form; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--run", required=True, help="path of NAME.npz without .npz")
    p.add_argument(
        "--members",
        nargs="*",
        default=[],
        help="further runs of the same domains, averaged in over all positions that --rule names",
    )
    p.add_argument("--rule", default="code")
    p.add_argument(
        "--without",
        nargs="*",
        default=[],
        metavar="DOMAIN",
        help="experts and their windows left out",
    )
    p.add_argument("--out", required=True)
    a = p.parse_args(arguments)
    try:
        found = report([a.run, *a.members], a.rule, a.without)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    command = [
        "python",
        "-m",
        "benchmarks.bank.whole_windows",
        *(sys.argv[1:] if arguments is None else arguments),
    ]
    write(
        a.out,
        json.dumps(found | {"commit": commit(), "command": shlex.join(command)}, indent=1) + "\n",
    )
    for way in ("plain", "typicality", "offsets"):
        print(f"{way:10s} valid {found[way]['valid']:.2%}  test {found[way]['test']:.2%}")
    return 0


def report(runs: Sequence[str], rule: str, without: Sequence[str] = ()) -> dict:
    """Accuracies, mean over domains.  `UserError` when a run is missing or damaged, or has other
    domains, or `without` leaves fewer than two of them or names another."""
    records = [record_of(run) for run in runs]
    every, window = records[0]["spec"]["domains"], records[0]["spec"]["model"]["window"]
    if unknown := [n for n in without if n not in every]:
        raise UserError(
            f"--without: {runs[0]} has no domain {unknown[0]}; it has {', '.join(every)}"
        )
    names = [n for n in every if n not in without]
    if len(names) < 2:
        raise UserError("--without leaves fewer than two domains: nothing is left to route")
    if other := [r for r, x in zip(runs, records, strict=True) if x["spec"]["domains"] != every]:
        raise UserError(f"{other[0]} has other domains than {runs[0]}: give runs of the same")
    stored = [(read_run(run, every, without), rules_of(run)) for run in runs]
    of = {s: [means(names, sums, rule, s, window, rules) for sums, rules in stored] for s in SPLITS}
    valid, test = ({n: np.mean([m[n] for m in of[s]], 0) for n in names} for s in SPLITS)
    none = np.zeros(len(names))
    share, given = weak_experts.choose(valid, names)
    by_typicality = weak_experts.typicality(valid, test, names)
    chosen = next(
        r for r in by_typicality["rows"] if r["weight"] == by_typicality["chosen_on_valid"]
    )
    right = lambda offset: {
        s: weak_experts.accuracy(x, names, offset)
        for s, x in zip(SPLITS, (valid, test), strict=True)
    }
    return {
        "experts": names,
        "scored_by": rule,
        "without": list(without),
        "plain": {
            **right(none),
            "per_domain": {n: float(np.mean(test[n].argmin(0) == e)) for e, n in enumerate(names)},
        },
        "typicality": {k: chosen[k] for k in ("weight", "valid", "test", "per_domain")},
        "offsets": {
            "share": share,
            **right(given),
            "nats_per_token": dict(zip(names, map(float, given), strict=True)),
        },
        "runs": [
            {
                "run": Path(run).name,
                "commit": x.get("commit"),
                "device": x["device"],
                "train": x["spec"]["train"],
                "seconds": x["seconds"],
                "tra_in_training": float(np.mean(x["log"][-1]["tra"])),
            }
            for run, x in zip(runs, records, strict=True)
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
