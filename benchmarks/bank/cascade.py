"""How many experts a cascade scores in full: a fixed number, and as many as are in doubt.

    python -m benchmarks.bank.cascade --run OUT/experts64 --rule code --tokens TOKENS64 \\
        --out cascade.json

Reads the sets valid/* and test/* of a run of `benchmarks.bank.run`, and the folder that the run was
made from: bigram models (`scoring.bigram`) are counted on its NAME.train.npy and score the same
windows, those of its sets.npz.  Everything is chosen on valid.  Figures are means over windows,
then over domains.  `fixed`: agreement with exact routing, and accuracy, for every fixed number of
candidates; `fixed_with_offsets`: the same with the offsets of `routing.candidates`, which saw all
of valid; `adaptive`: by the least number, that number and the margin of `routing.candidates`;
`bigrams`: what the bigram models are, cost, and route alone; `experts`: accuracy without them.
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
from cr_jax.routing.cascade import AT_LEAST, MIN_CANDIDATES, bigram_residuals
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.bigram import MAX_BIGRAMS, TRAINING_TOKENS, BigramModel, count, table
from cr_jax.scoring.offsets import fit_offsets
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
    p.add_argument("--max-bigrams", type=int, default=MAX_BIGRAMS, help="of each bigram model "
                   f"(default {MAX_BIGRAMS})")
    p.add_argument("--typicality-weight", type=float, default=0.0, metavar="W",
                   help="experts are ranked as with config.scoring.typicality_weight=W, calibrated "
                   "on valid")
    p.add_argument("--offsets", action="store_true",
                   help="experts, and in `fixed` their bigram models, have offsets chosen on valid "
                   "(`studies.weak_experts`)")
    p.add_argument("--min-candidates", type=int, nargs="+", default=[MIN_CANDIDATES],
                   help="least numbers of the adaptive rule, each on its own (default "
                   f"{MIN_CANDIDATES})")
    p.add_argument("--at-least", type=float, default=AT_LEAST, help="agreement on valid (default "
                   f"{AT_LEAST})")
    p.add_argument("--batch", type=int, default=64, help="windows that bigram models score "
                   "at a time")
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
    fixed, bigrams = found["fixed_chosen_on_valid"], found["bigrams"]
    lines = [f"experts: accuracy {found['experts']['accuracy']['test']:.2%} on test",
             f"bigram models alone: accuracy {bigrams['accuracy']['test']:.2%}, counted in "
             f"{bigrams['seconds_to_count']:.1f} s, {bigrams['tokens_per_s']:,.0f} tokens/s by all",
             f"{fixed} of {len(found['experts']['per_domain'])}: "
             + percent(found["fixed"][str(fixed)]["test"])]
    lines += [f"{x['min_candidates']} and a margin of {x['candidate_margin']:.2f}"
              f"{' with offsets' if x['offsets'] else ''}: "
              f"{x['test']['mean_candidates']:.1f} on average, " + percent(x["test"])
              for x in found["adaptive"].values()]
    return "\n".join(lines)


def _found(a) -> dict:
    if (not 0 <= a.typicality_weight < np.inf or not 0 <= a.at_least <= 1
            or min(*a.min_candidates, a.max_bigrams, a.batch) < 1):
        raise UserError("--typicality-weight must be finite and not negative, --at-least a share, "
                        "--min-candidates, --max-bigrams and --batch at least 1")
    record = record_of(a.run)
    names, model = record["spec"]["domains"], record["spec"]["model"]
    window, vocab_size = model["window"], model.get("vocab_size")
    if type(vocab_size) is not int:
        raise UserError(f"{a.run}.json names no model.vocab_size, which its bigram models need")
    stored = by_split(names, window, read_run(a.run, names), a.rule, rules_of(a.run))
    windows = windows_of(Path(a.tokens), names, window, stored)
    start = time.perf_counter()
    counted = {n: count(x, np.ones(x.shape, bool), vocab_size, a.max_bigrams)
               for n, x in ((n, training_windows(Path(a.tokens), n, window)) for n in names)}
    took = time.perf_counter() - start
    near, about = scored(counted, windows, a.batch)
    made = report(names, *stored, *near, typicality_weight=a.typicality_weight,
                  help_weak=a.offsets, least=a.min_candidates, at_least=a.at_least)
    made["bigrams"] |= {"max_bigrams": a.max_bigrams, "seconds_to_count": took, **about}
    return {**made, "scored_by": a.rule, "typicality_weight": a.typicality_weight,
            "offsets": a.offsets, "at_least": a.at_least,
            "windows": {s: sum(r.shape[1] for r in x.values())
                        for s, x in zip(SPLITS, stored, strict=True)},
            "run": Path(a.run).name, "device": record["device"],
            "run_commit": record.get("commit"), "commit": commit()}


def training_windows(folder: Path, name: str, window: int) -> Integer[np.ndarray, "N L"]:
    """A domain's training text, cut into whole windows; `TRAINING_TOKENS` tokens of it at most.

    `UserError` when it cannot be read, is no row of ids, or is shorter than a window.
    """
    path = folder / f"{name}.train.npy"
    try:
        with open(path, "rb") as file:  # numpy leaves one that it cannot read open
            ids = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise UserError(f"--tokens: cannot read {path}; bigram models are counted on "
                        "the text that the run's experts were trained on") from None
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or len(ids) < window:
        raise UserError(f"--tokens: {path} is no row of at least {window} ids")
    return ids[:min(len(ids), max(TRAINING_TOKENS, window)) // window * window].reshape(-1, window)


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
    counted: Mapping[str, BigramModel], windows: Sequence[Mapping[str, Windows]], batch: int,
) -> tuple[list[dict[str, Float[np.ndarray, "E _"]]], dict]:
    """(bigram models' nats/token of valid and of test, by domain; what they are and cost)."""
    parts = [w for split in windows for w in split.values()]
    every = Windows(*(np.concatenate([getattr(w, f) for w in parts])
                      for f in ("tokens", "mask", "document")))
    looked_up = table(counted.values())
    sizes = BatchSizes(windows=batch)
    bigram_residuals(looked_up, every.take(slice(batch)), sizes)  # compiles
    start = time.perf_counter()
    residuals = bigram_residuals(looked_up, every, sizes)
    took = time.perf_counter() - start
    cut = iter(np.split(residuals, np.cumsum([len(w.tokens) for w in parts])[:-1], axis=1))
    found = [{n: next(cut) for n in split} for split in windows]
    return found, {
        "stored": {n: s.keys.size for n, s in counted.items()},
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
    bigrams_valid: Mapping[str, Float[np.ndarray, "E _"]],
    bigrams_test: Mapping[str, Float[np.ndarray, "E _"]], *,
    typicality_weight: float = 0.0, help_weak: bool = False,
    least: Sequence[int] = (MIN_CANDIDATES,), at_least: float = AT_LEAST,
) -> dict:
    """Agreement with exact routing, and accuracy, by how many candidates the bigram models leave.

    Residuals in nats/token, by domain.  help_weak: experts and, in "fixed", bigram models have each
    their own offsets; the others give bigram models offsets instead.  "experts" and "bigrams": each
    alone, without.
    """
    limit = weak_experts.limits(valid, names)
    exact = [{n: weak_experts.with_typicality_penalty(x[n], limit, typicality_weight)
              for n in names}
             for x in (valid, test)]
    bigrams = bigrams_valid, bigrams_test
    own, near = exact, bigrams
    if help_weak:
        own, near = (_less(x, weak_experts.choose(x[0], names)[1]) for x in (exact, bigrams))
    offsets = fit_offsets(*(np.concatenate(x, -1) for x in (
        [bigrams_valid[n] for n in names], [own[0][n].argmin(0) for n in names])))
    rows = _fixed(names, own, near)
    alone = lambda of: {
        "accuracy": {split: weak_experts.accuracy(x, names, np.zeros(len(names)))
                     for split, x in zip(SPLITS, of, strict=True)},
        "per_domain": {n: float(np.mean(of[1][n].argmin(0) == e)) for e, n in enumerate(names)}}
    return {"fixed": rows,
            "fixed_chosen_on_valid": next(int(k) for k, row in rows.items()
                                          if row["valid"]["agreement"] >= at_least),
            "fixed_with_offsets": _fixed(names, own, _less(bigrams, offsets)),
            "adaptive": {str(k): adaptive(names, own, bigrams, k, at_least) for k in least},
            "bigrams": alone(bigrams), "experts": alone(exact)}


def _fixed(names, exact, bigrams) -> dict[str, dict]:
    """{number of candidates: {split: agreement and accuracy}}"""
    rows: dict[str, dict] = {str(few): {} for few in range(1, len(names) + 1)}
    for split, x, small in zip(SPLITS, exact, bigrams, strict=True):
        agree = np.mean([candidates.agreement(small[n], x[n]) for n in names], 0)
        for few, row in rows.items():
            row[split] = {"agreement": float(agree[int(few) - 1]),
                          "accuracy": _accuracy(names, small, x, int(few))}
    return rows


def adaptive(names: Sequence[str], exact, bigrams, least: int, at_least: float) -> dict:
    """`candidates.fit` on valid, and what that does on test.

    exact, bigrams: (valid, test), each by domain.  "valid" is judged by offsets fitted on
    other windows.
    """
    found = candidates.fit(bigrams[0], exact[0], names, min(least, len(names)), at_least)
    rule = found.min_candidates, found.candidate_margin, found.offsets
    agree, count = candidates.measure(bigrams[1], exact[1], names, *rule)
    return {"min_candidates": found.min_candidates, "candidate_margin": found.candidate_margin,
            "offsets": found.offsets,
            "valid": {"agreement": found.agreement, "mean_candidates": found.mean_candidates,
                      "windows": found.windows},
            "test": {"agreement": agree, "mean_candidates": count,
                     "accuracy": _accuracy(names, bigrams[1], exact[1], *rule)}}


def _accuracy(names, bigrams, exact, few: int, margin: float = 0.0, offsets=None) -> float:
    less = candidates.column(offsets, names)
    return float(np.mean([np.mean(np.where(
        candidates.are_candidates(bigrams[n] - less, few, margin), exact[n], np.inf).argmin(0) == e)
        for e, n in enumerate(names)]))


def _less(by_split_, given):
    return [{n: r - given[:, None] for n, r in x.items()} for x in by_split_]


if __name__ == "__main__":
    sys.exit(main())
