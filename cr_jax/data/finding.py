"""Which files a path, a folder or a pattern names.  Not in the paper.

Linked folders are followed, each folder and file once: a link back up cannot make a loop, and a
file with two names cannot stand in train under one and in test under the other.  What is no file
(pipes, sockets, devices, links to nothing) is left out and counted.  An existing path wins over a
pattern, in every part of a path: `run[1]/*.txt` is looked for in the folder `run[1]` if there is
one.
"""

import fnmatch
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cr_jax.errors import UserError, turning

_NAMES = 3  # of what is left out that are said
_MANY = {"link to nothing": "links to nothing", "file that is not text": "files that are not text"}


class LeftOut:
    """What of a source was not read, counted by its kind."""

    def __init__(self):
        self.counts: Counter[str] = Counter()
        self.names: list[str] = []

    def add(self, name: str, kind: str) -> None:
        """`kind`: in the singular, as in "1 pipe"."""
        self.counts[kind] += 1
        if len(self.names) < _NAMES:
            self.names.append(name if name.isprintable() else repr(name))

    @property
    def line(self) -> str:
        """What was left out in words, with the first names; empty when nothing was."""
        if not self.counts:
            return ""
        kinds = [
            f"{count:,} {_MANY.get(kind, kind + 's') if count > 1 else kind}"
            for kind, count in sorted(self.counts.items())
        ]
        more = ", ..." if self.counts.total() > len(self.names) else ""
        return f"left out {', '.join(kinds)} ({', '.join(self.names)}{more})"


class _Place(NamedTuple):
    path: str
    linked: bool = False  # whether a link leads there from the fixed part of the pattern


def files_of(pattern: str, left_out: LeftOut, folders: bool = True) -> list[tuple[Path, str]]:
    """Sorted (path, name) pairs; a name does not depend on where the project or the folder lies.

    pattern: a file, a folder (all its files but hidden ones, if `folders`), or a path with `*`,
    `?`, `[...]` and `**`, which stands for any folders.  Names begin below the folder, or below the
    part of the path before the first pattern.  Empty when nothing matches; `UserError` when a
    folder cannot be read, or `pattern` itself is no file.
    """
    if os.path.isdir(pattern):
        if not folders:
            raise UserError(f"{pattern} is a folder; name its files, such as {pattern}/*")
        return _named(pattern, _files_below(pattern, left_out))
    if os.path.lexists(pattern):
        if (kind := _special(pattern)) is not None:
            raise UserError(
                f"{pattern} is a {kind}, which cannot be read as a source of text; "
                "write the text to a file"
            )
        return [(Path(pattern), os.path.basename(pattern))]
    root, rest = _fixed(pattern)
    places = []
    for place in _matches(_Place(root or "."), rest):
        if os.path.isdir(place.path):
            continue
        if (kind := _special(place.path)) is None:
            places.append(place)
        else:
            left_out.add(os.path.relpath(place.path, root or "."), kind)
    return _named(root or ".", places)


def walk(
    root: str, skip: Callable[[str], bool], follow: bool = True
) -> Iterator[tuple[_Place, list[os.DirEntry]]]:
    """Every folder from `root` down with what lies in it, folders and links to folders left out.

    skip: names that are passed over.  Links are followed after all else, so that a folder that
    lies here has its own name and not a link's.  `UserError` when a folder cannot be read.
    """
    seen, own, links = set(), [_Place(root)], []
    while own or links:
        place = own.pop() if own else links.pop(0)
        with _listing(place.path):
            about = os.stat(place.path)
            entries = sorted(os.scandir(place.path), key=lambda entry: entry.name)
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        inside = []
        for entry in entries:
            if skip(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                own.append(_Place(entry.path, place.linked))
            elif not _leads_to_a_folder(entry):
                inside.append(entry)
            elif follow:
                links.append(_Place(entry.path, True))
        yield place, inside


def _listing(path: str) -> turning:
    """Turns the errors of reading a folder into a `UserError`: its files would be lost."""
    return turning(
        lambda error: UserError(f"the folder {path} cannot be read: {error.strerror}"), OSError
    )


def hidden(name: str) -> bool:
    """Whether a name begins with a dot: patterns and folders pass over it."""
    return name.startswith(".")


def _leads_to_a_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:  # a link to itself
        return False


def _special(path: str) -> str | None:
    """What a path is that is no file; None for a file."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return "link to nothing"
    if stat.S_ISREG(mode):
        return None
    return "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"


def _files_below(root: str, left_out: LeftOut) -> Iterator[_Place]:
    for place, entries in walk(root, hidden):
        for entry in entries:
            kind = None if entry.is_file(follow_symlinks=False) else _special(entry.path)
            if kind is None:
                yield _Place(entry.path, place.linked or entry.is_symlink())
            else:
                left_out.add(os.path.relpath(entry.path, root), kind)


def _named(root: str, places: Iterable[_Place]) -> list[tuple[Path, str]]:
    """Each file once, by its name without a link where there is one, else by the shortest."""
    real_root, seen, named = os.path.realpath(root), set(), []
    own_first = lambda place: (place.linked, place.path.count("/"), place.path)
    for place in sorted(set(places), key=own_first):
        name = os.path.relpath(place.path, root)
        # Only links need be resolved: that takes a system call for each part of a path.
        real = os.path.realpath(place.path) if place.linked else os.path.join(real_root, name)
        if real not in seen:
            seen.add(real)
            named.append((Path(place.path), Path(name).as_posix()))
    return sorted(named, key=lambda pair: pair[1])


def _fixed(pattern: str) -> tuple[str, list[str]]:
    """The part of a pattern that is a path, and the parts that follow."""
    parts = [part for part in pattern.split("/") if part]
    root = "/" if pattern.startswith("/") else ""
    while parts and (not _magic(parts[0]) or os.path.lexists(os.path.join(root, parts[0]))):
        root = os.path.join(root, parts.pop(0))
    if not parts:
        return os.path.dirname(root), [os.path.basename(root)]
    return root, parts


def _magic(part: str) -> bool:
    return any(c in "*?[" for c in part)


def _matches(place: _Place, parts: list[str]) -> Iterator[_Place]:
    """What `parts` match below a folder."""
    if not parts:
        yield place
        return
    if not os.path.isdir(place.path):
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        for folder, entries in walk(place.path, hidden):
            linked = place.linked or folder.linked
            if not rest:
                yield from (_Place(entry.path, linked or entry.is_symlink()) for entry in entries)
            else:
                yield from _matches(_Place(folder.path, linked), rest)
        return
    if not _magic(part) or os.path.lexists(os.path.join(place.path, part)):
        names = [part] if os.path.lexists(os.path.join(place.path, part)) else []
    else:
        with _listing(place.path):
            names = [
                name
                for name in sorted(fnmatch.filter(os.listdir(place.path), part))
                if not hidden(name) or hidden(part)
            ]
    for name in names:
        path = os.path.join(place.path, name)
        yield from _matches(_Place(path, place.linked or os.path.islink(path)), rest)
