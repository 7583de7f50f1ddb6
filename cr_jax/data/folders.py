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
    folders: list[_Folder] = []  # from the root in: no recursion, they may lie deeper than it goes
    entering: _Folder | None = _Folder(root, "", ())
    while entering or folders:
        if entering:
            yield from entering.open(wanted)
            folders.append(entering)
        folder, entering = folders[-1], None
        entry = next(folder.entries, None)
        if entry is None:
            folders.pop()
            continue
        path = folder.path + entry.name
        if hidden(entry.name):
            continue
        is_folder = entry.is_dir(follow_symlinks=False)
        if wanted.gitignore and gitignore.ignored(path, is_folder, folder.ignore):
            continue
        if is_folder:
            if not _named(path, wanted.exclude):
                entering = _Folder(folder.place / entry.name, f"{path}/", folder.ignore)
        elif _is_file(entry) and wanted.takes(path):
            yield folder.place / entry.name


@dataclasses.dataclass
class _Folder:
    """place: where it is; path: below the outermost, "" or with a `/` at its end; ignore: the rules
    that count in it; entries: those not yet looked at."""

    place: Path
    path: str
    ignore: tuple[tuple[str, Sequence[gitignore.Rule]], ...]
    entries: Iterator[os.DirEntry] = dataclasses.field(default_factory=lambda: iter(()))

    def open(self, wanted: Wanted) -> Iterator[UserError]:
        """Lists it; yields what cannot be read."""
        try:
            self.entries = iter(sorted(os.scandir(self.place), key=lambda entry: entry.name))
        except OSError as error:
            yield UserError(f"the folder {self.place} cannot be read: {error.strerror}")
            return
        if wanted.gitignore:
            try:
                if rules := _rules(self.place):
                    self.ignore = (*self.ignore, (self.path, rules))
            except UserError as error:
                yield error


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
