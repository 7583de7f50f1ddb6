"""What a .gitignore file leaves out: its patterns as git reads them.  Not in the paper.

A pattern costs time linear in its length times that of the path, whoever wrote it.  `?` and
brackets stand for one character, in git for one byte.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# Parts between slashes; None is `**`: any folders, or none.
Parts = tuple[re.Pattern[str] | None, ...]

_ANY, _NONE = "[^/]", "(?!)"
_CLASSES = {  # of POSIX, in ASCII, inside the brackets of a regular expression
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t-\r ",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
# Without the spaces at the end that no backslash keeps.
_LINE = re.compile(r"(?:\\.|[^\\ ]| ++(?=.))*+\\?", re.DOTALL)


class Rule(NamedTuple):
    """One line.  keep: it begins with `!`; folders: it ends with `/` and means folders only."""

    parts: Parts
    keep: bool
    folders: bool


def rules(lines: Iterable[str]) -> list[Rule]:
    """The rules of a file, in their order; what is no pattern is passed over.

    >>> [(len(r.parts), r.folders) for r in rules(["# comment", "*.py[co]", "/build/", "[a"])]
    [(2, False), (1, True)]
    """
    found = []
    for line in lines:
        line = line.removesuffix("\n").removesuffix("\r")
        if line.startswith("#"):
            continue
        match = _LINE.match(line)
        line = match[0] if match else ""
        keep, line = line.startswith("!"), line.removeprefix("!")
        folders, line = line.endswith("/"), line.removesuffix("/")
        if line and (parts := _parts(line)) is not None:
            found.append(Rule(parts, keep, folders))
    return found


def ignored(path: str, folder: bool, files: Sequence[tuple[str, Sequence[Rule]]]) -> bool:
    """Whether the last rule that names a path leaves it out.

    path: with `/`, below the outermost folder; files: (the folder of a .gitignore below the
    outermost, "" or with a `/` at its end; its rules), from the outermost in.
    """
    for place, own in reversed(files):
        if not path.startswith(place):
            continue
        names = path.removeprefix(place).split("/")
        for rule in reversed(own):
            if (folder or not rule.folders) and _matches(rule.parts, names):
                return not rule.keep
    return False


def _matches(parts: Parts, names: Sequence[str]) -> bool:
    """Whether parts stand for names.  Only the last `**` is ever tried again, with one more name:
    what an earlier one could take, the last can take too."""
    last = parts[-1]
    if last is None or not last.fullmatch(names[-1]):
        return False
    part = name = 0
    again: tuple[int, int] | None = None
    while name < len(names):
        if part < len(parts):
            here = parts[part]
            if here is None:
                part += 1
                again = part, name
                continue
            if here.fullmatch(names[name]):
                part, name = part + 1, name + 1
                continue
        if again is None:
            return False
        again = part, name = again[0], again[1] + 1
    return part == len(parts)


def _parts(pattern: str) -> Parts | None:
    """None for a pattern that matches nothing."""
    read = _read(pattern)
    if read is None:
        return None
    anywhere = "/" not in pattern  # also in brackets
    if len(read) > 1 and not read[0]:
        del read[0]
    parts: list[re.Pattern[str] | None] = [None] if anywhere else []
    for place, atoms in enumerate(read):
        stars = len(atoms) > 1 and not any(atoms)
        if not stars or anywhere:
            parts.append(re.compile(_expression(atoms), re.DOTALL))
            continue
        if not parts or parts[-1] is not None:
            parts.append(None)
        if place == len(read) - 1:
            parts.append(re.compile(_ANY + "+", re.DOTALL))  # what is inside, not the folder
    return tuple(parts)


def _read(pattern: str) -> list[list[str]] | None:
    """Regular expressions of one character each, between slashes; "" is a star."""
    parts: list[list[str]] = [[]]
    at = 0
    while at < len(pattern):
        c = pattern[at]
        at += 1
        if c == "\\":
            if at == len(pattern):
                return None
            c = pattern[at]
            at += 1
            parts.append([]) if c == "/" else parts[-1].append(re.escape(c))
        elif c == "/":
            parts.append([])
        elif c == "[":
            read = _brackets(pattern, at)
            if read is None:
                return None
            expression, at = read
            parts[-1].append(expression)
        else:
            parts[-1].append("" if c == "*" else _ANY if c == "?" else re.escape(c))
    return parts


def _brackets(pattern: str, at: int) -> tuple[str, int] | None:
    """One character of those in brackets, and where the pattern goes on; None for unclosed ones."""
    negated = pattern[at : at + 1] in ("!", "^")
    at += negated
    first, before, items = at, "", []
    while at < len(pattern):
        c = pattern[at]
        if c == "]" and at > first:
            inside = "".join(items)
            if not inside:
                return (_ANY if negated else _NONE), at + 1
            return f"(?!/)[{'^' if negated else ''}{inside}]", at + 1
        to = pattern[at + 1 : at + 2]
        if c == "[" and to == ":":
            end = pattern.find("]", at + 2)
            if end < 0:
                return None
            if end > at + 2 and pattern[end - 1] == ":":
                if (name := pattern[at + 2 : end - 1]) not in _CLASSES:
                    return None
                items.append(_CLASSES[name])
                before, at = "", end + 1
                continue
        if c == "-" and before and to not in ("", "]"):
            at += 1
            if to == "\\":
                at += 1
                to = pattern[at : at + 1]
            if to and before <= to:
                items.append(f"{re.escape(before)}-{re.escape(to)}")
            before, at = "", at + 1
            continue
        if c == "\\":
            at += 1
            c = pattern[at : at + 1]
        items.append(re.escape(c))
        before, at = c, at + 1
    return None


def _expression(atoms: Sequence[str]) -> str:
    """Of one part.  What a star and the characters behind it matched first is never tried again:
    a later star can take what it could have."""
    groups: list[str] = [""]
    for place, atom in enumerate(atoms):
        if atom:
            groups[-1] += atom
        elif not place or atoms[place - 1]:
            groups.append("")
    if len(groups) == 1:
        return groups[0]
    begin, *between, end = groups
    return begin + "".join(f"(?>{_ANY}*?{x})" for x in between) + f"{_ANY}*{end}"
