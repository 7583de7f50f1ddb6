"""What a run of configs/modular.py measured -> results/modular.json.

    python -m benchmarks.modular WORKDIR --out results/modular.json [--speed results/decoding.json]

Keeps the study's figures (`cr_jax.studies.modular`), what each stage of the training has cost and
the command; leaves out windows of text.  --speed: rows of `benchmarks.speed.decoding`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import write
from cr_jax.errors import UserError, complain

STAGE = (
    *("train_tokens", "train_flops", "seconds", "steps", "parameters", "best"),
    *("chosen", "valid_nll", "search_tokens", "averages"),
)
ORIGIN = ("command", "commit", "device", "devices", "versions", "date")


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes --out; the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("workdir", type=Path, help="of a run with the study `modular`")
    p.add_argument("--speed", type=Path, help="JSON of benchmarks.speed.decoding")
    p.add_argument("--out", required=True)
    a = p.parse_args(arguments)
    try:
        record = collected(_read(a.workdir / "report.json"), a.speed and _read(a.speed))
    except UserError as error:
        complain("error", error)
        return 2
    write(a.out, json.dumps(record, separators=(",", ":")) + "\n")
    return 0


def collected(report: dict[str, Any], speed: dict[str, Any] | None = None) -> dict[str, Any]:
    """`UserError` where the report has no study of language models."""
    if "modular" not in report:
        raise UserError(
            "the report has no study `modular`: run configs/modular.py with it in config.studies"
        )
    stages = {
        name: {k: note[k] for k in STAGE if k in note}
        for name, note in report["language_models"].items()
    }
    provenance = report["provenance"]
    found = {
        **report["modular"],
        "stages": stages,
        "seconds": report["seconds"],
        "settings": {**report["modular"]["settings"], "modular": provenance["config"]["modular"]},
        **{k: provenance[k] for k in ORIGIN if k in provenance},
    }
    if speed is not None:
        found["speed"] = speed
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no report: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
