"""Text between `<!-- table: NAME -->` and `<!-- /table -->`, replaced by the table NAME."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from cr_jax.errors import UserError

BEGIN = re.compile(r"^<!-- table: (?P<name>[\w-]+) -->$", re.MULTILINE)
END = "<!-- /table -->"


def filled(text: str, tables: Mapping[str, Callable[[], str]], where: str) -> tuple[str, list[str]]:
    """(the text with every table made anew, names of the tables that were another).

    `UserError`, which names `where`, for a table that nobody defined or that has no end.
    """
    parts, stale, at = [], [], 0
    for begin in BEGIN.finditer(text):
        name, end = begin["name"], text.find(END, begin.end())
        inner = text[begin.end() : end]
        if end < 0 or BEGIN.search(inner):
            raise UserError(f"{where}: the table {name} has no {END}; add that line after it")
        if name not in tables:
            raise UserError(
                f"{where}: nobody defines the table {name}; register it in "
                "benchmarks/tables or take its markers out"
            )
        made = f"\n{tables[name]()}\n"
        if made != inner:
            stale.append(name)
        parts += [text[at : begin.end()], made]
        at = end
    return "".join([*parts, text[at:]]), stale


def names_in(text: str) -> list[str]:
    """The tables that a text has markers for."""
    return [begin["name"] for begin in BEGIN.finditer(text)]


def fill(
    paths: Iterable[Path], tables: Mapping[str, Callable[[], str]], root: Path, write: bool
) -> list[str]:
    """One line for each table that is not what its JSON says; with `write` the files are mended."""
    lines = []
    for path in paths:
        where = str(path.relative_to(root))
        text = path.read_text()
        new, stale = filled(text, tables, where)
        lines += [f"{where}: the table {name} is not what results/ says" for name in stale]
        if write and new != text:
            path.write_text(new)
    return lines
