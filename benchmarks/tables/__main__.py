"""Fills the tables, or checks them: see the package."""

import argparse
import sys
from pathlib import Path

# Importing a module registers its tables.
from benchmarks.tables import (  # noqa: F401
    capacity,
    compressors,
    continual,
    experts,
    files,
    in_context,
    index,
    memory,
    modular,
    readme,
    routing,
    systems,
    unknown,
)
from benchmarks.tables.fill import fill
from benchmarks.tables.registry import ROOT, TABLES
from cr_jax.errors import UserError


def texts() -> list[Path]:
    """The texts that may hold tables."""
    return [
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        ROOT / "results/README.md",
        ROOT / "cr_jax/bank/pretrained/README.md",
    ]


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 1 when --check found a stale table, 2 for an error."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.tables")
    p.add_argument("--check", action="store_true", help="changes nothing, names stale tables")
    a = p.parse_args(arguments)
    try:
        stale = fill(texts(), TABLES, ROOT, write=not a.check)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for line in stale:
        print(f"{line}; run: python -m benchmarks.tables" if a.check else f"{line}: filled anew")
    return 1 if a.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
