"""One run of `benchmarks.bank.run` -> results/routing.json and results/ood.json, on a CPU.

    python -m benchmarks.bank.report --run OUT/bank_s0 --tokens TOKENS --rule code \\
        --baselines baselines_cpu.json baselines_gpu.json --scouts OUT/scouts_s0 --scout-rule code8
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.bank.inputs import read_sets
from benchmarks.bank.run import GENERALIST
from benchmarks.results import commit, write
from cr_jax.cascade import AT_LEAST, agreement, nearest
from cr_jax.data import load_tokenizer
from cr_jax.studies import blends, lengths, ood
from cr_jax.studies.sums import Sums


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--run", required=True, help="path of NAME.npz without .npz")
    p.add_argument("--tokens", required=True)
    p.add_argument("--rule", required=True, help="rules to add up, such as h50 or seen+h50")
    p.add_argument("--baselines", nargs="*", default=[],
                   help="JSON of cr_jax.studies.baselines.run, or with it under 'baselines'")
    p.add_argument("--scouts", default="", help="run of small experts of the same domains")
    p.add_argument("--scout-rule", default="code8")
    p.add_argument("--without", nargs="*", default=[], metavar="DOMAIN",
                   help="experts and their windows left out; the files are then NAME_without.json")
    p.add_argument("--out", default="results")
    a = p.parse_args(arguments)
    record = json.loads(Path(a.run + ".json").read_text())
    spec = record["spec"]
    names, window, wide = spec["domains"], spec["model"]["window"], spec.get("generalist")
    inputs = read_sets(Path(a.tokens) / "sets.npz")
    stored = _read(a.run, names, a.without)
    inputs = {k: v for k, v in inputs.items() if k.split("/", 1)[1] not in a.without}
    provenance = {"rule": a.rule, "run": Path(a.run).name, "device": record["device"],
                  "run_commit": record["commit"], "commit": commit(),
                  "command": f"python -m benchmarks.bank.report --run {Path(a.run).name} "
                             f"--tokens TOKENS --rule {a.rule}"
                             + (f" --without {' '.join(a.without)}" if a.without else "")}
    scouts = _read(a.scouts, names, a.without) if a.scouts else None
    names = [n for n in names if n not in a.without]
    baselines = {}
    for path in a.baselines:
        read = json.loads(Path(path).read_text())
        baselines |= read.get("baselines", read)
    for name, found in (("routing", routing(names, window, stored, inputs, a.rule)),
                        ("ood", unknown(names, stored, inputs, a.rule,
                                        load_tokenizer(Path(a.tokens) / "tokenizer"), wide))):
        found["baselines"] = {k: v.get("ood") if name == "ood" else
                              {n: v[n] for n in map(str, (*lengths.LENGTHS,)) if n in v}
                              for k, v in baselines.items()}
        if name == "routing" and scouts:
            found["cascade"] = cascade(names, stored, scouts, a.rule, a.scout_rule)
        write(f"{a.out}/{name}{'_without' if a.without else ''}.json",
              json.dumps({**found, **provenance}, indent=1) + "\n")
    return 0


def _read(run: str, names, without) -> dict[str, np.ndarray]:
    """A run's sums, less the rows and the windows of the domains left out."""
    rows = [i for i, name in enumerate(names) if name not in without]
    with np.load(run + ".npz", allow_pickle=False) as stored:
        return {k: v[rows] if len(v) == len(names) else v for k, v in stored.items()
                if k.partition(":")[0].split("/", 1)[1] not in without}


def sums(stored, inputs, rule: str, pattern: str) -> dict[str, Sums]:
    """{name: sums} of the sets `pattern`/name under a rule."""
    found = {}
    for key, windows in inputs.items():
        group, name = key.split("/", 1)
        if group == pattern and f"{key}:seen:nll" in stored:
            right = stored[f"{key}:seen:correct"].astype(np.int64)
            found[name] = Sums(residual(stored, key, rule), right,
                               windows.mask.sum(-1), windows.document)
    return found


def residual(stored, key: str, rule: str, of: str = "") -> np.ndarray:
    """Sums [E, N] in nats of one set under a rule; several rules are added.

    of: "generalist" for that one's, [1, N].
    """
    parts = [stored[f"{key}:{r}:{of or ('nll' if r == 'seen' else 'residual')}"]
             for r in rule.split("+")]
    return np.sum(parts, 0, dtype=np.float64)


def routing(names, window: int, stored, inputs, rule: str) -> dict:
    """The study of lengths, documents, stopping early and blends, and what fidelity the experts
    have; beside it the paper's rule."""
    read = lambda rule, group: sums(stored, inputs, rule, group)
    by_length = lambda rule: {
        **{n: read(rule, f"cut{n}") for n in lengths.LENGTHS if read(rule, f"cut{n}")},
        window: read(rule, "test")}
    found = lengths.run(names, by_length(rule), read(rule, "doc"), read(rule, "validdoc"))
    plain = lengths.run(names, by_length("seen"), read("seen", "doc"))
    home = read("seen", "test")
    made: dict[tuple[str, str], dict] = {}
    for key, part in read(rule, "blend").items():
        one, other, layout, percent = key.split(".", 3)
        made.setdefault((one, other), {}).setdefault(layout, {})[float(percent)] = part
    return {
        "experts": names, **found,
        "paper_rule": {k: plain[k] for k in ("accuracy", "accuracy_tra", "per_domain")},
        "tra_at_home": {n: float(home[n].correct[e].sum() / home[n].tokens.sum())
                        for e, n in enumerate(names)},
        "nll_at_home": {n: float(home[n].nll[e].sum() / home[n].tokens.sum())
                        for e, n in enumerate(names)},
        "blends": [blends.run(names, *pair, curves) for pair, curves in made.items()]}


def cascade(names, stored, scouts, rule: str, scout_rule: str) -> dict:
    """Agreement with exact routing, and accuracy, by how many experts the scouts leave."""
    rows: dict[str, dict] = {str(keep): {} for keep in range(1, len(names) + 1)}
    for split in ("valid", "test"):
        agree, right = [], []
        for e, name in enumerate(names):
            exact = residual(stored, f"{split}/{name}", rule)
            small = residual(scouts, f"{split}/{name}", scout_rule)
            agree.append(agreement(small, exact))
            order = nearest(small, len(names))
            ranked = np.take_along_axis(exact, order, 0)
            won = [ranked[:keep].argmin(0)[None] for keep in range(1, len(names) + 1)]
            right.append([np.mean(np.take_along_axis(order, at, 0) == e) for at in won])
        for row, same, hit in zip(rows.values(), np.mean(agree, 0), np.mean(right, 0), strict=True):
            row[split] = {"agreement": float(same), "accuracy": float(hit)}
    chosen = next(int(k) for k, row in rows.items() if row["valid"]["agreement"] >= AT_LEAST)
    return {"scout_rule": scout_rule, "keep": rows, "keep_chosen_on_valid": chosen}


def unknown(names, stored, inputs, rule: str, tokenizer, wide=None) -> dict:
    """The study of unknown text: every domain left out, random tokens, attacks.

    wide: domains that the generalist was trained on.  A left-out domain among them is no unknown
    text to it, so there are also means over the other domains alone.
    """
    valid = sums(stored, inputs, rule, "valid")
    test = {**sums(stored, inputs, rule, "test"), **sums(stored, inputs, rule, "unseen"),
            **{ood.ATTACK + k: v for k, v in sums(stored, inputs, rule, "attack").items()}}
    where = lambda k: k if k.startswith(ood.ATTACK) else (
        f"unseen/{k}" if f"unseen/{k}" in inputs else f"test/{k}")

    def signals(found, key):
        made = ood.signals(found, {k: inputs[key(k)] for k in found}, tokenizer)
        if not wide:
            return made
        means = {k: residual(stored, key(k), rule, GENERALIST) / found[k].tokens for k in found}
        return {k: dataclasses.replace(s, residual=np.concatenate([s.residual, means[k]]))
                for k, s in made.items()}

    both = signals(valid, lambda k: f"valid/{k}"), signals(test, where)
    if not wide:
        return ood.run(names, *both)
    found = ood.run([*names, GENERALIST], *both, generalist=GENERALIST)
    kept = [n for n in names if n not in wide]
    mean = lambda scores, k: float(np.mean([scores["per_domain"][n][k] for n in kept]))
    found["unknown_to_the_generalist"] = {"domains": kept} | {
        rule: {k: mean(scores, k) for k in ("auroc", "fpr95", "reject_at_1pct")}
        for rule, scores in found["scores"].items()}
    return found


if __name__ == "__main__":
    sys.exit(main())
