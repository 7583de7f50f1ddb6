"""Tables by name, and how their cells are written."""

import functools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from cr_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
TABLES: dict[str, Callable[[], str]] = {}


def table(name: str) -> Callable:
    """Registers a function without arguments that returns a table in Markdown."""

    def register(made: Callable[[], str]) -> Callable[[], str]:
        if name in TABLES:
            raise ValueError(f"two tables are named {name}")
        TABLES[name] = made
        return made

    return register


@functools.cache
def read(path: str) -> Any:
    """The JSON of results/PATH.  `UserError` when it is missing or damaged."""
    try:
        return json.loads((RESULTS / path).read_text())
    except (OSError, ValueError):
        raise UserError(f"cannot read results/{path}; restore it from git") from None


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; a cell that is None stays empty."""
    line = lambda cells: f"| {' | '.join('' if c is None else str(c) for c in cells)} |"
    body = list(rows)
    if wrong := [row for row in body if len(row) != len(header)]:
        raise ValueError(f"{len(header)} columns, and a row of {len(wrong[0])}: {wrong[0]}")
    return "\n".join([line(header), "|" + "---|" * len(header), *map(line, body)])


def percent(share: float | None, digits: int = 1) -> str | None:
    """0.98816 -> 98.8 %"""
    return None if share is None else f"{100 * share:.{digits}f} %"


def decimal(value: float | None, digits: int = 3) -> str | None:
    """0.95 -> 0.950"""
    return None if value is None else f"{value:.{digits}f}"


def short(value: float) -> str:
    """With a unit of thousands or millions: 1013802 -> 1,014 K, 7270410 -> 7.27 M"""
    return f"{value / 1e6:.2f} M" if value >= 2e6 else f"{value / 1e3:,.0f} K"


def interval(value: float, low: float, high: float) -> str:
    """149 [118, 203]"""
    return f"{value:,.0f} [{low:,.0f}, {high:,.0f}]"
