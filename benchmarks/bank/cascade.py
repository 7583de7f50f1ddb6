"""How many experts scouts leave to score in full: a fixed number, and as many as are in doubt.

    python -m benchmarks.bank.cascade --run OUT/experts64 --rule code --scouts OUT/scouts64 \\
        --scout-rule code8 --out cascade.json

Reads two runs of `benchmarks.bank.run` of the same domains, of which it needs the sets valid/* and
test/* alone.  Everything is chosen on valid.  Figures are means over windows, then over domains.
`keep`: agreement with exact routing, and accuracy, for every fixed number; `adaptive`: the least
number and the margin of `cr_jax.shortlist`; `experts`: accuracy without scouts.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from benchmarks.bank.residuals import means, read_run, record_of, rules_of
from benchmarks.results import commit, write
from cr_jax import shortlist
from cr_jax.cascade import AT_LEAST, KEEP
from cr_jax.errors import UserError
from cr_jax.studies import weak_experts

SPLITS = ("valid", "test")


def main(arguments: list[str] | None = None) -> int:
    """Writes --out and prints its short form; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--run", required=True, help="path of the experts' NAME.npz without .npz")
    p.add_argument("--rule", required=True, help="rules to add up, such as code or seen+h50")
    p.add_argument("--scouts", required=True, help="run of small experts of the same domains")
    p.add_argument("--scout-rule", default="code8")
    p.add_argument("--excess", type=float, default=0.0, metavar="W",
                   help="experts are compared as with config.scoring.excess=W, calibrated on valid")
    p.add_argument("--handicaps", action="store_true",
                   help="experts, and of a fixed number their scouts, have handicaps chosen on "
                   "valid (`studies.weak_experts`)")
    p.add_argument("--keep", type=int, default=KEEP, help="least number of the adaptive rule "
                   f"(default {KEEP})")
    p.add_argument("--at-least", type=float, default=AT_LEAST, help="agreement on valid (default "
                   f"{AT_LEAST})")
    p.add_argument("--out", required=True)
    a = p.parse_args(arguments)
    try:
        found = _found(a)
        found |= {"command": shlex.join(["python", "-m", "benchmarks.bank.cascade", *(
            sys.argv[1:] if arguments is None else arguments)])}
        write(a.out, json.dumps(found, indent=1) + "\n")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"experts: accuracy {found['experts']['accuracy']['test']:.2%} on test")
    fixed, doubt = found["keep_chosen_on_valid"], found["adaptive"]
    row = found["keep"][str(fixed)]["test"]
    print(f"{fixed} of {len(found['experts']['per_domain'])}: agreement {row['agreement']:.2%}, "
          f"accuracy {row['accuracy']:.2%}")
    print(f"{doubt['keep']} and a margin of {doubt['margin']:.2f}"
          f"{' with offsets' if doubt['offsets'] else ''}: {doubt['test']['kept']:.1f} on average, "
          f"agreement {doubt['test']['agreement']:.2%}, accuracy {doubt['test']['accuracy']:.2%}")
    return 0


def _found(a) -> dict:
    if not 0 <= a.excess < np.inf or not 0 <= a.at_least <= 1 or a.keep < 1:
        raise UserError("--excess must be finite and not negative, --at-least a share, --keep at "
                        "least 1")
    record, small = (record_of(run) for run in (a.run, a.scouts))
    names, window = record["spec"]["domains"], record["spec"]["model"]["window"]
    if small["spec"]["domains"] != names:
        raise UserError(f"{a.scouts} has other domains than {a.run}: give the run of its scouts")
    if small["spec"]["model"]["window"] != window:
        raise UserError(f"{a.scouts} has windows of another size than {a.run}")
    stored, near = (by_split(names, window, read_run(run, names), rule, rules_of(run))
                    for run, rule in ((a.run, a.rule), (a.scouts, a.scout_rule)))
    return {**report(names, *stored, *near, excess=a.excess, help_weak=a.handicaps, least=a.keep,
                     at_least=a.at_least),
            "scored_by": a.rule, "scout_rule": a.scout_rule, "excess": a.excess,
            "handicaps": a.handicaps, "at_least": a.at_least,
            "windows": {s: sum(r.shape[1] for r in x.values())
                        for s, x in zip(SPLITS, stored, strict=True)},
            "run": Path(a.run).name, "scouts": Path(a.scouts).name, "device": record["device"],
            "run_commit": record.get("commit"), "scouts_commit": small.get("commit"),
            "commit": commit()}


def by_split(names, window: int, stored, rule: str, scorings) -> tuple[dict, dict]:
    """`residuals.means` of whole windows of valid and of test."""
    return tuple(means(names, stored, rule, split, window, scorings) for split in SPLITS)


def report(
    names: Sequence[str], valid: Mapping[str, Float[np.ndarray, "E _"]],
    test: Mapping[str, Float[np.ndarray, "E _"]],
    scouts_valid: Mapping[str, Float[np.ndarray, "E _"]],
    scouts_test: Mapping[str, Float[np.ndarray, "E _"]], *, excess: float = 0.0,
    help_weak: bool = False, least: int = KEEP, at_least: float = AT_LEAST,
) -> dict:
    """Agreement with exact routing, and accuracy, by how many experts the scouts leave.

    Residuals in nats/token, by domain.  help_weak: experts and scouts have each their own
    handicaps; the adaptive rule gives scouts its offsets instead.  "experts" is without.
    """
    limit = weak_experts.limits(valid, names)
    exact = [{n: weak_experts.with_excess(x[n], limit, excess) for n in names}
             for x in (valid, test)]
    scouts = scouts_valid, scouts_test
    own, near = exact, scouts
    if help_weak:
        own, near = (_less(x, weak_experts.choose(x[0], names)[1]) for x in (exact, scouts))
    rows: dict[str, dict] = {str(keep): {} for keep in range(1, len(names) + 1)}
    for split, x, small in zip(SPLITS, own, near, strict=True):
        agree = np.mean([shortlist.agreement(small[n], x[n]) for n in names], 0)
        for keep, row in rows.items():
            row[split] = {"agreement": float(agree[int(keep) - 1]),
                          "accuracy": _accuracy(names, small, x, int(keep))}
    experts = {
        "accuracy": {split: weak_experts.accuracy(x, names, np.zeros(len(names)))
                     for split, x in zip(SPLITS, exact, strict=True)},
        "per_domain": {n: float(np.mean(exact[1][n].argmin(0) == e)) for e, n in enumerate(names)}}
    keep = next(int(k) for k, row in rows.items() if row["valid"]["agreement"] >= at_least)
    return {"keep": rows, "keep_chosen_on_valid": keep,
            "adaptive": adaptive(names, own, scouts, least, at_least), "experts": experts}


def adaptive(names: Sequence[str], exact, scouts, least: int, at_least: float) -> dict:
    """`shortlist.choose` on valid, and what its choice does on test.

    exact, scouts: (valid, test), each by domain.  "valid" is judged by offsets fitted on
    other windows.
    """
    found = shortlist.choose(scouts[0], exact[0], names, min(least, len(names)), at_least)
    rule = found.keep, found.margin, found.offsets
    agree, kept = shortlist.measured(scouts[1], exact[1], names, *rule)
    return {"keep": found.keep, "margin": found.margin, "offsets": found.offsets,
            "valid": {"agreement": found.agreement, "kept": found.kept, "windows": found.windows},
            "test": {"agreement": agree, "kept": kept,
                     "accuracy": _accuracy(names, scouts[1], exact[1], *rule)}}


def _accuracy(names, scouts, exact, keep: int, margin: float = 0.0, offsets=None) -> float:
    less = shortlist.column(offsets, names)
    return float(np.mean([np.mean(np.where(
        shortlist.kept(scouts[n] - less, keep, margin), exact[n], np.inf).argmin(0) == e)
        for e, n in enumerate(names)]))


def _less(by_split_, given):
    return [{n: r - given[:, None] for n, r in x.items()} for x in by_split_]


if __name__ == "__main__":
    sys.exit(main())
