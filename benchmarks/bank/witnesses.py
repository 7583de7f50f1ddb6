"""Means over runs of what the study `witnesses` finds: one run per seed, of the same domains.

    python -m benchmarks.bank.witnesses runs/s*/report.json --out results/unknown.json

The runs: python main.py --config=configs/bank.py:half --config.seed=S --workdir=runs/sS \\
    --config.data.root=DATA --config.studies=witnesses,decisions
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

from benchmarks.results import commit, write
from cr_jax.errors import UserError
from cr_jax.studies.unknown import leave_out


def main(arguments: list[str] | None = None) -> int:
    """Writes --out and prints its short form; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("reports", nargs="+", metavar="REPORT", help="report.json of a run")
    p.add_argument("--out", required=True)
    a = p.parse_args(arguments)
    try:
        found = leave_out.merge([_read(path) for path in a.reports])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    command = shlex.join(
        ["python", "-m", "benchmarks.bank.witnesses", *(arguments or sys.argv[1:])]
    )
    write(a.out, json.dumps(found | {"commit": commit(), "command": command}, indent=1) + "\n")
    for name, of in found["witnesses"].items():
        figures = "  ".join(f"{k} {of[k]:.4f}" for k in (*leave_out.FIGURES, leave_out.ALARM))
        print(f"{name:16s} {figures}{'  default' * (name == found['default'])}")
    return 0


def _read(path: str) -> dict:
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
        return report["unknown_witnesses"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is no report of a run with the study witnesses: make one with "
            "--config.studies=witnesses"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
