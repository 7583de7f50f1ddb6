"""A folder that somebody else may have filled: only what lies inside it is read, written or
deleted.

`open_inside` opens one name in an open folder, a regular file or a folder, never through a link; a
FIFO, a socket or a device is refused and not waited for.  `Inside` does everything by it.  The
folder itself may be named through links: that name is the user's own.
"""

import contextlib
import errno
import hashlib
import io
import os
import re
import secrets
import stat
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from cr_jax.errors import UserError
from cr_jax.host.files import FORMAT, expanded, parse_json, parse_sealed, readable, sealed

JSON_MOST = 1 << 23  # bytes of a JSON file
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class NotInside(UserError):
    """A link, or something that is neither a file nor a folder, or a name that leads elsewhere."""


def open_inside(folder: int, name: str, flags: int = os.O_RDONLY, where: Path | str = "") -> int:
    """Descriptor of the file `name` in an open folder, or of the folder with `os.O_DIRECTORY`.

    where: the folder's path, for messages.  Raises `NotInside` for what is none, `OSError` as the
    system gives it.
    """
    path = Path(where) / name
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise NotInside(f"{path} is no name inside {where}: write the folder again")
    wanted = stat.S_ISDIR if flags & os.O_DIRECTORY else stat.S_ISREG
    # Looked at before it is opened: to open a device or a FIFO can have effects.
    with contextlib.suppress(FileNotFoundError):
        _check(wanted, os.stat(name, dir_fd=folder, follow_symlinks=False), path)
    opened = os.open(name, flags | _FILE, 0o666, dir_fd=folder)
    try:
        _check(wanted, os.fstat(opened), path)
    except BaseException:
        os.close(opened)
        raise
    return opened


def _check(wanted, found: os.stat_result, path: Path) -> None:
    if not wanted(found.st_mode):
        what = (
            "a link"
            if stat.S_ISLNK(found.st_mode)
            else "a folder"
            if stat.S_ISDIR(found.st_mode)
            else "a file"
            if stat.S_ISREG(found.st_mode)
            else "neither a file nor a folder"
        )
        raise NotInside(
            f"{path} is {what}: only files and folders of its own are read, written or deleted "
            "here; put a copy in its place"
        )


class Inside:
    """An open folder and what is below it.  Methods that read raise `UserError`, those that write
    `OSError`, both `NotInside`.  Closed when nobody holds it any more.

    path: by which it was found, for messages; it may lead elsewhere by now (`still_there`).
    """

    def __init__(self, path: Path, folder: int):
        self.path, self._folder = path, folder
        self._close = weakref.finalize(self, os.close, folder)

    @classmethod
    def at(cls, path: str | os.PathLike) -> "Inside":
        """The folder that a user names, also through links.  `OSError` when it cannot be opened."""
        path = expanded(path)
        return cls(path, os.open(path, _FOLDER))

    def __enter__(self) -> "Inside":
        return self

    def __exit__(self, *_) -> None:
        self._close()

    def still_there(self) -> bool:
        """Whether the path still leads to this folder."""
        try:
            if os.path.samestat(os.stat(self.path), os.fstat(self._folder)):
                return True
            # Disks without lasting numbers of files: what is written here is seen there.
            probe = self.draft("place", b"")
            try:
                return os.path.lexists(self.path / probe)
            finally:
                self.delete(probe)
        except OSError:
            return False

    def folder(self, name: str) -> "Inside":
        path = self.path / name
        with readable(path):
            return Inside(path, open_inside(self._folder, name, _FOLDER, self.path))

    def new_folder(self, name: str) -> "Inside":
        """Makes it; `OSError` where something has that name."""
        os.mkdir(name, dir_fd=self._folder)
        return Inside(self.path / name, open_inside(self._folder, name, _FOLDER, self.path))

    def writing(self, name: str) -> BinaryIO:
        """A new file; `OSError` where something has that name."""
        return os.fdopen(self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """`open_inside` of this folder."""
        return open_inside(self._folder, name, flags, self.path)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[io.BufferedReader]:
        """An open file."""
        with readable(self.path / name), os.fdopen(self.open(name), "rb") as stream:
            yield stream

    def read(self, name: str, most: int = JSON_MOST) -> bytes:
        """All bytes of a file.  `UserError` for more than `most`."""
        with self.reading(name) as stream:
            return bounded(stream, most, self.path / name)

    def read_json(self, name: str) -> Any:
        return parse_json(self.read(name), self.path / name)

    def read_sealed(self, name: str, version: int = FORMAT) -> dict[str, Any]:
        """As `files.read_sealed`."""
        return parse_sealed(self.read(name), self.path / name, version)

    def sha256(self, name: str) -> str:
        """Hex SHA-256 of a file, read in blocks."""
        with self.reading(name) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def names(self) -> list[str]:
        """Of everything in the folder, sorted."""
        with readable(self.path):
            return sorted(os.listdir(self._folder))

    def stat(self, name: str) -> os.stat_result:
        """Of the file, folder or link itself."""
        return os.stat(name, dir_fd=self._folder, follow_symlinks=False)

    def is_file(self, name: str) -> bool:
        return self._is(stat.S_ISREG, name)

    def is_folder(self, name: str) -> bool:
        return self._is(stat.S_ISDIR, name)

    def has(self, name: str) -> bool:
        """Whether anything has that name, be it a link that leads nowhere."""
        return self._is(lambda mode: True, name)

    def write(self, name: str, data: bytes) -> None:
        """Writes a file beside its place, then renames: all of it or nothing."""
        draft = self.draft(name, data)
        try:
            self.rename(draft, name)
        except BaseException:
            self.delete(draft)
            raise

    def write_sealed(self, name: str, value: Mapping[str, Any]) -> None:
        """As `files.write_sealed`."""
        self.write(name, sealed(value))

    def draft(self, name: str, data: bytes) -> str:
        """Writes a new file that nobody else knows; -> its name, made from `name`."""
        draft = draft_name(name)
        try:
            with self.writing(draft) as stream:
                stream.write(data)
        except BaseException:
            self.delete(draft)
            raise
        return draft

    def rename(self, name: str, new: str, into: "Inside | None" = None) -> None:
        """Within the folder or into another one; a file of the new name gives way."""
        place = self if into is None else into
        os.replace(name, new, src_dir_fd=self._folder, dst_dir_fd=place._folder)

    def delete(self, name: str) -> None:
        """Deletes a file, or a link and not what it leads to; none there is well, too."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._folder)

    def delete_folder(self, name: str) -> bool:
        """Deletes an empty folder; -> False where it is not empty."""
        try:
            os.rmdir(name, dir_fd=self._folder)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        return True

    def sweep(self) -> None:
        """Deletes drafts of files that killed processes left here; for who holds the lock."""
        for name in self.names():
            if is_draft(name) and self.is_file(name):
                with contextlib.suppress(OSError):
                    self.delete(name)

    def _is(self, kind: Callable[[int], bool], name: str) -> bool:
        try:
            return kind(self.stat(name).st_mode)
        except (OSError, ValueError):
            return False


def bounded(stream: BinaryIO, most: int, path: Path) -> bytes:
    """The rest of an open file.  `UserError` for more than `most` bytes."""
    data = stream.read(most + 1)
    if len(data) > most:
        raise UserError(
            f"{path} is larger than what it should hold ({most:,} bytes): restore it from a copy "
            "or write it again"
        )
    return data


def draft_name(name: str) -> str:
    """A hidden name that nobody else has, for what is to be called `name`.

    Not by the number of the process: two containers on one disk give out the same numbers.
    """
    return f".{name[:100]}.{secrets.token_hex(8)}"


def is_draft(name: str, of: str | None = None) -> bool:
    """Whether `draft_name` gives such names; of: for that name."""
    found = re.fullmatch(r"\.(.+)\.[0-9a-f]{16}", name, re.DOTALL)
    return found is not None and (of is None or found[1] == of[:100])
