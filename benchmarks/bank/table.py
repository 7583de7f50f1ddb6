"""Stored runs -> results/scoring.json, and a picture of it.

python -m benchmarks.bank.table --runs results/scoring --plot scoring.png
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.results import commit, write
from cr_jax.studies import scoring


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--runs", required=True, help="folder of NAME.npz and NAME.json")
    p.add_argument("--out", default="results/scoring.json")
    p.add_argument("--plot", default="", metavar="FILE.png")
    a = p.parse_args(arguments)
    rows = scoring.run(Path(a.runs), lambda name: name.rsplit("_s", 1)[0])
    found = {
        "summary": scoring.summary(rows),
        "rows": rows,
        "command": "python -m benchmarks.bank.table " + " ".join(sys.argv[1:]),
        "commit": commit(),
    }
    write(a.out, json.dumps(found, indent=1) + "\n")
    for row in found["summary"]:
        spread = f" +-{row['routing_spread'] / 2:.2%}" if row["seeds"] > 1 else ""
        print(
            f"{row['variant']:10} {row['rule']:18} TRA {row['tra']:.2%}  routing "
            f"{row['routing']:.2%}{spread}  AUROC {row['auroc']:.3f}  FPR95 {row['fpr95']:.1%}"
        )
    if a.plot:
        plot(found, a.plot)
    return 0


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
    axes.set(xlabel="TRA at home, all tokens seen", ylabel="routing accuracy, 512 tokens")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
