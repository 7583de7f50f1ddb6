"""Runs of `benchmarks.bank.run` -> results/scoring.json, and a picture of it.

    python -m benchmarks.bank.table --runs results/scoring --tokens TOKENS --plot scoring.png

With --tokens (as in run.py) the linear n-gram classifier is trained on the same tokens and tested
on the same windows: the line that a scoring rule has to cross.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bank.inputs import read_sets
from benchmarks.results import commit, write
from cr_jax.studies import scoring
from cr_jax.studies.baselines import hashed_counts, ngram


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--runs", required=True, help="folder of NAME.npz and NAME.json")
    p.add_argument("--tokens", default="", help="folder of token arrays")
    p.add_argument("--out", default="results/scoring.json")
    p.add_argument("--plot", default="", metavar="FILE.png")
    a = p.parse_args(arguments)
    rows = scoring.run(Path(a.runs), lambda name: name.rsplit("_s", 1)[0])
    line = ngram_line(Path(a.runs), Path(a.tokens)) if a.tokens else None
    found = {"summary": scoring.summary(rows), "ngram": line, "rows": rows,
             "command": "python -m benchmarks.bank.table " + " ".join(sys.argv[1:]),
             "commit": commit()}
    write(a.out, json.dumps(found, indent=1) + "\n")
    for row in found["summary"]:
        spread = f" +-{row['routing_spread'] / 2:.2%}" if row["seeds"] > 1 else ""
        print(f"{row['variant']:10} {row['rule']:18} TRA {row['tra']:.2%}  routing "
              f"{row['routing']:.2%}{spread}  AUROC {row['auroc']:.3f}  FPR95 {row['fpr95']:.1%}")
    if line:
        print(f"linear n-grams: routing {line['routing']:.2%}")
    if a.plot:
        plot(found, a.plot)
    return 0


def ngram_line(runs: Path, tokens: Path) -> dict[str, Any]:
    """Accuracy of the linear 1+2-gram classifier on the runs' test windows, mean over domains."""
    spec = json.loads(next(iter(sorted(runs.glob("*.json")))).read_text())["spec"]
    window, domains = spec["model"]["window"], spec["domains"]
    cut = lambda ids: ids[:len(ids) // window * window].reshape(-1, window).astype(np.int32)
    read = []
    for name in domains:
        ids = cut(np.load(tokens / f"{name}.train.npy", allow_pickle=False))
        ids = ids[np.random.default_rng(0).permutation(len(ids))]
        read.append((ids, np.ones(ids.shape, bool)))
    kernel, bias = ngram.train(read, window)
    hits = {}
    sets = read_sets(tokens / "sets.npz")
    for e, name in enumerate(domains):
        test = sets[f"test/{name}"]
        rows = hashed_counts.rows(test.tokens, test.mask, ngram.BITS)
        hits[name] = float((ngram.logits(rows, kernel, bias).argmax(1) == e).mean())
    return {"routing": float(np.mean(list(hits.values()))), "per_domain": hits,
            "train_tokens": {n: int(r[0].size) for n, r in zip(domains, read, strict=True)}}


def plot(found: dict[str, Any], path: str) -> None:
    """Fidelity against discrimination, one point per variant and rule; needs matplotlib."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    shown = [r for r in found["summary"] if not r["rule"].startswith("z ")]
    for rule in dict.fromkeys(r["rule"] for r in shown):
        points = [(r["tra"], r["routing"]) for r in shown if r["rule"] == rule]
        axes.plot(*zip(*points, strict=True), "o", label=rule, alpha=0.8)
    if found["ngram"]:
        axes.axhline(found["ngram"]["routing"], color="grey", lw=1, ls="--", label="linear n-grams")
    axes.set(xlabel="TRA at home, all tokens seen", ylabel="routing accuracy, 512 tokens")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
