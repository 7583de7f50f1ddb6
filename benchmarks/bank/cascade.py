"""How many experts scouts leave to score in full: a fixed number, and as many as are in doubt.

    python -m benchmarks.bank.cascade --run OUT/experts64 --rule code --tokens TOKENS64 \\
        --out cascade.json

Reads the sets valid/* and test/* of a run of `benchmarks.bank.run`, and the folder that the run was
made from: scouts (`scoring.bigram`) are counted on its NAME.train.npy and score the same windows,
those of its sets.npz.  Everything is chosen on valid.  Figures are means over windows, then over
domains.  `keep`: agreement with exact routing, and accuracy, for every fixed number;
`keep_with_offsets`: the same with the offsets of `routing.candidates`, which saw all of valid;
`adaptive`: by the least number, that number and the margin of `routing.candidates`; `scouts`: what
they are, cost, and route alone; `experts`: accuracy without scouts.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, Integer

from benchmarks.bank.inputs import read_sets
from benchmarks.bank.residuals import means, read_run, record_of, rules_of
from benchmarks.results import commit, write
from cr_jax.data import Windows
from cr_jax.errors import UserError
from cr_jax.routing import candidates
from cr_jax.routing.cascade import AT_LEAST, KEEP, scout_residuals
from cr_jax.scoring import offsets as head_starts
from cr_jax.scoring.bigram import COUNTED, PAIRS, Scout, count, table
from cr_jax.studies import weak_experts

SPLITS = ("valid", "test")


def main(arguments: list[str] | None = None) -> int:
    """Writes --out and prints its short form; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--run", required=True, help="path of the experts' NAME.npz without .npz")
    p.add_argument("--rule", required=True, help="rules to add up, such as code or seen+h50")
    p.add_argument("--tokens", required=True, help="folder of NAME.train.npy and sets.npz that "
                   "the run was made from")
    p.add_argument("--pairs", type=int, default=PAIRS, help="of tokens that a scout keeps, at most "
                   f"(default {PAIRS})")
    p.add_argument("--excess", type=float, default=0.0, metavar="W",
                   help="experts are compared as with config.scoring.excess=W, calibrated on valid")
    p.add_argument("--handicaps", action="store_true",
                   help="experts, and in `keep` their scouts, have handicaps chosen on valid "
                   "(`studies.weak_experts`)")
    p.add_argument("--keep", type=int, nargs="+", default=[KEEP], help="least numbers of the "
                   f"adaptive rule, each on its own (default {KEEP})")
    p.add_argument("--at-least", type=float, default=AT_LEAST, help="agreement on valid (default "
                   f"{AT_LEAST})")
    p.add_argument("--batch", type=int, default=64, help="windows that scouts score at a time")
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
    print(said(found))
    return 0


def said(found: Mapping) -> str:
    """A report in lines; figures of test."""
    percent = lambda row: f"agreement {row['agreement']:.2%}, accuracy {row['accuracy']:.2%}"
    fixed, scouts = found["keep_chosen_on_valid"], found["scouts"]
    lines = [f"experts: accuracy {found['experts']['accuracy']['test']:.2%} on test",
             f"scouts alone: accuracy {scouts['accuracy']['test']:.2%}, counted in "
             f"{scouts['seconds_to_count']:.1f} s, {scouts['tokens_per_s']:,.0f} tokens/s by all",
             f"{fixed} of {len(found['experts']['per_domain'])}: "
             + percent(found["keep"][str(fixed)]["test"])]
    lines += [f"{x['keep']} and a margin of {x['margin']:.2f}"
              f"{' with offsets' if x['offsets'] else ''}: {x['test']['kept']:.1f} on average, "
              + percent(x["test"]) for x in found["adaptive"].values()]
    return "\n".join(lines)


def _found(a) -> dict:
    if (not 0 <= a.excess < np.inf or not 0 <= a.at_least <= 1 or min(a.keep) < 1
            or min(a.pairs, a.batch) < 1):
        raise UserError("--excess must be finite and not negative, --at-least a share, --keep, "
                        "--pairs and --batch at least 1")
    record = record_of(a.run)
    names, model = record["spec"]["domains"], record["spec"]["model"]
    window, vocab_size = model["window"], model.get("vocab_size")
    if type(vocab_size) is not int:
        raise UserError(f"{a.run}.json names no model.vocab_size, which its scouts need")
    stored = by_split(names, window, read_run(a.run, names), a.rule, rules_of(a.run))
    windows = windows_of(Path(a.tokens), names, window, stored)
    start = time.perf_counter()
    counted = {n: count(x, np.ones(x.shape, bool), vocab_size, a.pairs)
               for n, x in ((n, training_windows(Path(a.tokens), n, window)) for n in names)}
    took = time.perf_counter() - start
    near, about = scored(counted, windows, a.batch)
    made = report(names, *stored, *near, excess=a.excess, help_weak=a.handicaps, least=a.keep,
                  at_least=a.at_least)
    made["scouts"] |= {"pairs": a.pairs, "seconds_to_count": took, **about}
    return {**made, "scored_by": a.rule, "excess": a.excess, "handicaps": a.handicaps,
            "at_least": a.at_least,
            "windows": {s: sum(r.shape[1] for r in x.values())
                        for s, x in zip(SPLITS, stored, strict=True)},
            "run": Path(a.run).name, "device": record["device"],
            "run_commit": record.get("commit"), "commit": commit()}


def training_windows(folder: Path, name: str, window: int) -> Integer[np.ndarray, "N L"]:
    """A domain's training text, cut into whole windows; `COUNTED` tokens of it at most.

    `UserError` when it cannot be read, is no row of ids, or is shorter than a window.
    """
    path = folder / f"{name}.train.npy"
    try:
        with open(path, "rb") as file:  # numpy leaves one that it cannot read open
            ids = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise UserError(f"--tokens: cannot read {path}; scouts are counted on the text that the "
                        "run's experts were trained on") from None
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or len(ids) < window:
        raise UserError(f"--tokens: {path} is no row of at least {window} ids")
    return ids[:min(len(ids), max(COUNTED, window)) // window * window].reshape(-1, window)


def windows_of(folder: Path, names: Sequence[str], window: int, stored: Sequence[Mapping]
               ) -> tuple[dict[str, Windows], ...]:
    """Of valid and of test: {name: the windows whose residuals the run stored}.

    `UserError` when the folder has others, in number or length.
    """
    sets, found = read_sets(folder / "sets.npz"), []
    for split, residuals in zip(SPLITS, stored, strict=True):
        for name in names:
            has = sets.get(f"{split}/{name}")
            wanted = (residuals[name].shape[1], window)
            if has is None or has.tokens.shape != wanted or not has.mask.all():
                raise UserError(f"--tokens: {folder / 'sets.npz'} does not hold the {wanted[0]} "
                                f"whole windows of {split}/{name} that the run scored: give the "
                                "folder that it was made from")
        found.append({n: sets[f"{split}/{n}"] for n in names})
    return tuple(found)


def scored(
    counted: Mapping[str, Scout], windows: Sequence[Mapping[str, Windows]], batch: int,
) -> tuple[list[dict[str, Float[np.ndarray, "E _"]]], dict]:
    """(scouts' nats/token of valid and of test, by domain; what the scouts are and cost)."""
    parts = [w for split in windows for w in split.values()]
    every = Windows(*(np.concatenate([getattr(w, f) for w in parts])
                      for f in ("tokens", "mask", "document")))
    looked_up = table(counted.values())
    scout_residuals(looked_up, every.take(slice(batch)), batch)  # compiles
    start = time.perf_counter()
    residuals = scout_residuals(looked_up, every, batch)
    took = time.perf_counter() - start
    cut = iter(np.split(residuals, np.cumsum([len(w.tokens) for w in parts])[:-1], axis=1))
    found = [{n: next(cut) for n in split} for split in windows]
    return found, {
        "kept": {n: s.keys.size for n, s in counted.items()},
        "bytes": {n: sum(x.nbytes for x in s) for n, s in counted.items()},
        "table_bytes": sum(x.size * x.dtype.itemsize for x in looked_up),
        "seconds_to_score": took, "tokens_per_s": float(every.mask.sum()) / took,
        "device": jax.devices()[0].device_kind}


def by_split(names, window: int, stored, rule: str, scorings) -> tuple[dict, dict]:
    """`residuals.means` of whole windows of valid and of test."""
    return tuple(means(names, stored, rule, split, window, scorings) for split in SPLITS)


def report(
    names: Sequence[str], valid: Mapping[str, Float[np.ndarray, "E _"]],
    test: Mapping[str, Float[np.ndarray, "E _"]],
    scouts_valid: Mapping[str, Float[np.ndarray, "E _"]],
    scouts_test: Mapping[str, Float[np.ndarray, "E _"]], *, excess: float = 0.0,
    help_weak: bool = False, least: Sequence[int] = (KEEP,), at_least: float = AT_LEAST,
) -> dict:
    """Agreement with exact routing, and accuracy, by how many experts the scouts leave.

    Residuals in nats/token, by domain.  help_weak: experts and, in "keep", scouts have each their
    own handicaps; the others give scouts offsets instead.  "experts" and "scouts": each alone,
    without.
    """
    limit = weak_experts.limits(valid, names)
    exact = [{n: weak_experts.with_excess(x[n], limit, excess) for n in names}
             for x in (valid, test)]
    scouts = scouts_valid, scouts_test
    own, near = exact, scouts
    if help_weak:
        own, near = (_less(x, weak_experts.choose(x[0], names)[1]) for x in (exact, scouts))
    offsets = head_starts.together(*(np.concatenate(x, -1) for x in (
        [scouts_valid[n] for n in names], [own[0][n].argmin(0) for n in names])))
    rows = _fixed(names, own, near)
    alone = lambda of: {
        "accuracy": {split: weak_experts.accuracy(x, names, np.zeros(len(names)))
                     for split, x in zip(SPLITS, of, strict=True)},
        "per_domain": {n: float(np.mean(of[1][n].argmin(0) == e)) for e, n in enumerate(names)}}
    return {"keep": rows,
            "keep_chosen_on_valid": next(int(k) for k, row in rows.items()
                                         if row["valid"]["agreement"] >= at_least),
            "keep_with_offsets": _fixed(names, own, _less(scouts, offsets)),
            "adaptive": {str(k): adaptive(names, own, scouts, k, at_least) for k in least},
            "scouts": alone(scouts), "experts": alone(exact)}


def _fixed(names, exact, scouts) -> dict[str, dict]:
    """{number kept: {split: agreement and accuracy}}"""
    rows: dict[str, dict] = {str(keep): {} for keep in range(1, len(names) + 1)}
    for split, x, small in zip(SPLITS, exact, scouts, strict=True):
        agree = np.mean([candidates.agreement(small[n], x[n]) for n in names], 0)
        for keep, row in rows.items():
            row[split] = {"agreement": float(agree[int(keep) - 1]),
                          "accuracy": _accuracy(names, small, x, int(keep))}
    return rows


def adaptive(names: Sequence[str], exact, scouts, least: int, at_least: float) -> dict:
    """`shortlist.choose` on valid, and what its choice does on test.

    exact, scouts: (valid, test), each by domain.  "valid" is judged by offsets fitted on
    other windows.
    """
    found = candidates.choose(scouts[0], exact[0], names, min(least, len(names)), at_least)
    rule = found.keep, found.margin, found.offsets
    agree, kept = candidates.measured(scouts[1], exact[1], names, *rule)
    return {"keep": found.keep, "margin": found.margin, "offsets": found.offsets,
            "valid": {"agreement": found.agreement, "kept": found.kept, "windows": found.windows},
            "test": {"agreement": agree, "kept": kept,
                     "accuracy": _accuracy(names, scouts[1], exact[1], *rule)}}


def _accuracy(names, scouts, exact, keep: int, margin: float = 0.0, offsets=None) -> float:
    less = candidates.column(offsets, names)
    return float(np.mean([np.mean(np.where(
        candidates.kept(scouts[n] - less, keep, margin), exact[n], np.inf).argmin(0) == e)
        for e, n in enumerate(names)]))


def _less(by_split_, given):
    return [{n: r - given[:, None] for n, r in x.items()} for x in by_split_]


if __name__ == "__main__":
    sys.exit(main())
