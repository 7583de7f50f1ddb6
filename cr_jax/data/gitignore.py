"""What a .gitignore file leaves out: its patterns as git reads them.  Not in the paper."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Rule(NamedTuple):
    """One line.  keep: it begins with `!`; folders: it ends with `/` and means folders only."""

    pattern: re.Pattern[str]
    keep: bool
    folders: bool


def rules(lines: Iterable[str]) -> list[Rule]:
    """The rules of a file, in their order; what is no pattern is passed over.

    >>> [r.pattern.pattern for r in rules(["# comment", "*.py[co]", "/build/"])]
    ['(?:.*/)?[^/]*\\\\.py[co]', 'build']
    """
    found = []
    for line in lines:
        line = line.rstrip("\r\n")
        line = re.sub(r"(?<!\\) +$", "", line)
        if not line or line.startswith("#"):
            continue
        keep, line = line.startswith("!"), line.removeprefix("!").removeprefix("\\")
        folders, line = line.endswith("/"), line.rstrip("/")
        if not line:
            continue
        try:
            found.append(Rule(re.compile(_expression(line), re.DOTALL), keep, folders))
        except re.error:
            continue
    return found


def ignored(path: str, folder: bool, files: Sequence[tuple[str, Sequence[Rule]]]) -> bool:
    """Whether the last rule that names a path leaves it out.

    path: with `/`, below the outermost folder; files: (the folder of a .gitignore below the
    outermost, "" or with a `/` at its end; its rules), from the outermost in.
    """
    out = False
    for place, own in files:
        if not path.startswith(place):
            continue
        inside = path.removeprefix(place)
        for rule in own:
            if (folder or not rule.folders) and rule.pattern.fullmatch(inside):
                out = not rule.keep
    return out


def _expression(pattern: str) -> str:
    """A regular expression for paths below the folder of the .gitignore."""
    anywhere = "/" not in pattern
    parts = re.split(r"(\*\*/|/\*\*|\*|\?|\[!?\]?[^]]*\]|\\.)", pattern.removeprefix("/"))
    out = []
    for part in parts:
        if part == "**/":
            out.append("(?:.*/)?")
        elif part == "/**":
            out.append("/.*")
        elif part == "*":
            out.append("[^/]*")
        elif part == "?":
            out.append("[^/]")
        elif part.startswith("[") and part.endswith("]") and len(part) > 2:
            out.append("[" + ("^" + part[2:] if part[1] == "!" else part[1:]))
        else:
            out.append(re.escape(part.removeprefix("\\") if len(part) == 2 else part))
    return ("(?:.*/)?" if anywhere else "") + "".join(out)
