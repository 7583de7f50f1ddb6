"""How far the files of a source are read, for a progress bar: nobody else has to know of it."""

import contextlib
import contextvars
import io
import os
from collections.abc import Callable, Iterator

_told: contextvars.ContextVar[Callable[[int], None] | None] = contextvars.ContextVar(
    "told", default=None
)


@contextlib.contextmanager
def told(on_bytes: Callable[[int], None] | None) -> Iterator[None]:
    """Files that are opened in this block tell `on_bytes` of each read; None: no one."""
    before = _told.set(on_bytes)
    try:
        yield
    finally:
        _told.reset(before)


def opened(path: str | os.PathLike) -> io.BufferedReader:
    """`open(path, "rb")`; OSError as it raises it."""
    on_bytes = _told.get()
    if on_bytes is None:
        return open(path, "rb")
    return io.BufferedReader(_Heard(path, on_bytes))


class _Heard(io.FileIO):
    def __init__(self, path, on_bytes: Callable[[int], None]):
        super().__init__(path)
        self._on_bytes = on_bytes

    def readinto(self, buffer) -> int | None:
        count = super().readinto(buffer)
        self._on_bytes(count or 0)
        return count

    def read(self, size=-1) -> bytes | None:
        data = super().read(size)
        self._on_bytes(len(data or b""))
        return data

    def readall(self) -> bytes | None:
        data = super().readall()
        self._on_bytes(len(data or b""))
        return data
