"""The files below a folder, one by one, whatever their number.  Not in the paper."""

import dataclasses
import fnmatch
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cr_jax.data import gitignore
from cr_jax.data.finding import hidden
from cr_jax.errors import UserError
from cr_jax.host.inside import Inside

GITIGNORE_MOST = 1 << 20  # bytes


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which files of a folder are read.

    include, exclude: patterns with `*`, `?` and `[...]`, each compared with a file's name and with
    its path below the folder; a folder that `exclude` names is not entered.  gitignore: leave out
    what the .gitignore files there name.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    gitignore: bool = False

    def takes(self, path: str) -> bool:
        """Of a file, by its path below the folder."""
        return not _named(path, self.exclude) and (not self.include or _named(path, self.include))


def files_below(root: Path, wanted: Wanted = Wanted()) -> Iterator[Path | UserError]:
    """Regular files in the order of their names, folder by folder; a `UserError` stands in the
    place of a folder, or of a .gitignore, that cannot be read.

    Hidden names are passed over, links to folders are not followed, links to files are.
    """
    yield from _below(root, "", wanted, ())


def _below(folder: Path, path: str, wanted: Wanted, ignore) -> Iterator[Path | UserError]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield UserError(f"the folder {folder} cannot be read: {error.strerror}")
        return
    if wanted.gitignore:
        try:
            ignore = (*ignore, (path, _rules(folder)))
        except UserError as error:
            yield error
    for entry in entries:
        inside = path + entry.name
        if hidden(entry.name):
            continue
        is_folder = entry.is_dir(follow_symlinks=False)
        if wanted.gitignore and gitignore.ignored(inside, is_folder, ignore):
            continue
        if is_folder:
            if not _named(inside, wanted.exclude):
                yield from _below(folder / entry.name, f"{inside}/", wanted, ignore)
        elif _is_file(entry) and wanted.takes(inside):
            yield folder / entry.name


def _is_file(entry: os.DirEntry) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself
        return False


def _named(path: str, patterns: Sequence[str]) -> bool:
    name = path.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatchcase(x, p) for p in patterns for x in (name, path))


def _rules(folder: Path) -> list[gitignore.Rule]:
    """Of its .gitignore, as in git no link.  `UserError` for one that cannot be read."""
    try:
        with Inside.at(folder) as inside:
            if not inside.has(".gitignore"):
                return []
            data = inside.read(".gitignore", GITIGNORE_MOST)
    except OSError as error:
        raise UserError(f"{folder}/.gitignore cannot be read: {error.strerror}") from None
    return gitignore.rules(data.decode("utf-8-sig", "replace").split("\n"))
