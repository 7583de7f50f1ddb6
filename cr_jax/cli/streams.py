"""Streams that are closed, full or broken: nothing that a program says can end its work by an
exception of the stream.  The caller is told once, and the rest goes nowhere.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


class OutputLost(Exception):
    """Standard output takes nothing any more; the message says why."""


@contextlib.contextmanager
def guarded(lost: Callable[[str], None]) -> Iterator[None]:
    """Inside, stdout and stderr never raise an error of their own.

    lost(why) is called when stdout fails for the first time and may raise; what is written to
    stderr in vain is dropped.  A program calls it before anything opens a file: a closed 0, 1 or 2
    would be given to that file, and lines of libraries would be written into it.
    """
    _fill_descriptors()
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Guarded(kept[0], lost), _Guarded(kept[1], lambda why: None)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OutputLost, AttributeError):
                stream.flush()
        sys.stdout, sys.stderr = kept


def need_stdout() -> None:
    """Inside `guarded`: tells at once what a first line would tell of a closed stdout."""
    if isinstance(sys.stdout, _Guarded) and sys.stdout.closed:
        sys.stdout.write("")


class _Guarded:
    """A text stream whose failures are told to `lost` once; None: a stream that is closed."""

    def __init__(self, stream: Any, lost: Callable[[str], None]):
        self._stream, self._lost = stream, lost
        with contextlib.suppress(AttributeError, ValueError, OSError):
            # Names that are no text, and terminals that know few characters.
            stream.reconfigure(errors="backslashreplace")

    @property
    def closed(self) -> bool:
        return self._stream is None or getattr(self._stream, "closed", False)

    def write(self, text: str) -> int:
        if self.closed:
            self._fail("it is closed")
        else:
            with self._watched():
                self._stream.write(text)
        return len(text)

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if not self.closed:
            with self._watched():
                self._stream.flush()

    def isatty(self) -> bool:
        return not self.closed and self._stream.isatty()

    def fileno(self) -> int:
        if self.closed:
            raise OSError("a closed stream has no descriptor")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: closed in the meantime
            self._drop_rest()
            self._fail(getattr(error, "strerror", None) or str(error))

    def _drop_rest(self) -> None:
        """What is still buffered must not raise again, here or at exit."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            number = self._stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)

    def _fail(self, why: str) -> None:
        lost, self._lost = self._lost, lambda why: None
        lost(why)


def _fill_descriptors() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            if (opened := os.open(os.devnull, os.O_RDWR)) != number:
                os.close(opened)
