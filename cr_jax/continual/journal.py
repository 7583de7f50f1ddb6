"""What a growing bank has seen and done, one JSON line each, in a file that is only added to.

A line is there whole or not at all: what a killed process left of its last one is cut off by the
next.  Everything that the grower knows of earlier documents follows from these lines.  Not in the
paper.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cr_jax.bank.files import CannotWrite
from cr_jax.errors import UserError
from cr_jax.host.inside import Inside

NAME = "journal.jsonl"
Event = Mapping[str, Any]


class Journal:
    """The lines of a folder; `dry`: those that are added stay in memory.

    `UserError` where a line in the middle is none.
    """

    def __init__(self, folder: Inside | None, dry: bool = False):
        self._folder, self._dry = folder, dry
        self.events = list(self._read())

    def add(self, event: Event) -> None:
        """Writes one line.  `CannotWrite` where the disk refuses: then there is none of it."""
        if not self._dry:
            assert self._folder is not None
            line = json.dumps(event, allow_nan=False).encode() + b"\n"
            try:
                self._append(line)
            except OSError as error:
                raise cannot_write(self._folder.path / NAME, error) from error
        self.events.append(event)

    def damaged(self, number: int) -> UserError:
        """What is said of a line, counted from 1, that cannot be."""
        assert self._folder is not None
        return _damaged(self._folder.path / NAME, number)

    def _append(self, line: bytes) -> None:
        file = self._folder.open(NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            size = os.fstat(file).st_size
            try:
                if os.write(file, line) < len(line):
                    raise OSError(28, "No space left on device")
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(file, size)
                raise
        finally:
            os.close(file)

    def _read(self) -> Iterator[Event]:
        if self._folder is None or not self._folder.has(NAME):
            return
        with self._folder.reading(NAME) as stream:
            whole = 0
            for number, line in enumerate(stream, 1):
                if not line.endswith(b"\n"):
                    break
                yield _parsed(line, number, self._folder.path / NAME)
                whole += len(line)
        if not self._dry and whole < self._folder.stat(NAME).st_size:
            try:
                with os.fdopen(self._folder.open(NAME, os.O_RDWR), "r+b") as stream:
                    stream.truncate(whole)
            except OSError as error:
                raise cannot_write(self._folder.path / NAME, error) from error


def cannot_write(path: Path | str, error: OSError) -> CannotWrite:
    return CannotWrite(
        f"cannot write {path}: {error.strerror or error}; make room there or allow writing, then "
        "run the same command to go on"
    )


def _parsed(line: bytes, number: int, path: Path) -> Event:
    try:
        event = json.loads(line)
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            return event
    except (ValueError, RecursionError):
        pass
    raise _damaged(path, number)


def _damaged(path: Path, number: int) -> UserError:
    return UserError(f"{path}: line {number} is damaged: restore the file from a copy")
