"""Runs of `benchmarks.bank.run` -> results/routing.json and results/ood.json, on a CPU.

    python -m benchmarks.bank.report --run OUT/bank_a OUT/bank_b --tokens TOKENS --rule code \\
        --baselines baselines_cpu.json baselines_gpu.json
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.bank.inputs import read_sets
from benchmarks.bank.residuals import means, read_run, record_of, residual
from benchmarks.bank.run import GENERALIST
from benchmarks.results import commit, write
from cr_jax.data import load_tokenizer
from cr_jax.errors import UserError
from cr_jax.studies import blends, lengths, weak_experts
from cr_jax.studies.sums import Sums
from cr_jax.studies.unknown import ood


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--run", required=True, nargs="+",
                   help="paths of NAME.npz without .npz; several runs of the same domains are "
                        "reported as means, each in `by_run`")
    p.add_argument("--members", nargs="*", default=[], help="further runs of the same domains: "
                   "each domain then has several experts, whose residuals are averaged")
    p.add_argument("--plain", action="store_true", help="no offsets")
    p.add_argument("--tokens", required=True)
    p.add_argument("--rule", required=True, help="rules to add up, such as h50 or seen+h50")
    p.add_argument("--baselines", nargs="*", default=[],
                   help="JSON of cr_jax.studies.baselines.run, or with it under 'baselines'")
    p.add_argument("--without", nargs="*", default=[], metavar="DOMAIN",
                   help="experts and their windows left out")
    p.add_argument("--name", default="", help="the files are routing_NAME.json and ood_NAME.json")
    p.add_argument("--out", default="results")
    try:
        _report(p.parse_args(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _report(a) -> None:
    inputs = {k: v for k, v in read_sets(Path(a.tokens) / "sets.npz").items()
              if k.split("/", 1)[1] not in a.without}
    tokenizer = load_tokenizer(Path(a.tokens) / "tokenizer")
    baselines = {}
    for path in a.baselines:
        try:
            read = json.loads(Path(path).read_text())
        except (OSError, ValueError):
            raise UserError(f"--baselines: cannot read {path}; give the JSON of a study") from None
        baselines |= read.get("baselines", read)
    found: dict[str, list] = {"routing": [], "ood": []}
    for run in a.run:
        record = record_of(run)
        everyone, window = record["spec"]["domains"], record["spec"]["model"]["window"]
        stored = _mean([read_run(r, everyone, a.without) for r in (run, *a.members)])
        wide = [d for r in (run, *a.members) for d in _known_to_the_generalist(r)]
        names = [n for n in everyone if n not in a.without]
        found["routing"].append(routing(names, window, stored, inputs, a.rule, not a.plain))
        found["ood"].append(unknown(names, stored, inputs, a.rule, tokenizer, wide))
    runs = [Path(run).name for run in a.run]
    members = [Path(run).name for run in a.members]
    provenance = {"scored_by": a.rule, "run": " ".join(runs), "members": members,
                  "device": record["device"], "run_commit": record["commit"], "commit": commit(),
                  "command": f"python -m benchmarks.bank.report --run {' '.join(runs)} "
                             f"--tokens TOKENS --rule {a.rule}"
                             + "".join(f" --{k} {' '.join(v)}" for k, v in (
                                 ("members", members), ("without", a.without)) if v)
                             + " --plain" * a.plain}
    merged = {"routing": mean(found["routing"]), "ood": ood.merge(found["ood"])}
    if len(runs) > 1:  # each run chose for itself
        for key in ("offset", "typicality", "typicality_by_length"):
            merged["routing"].pop(key, None)
    brief = {"routing": lambda f: {k: f[k] for k in (
                 "accuracy", "per_domain", "offset", "typicality") if k in f},
             "ood": lambda f: {k: f["scores"][merged["ood"]["rule"]][k] for k in
                               ("auroc", "fpr95", "reject_at_1pct", "attack_accept")}}
    for name, result in merged.items():
        result["by_run"] = dict(zip(runs, map(brief[name], found[name]), strict=True))
        result["baselines"] = {k: v.get("ood") if name == "ood" else
                               {n: v[n] for n in map(str, (*lengths.LENGTHS,)) if n in v}
                               for k, v in baselines.items()}
        write(f"{a.out}/{name}{'_' * bool(a.name)}{a.name}.json",
              json.dumps({**result, **provenance}, indent=1) + "\n")


def mean(parts):
    """The same nested results of several runs as one: numbers become means, the rest must be the
    first's."""
    first = parts[0]
    if isinstance(first, Mapping):
        return {k: mean([p[k] for p in parts]) for k in first}
    if isinstance(first, list | tuple):
        return [mean(list(x)) for x in zip(*parts, strict=True)]
    number = isinstance(first, int | float) and not isinstance(first, bool)
    return sum(parts) / len(parts) if number and len(set(parts)) > 1 else first


def _known_to_the_generalist(run: str) -> list[str]:
    """Domains of the text of the seed that a run's experts began with, if they did."""
    spec = record_of(run)["spec"]
    if not spec.get("start"):
        return []
    seed = Path(run).parent / f"{spec['start']}.json"
    return json.loads(seed.read_text())["spec"]["generalist"]


def _mean(stored: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Residuals of several runs, averaged; what was rebuilt exactly is the first's."""
    return {k: v if k.endswith(":correct") else np.mean([s[k] for s in stored], 0)
            for k, v in stored[0].items() if all(k in s for s in stored)}


def sums(stored, inputs, rule: str, pattern: str, offset=0.0) -> dict[str, Sums]:
    """{name: sums} of the sets `pattern`/name under a rule, less the experts' offsets [E]."""
    found = {}
    for key, windows in inputs.items():
        group, name = key.split("/", 1)
        if group == pattern and f"{key}:seen:nll" in stored:
            right = stored[f"{key}:seen:correct"].astype(np.int64)
            tokens = windows.mask.sum(-1)
            nll = residual(stored, key, rule) - np.multiply.outer(offset, tokens)
            found[name] = Sums(nll, right, tokens, windows.document)
    return found


def typicality(names, window: int, stored, rule: str) -> dict[str, dict]:
    """{length: `weak_experts.typicality`} of whole windows, and of cut ones calibrated on such."""
    lengths_of = {window: ("valid", "test")} | {
        n: (f"validcut{n}", f"cut{n}") for n in lengths.LENGTHS
        if n != window and f"validcut{n}/{names[0]}:{rule.split('+')[0]}:residual" in stored}
    return {str(n): weak_experts.typicality(
                *(means(names, stored, rule, split, n) for split in splits), names)
            for n, splits in sorted(lengths_of.items())}


def routing(names, window: int, stored, inputs, rule: str, help_weak: bool = True) -> dict:
    """The study of lengths, documents, stopping early and blends, and what fidelity the experts
    have; beside it the same without offsets, and the paper's rule."""
    valid = means(names, stored, rule, "valid", window)
    share, given = (weak_experts.choose(valid, names) if help_weak
                    else (0.0, np.zeros(len(names))))
    read = lambda rule, group, given=0.0 * given: sums(stored, inputs, rule, group, given)
    by_length = lambda rule, given=0.0 * given: {
        **{n: read(rule, f"cut{n}", given) for n in lengths.LENGTHS if read(rule, f"cut{n}")},
        window: read(rule, "test", given)}
    found = lengths.run(names, by_length(rule, given), read(rule, "doc", given) or None,
                        read(rule, "validdoc", given) or None)
    without = lengths.run(names, by_length(rule), read(rule, "doc") or None)
    on_valid = {k: weak_experts.accuracy(valid, names, v)
                for k, v in (("without", 0 * given), ("with", given))}
    plain = lengths.run(names, by_length("seen"), read("seen", "doc") or None)
    home = read("seen", "test")
    made: dict[tuple[str, str], dict] = {}
    for key, part in read(rule, "blend", given).items():
        one, other, layout, percent = key.split(".", 3)
        made.setdefault((one, other), {}).setdefault(layout, {})[float(percent)] = part
    return {
        "experts": names, **found,
        "offset": {"share": share, "accuracy_on_valid": on_valid, "nats_per_token": dict(
            zip(names, map(float, given), strict=True))},
        "typicality": (by_typicality := typicality(names, window, stored, rule))[str(window)],
        "typicality_by_length": by_typicality,
        "without_handicap": {k: without[k] for k in ("accuracy", "per_domain")},
        "paper_rule": {k: plain[k] for k in ("accuracy", "accuracy_tra", "per_domain")},
        "tra_at_home": {n: float(home[n].correct[e].sum() / home[n].tokens.sum())
                        for e, n in enumerate(names)},
        "nll_at_home": {n: float(home[n].nll[e].sum() / home[n].tokens.sum())
                        for e, n in enumerate(names)},
        "blends": [blends.run(names, *pair, curves) for pair, curves in made.items()]}


def unknown(names, stored, inputs, rule: str, tokenizer, wide=()) -> dict:
    """The study of unknown text: domains left out, random tokens, attacks.

    wide: domains that the generalist, or the seed of all experts, was trained on.  They are no
    unknown text to it and are not left out in turn.
    """
    valid = sums(stored, inputs, rule, "valid")
    test = {**sums(stored, inputs, rule, "test"), **sums(stored, inputs, rule, "unseen"),
            **{ood.ATTACK + k: v for k, v in sums(stored, inputs, rule, "attack").items()}}
    where = lambda k: k if k.startswith(ood.ATTACK) else (
        f"unseen/{k}" if f"unseen/{k}" in inputs else f"test/{k}")

    reference = any(k.endswith(f":{GENERALIST}") for k in stored)

    def signals(found, key):
        made = ood.signals(found, {k: inputs[key(k)] for k in found}, tokenizer)
        if not reference:
            return made
        means = {k: residual(stored, key(k), rule, GENERALIST) / found[k].tokens for k in found}
        return {k: dataclasses.replace(s, residual=np.concatenate([s.residual, means[k]]))
                for k, s in made.items()}

    both = signals(valid, lambda k: f"valid/{k}"), signals(test, where)
    left_out = [n for n in names if n not in wide]
    if not reference:
        return ood.run(names, *both, left_out=left_out)
    return ood.run([*names, GENERALIST], *both, generalist=GENERALIST, left_out=left_out)


if __name__ == "__main__":
    sys.exit(main())
