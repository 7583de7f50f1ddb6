"""The exception that a user is meant to read, the line that tells it, and the failure that is
nobody's here.

That line goes to stderr and cannot steer a terminal.
"""

import contextlib
import re
import sys
from collections.abc import Callable
from typing import Any

MOST = 500  # characters of a problem's line
# Control characters but tab and line feed, and those that turn the direction of writing.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_TRANSPORT = re.compile(r"gloo|nccl|coordination|distributed service", re.IGNORECASE)
_GONE = re.compile(
    r"(closed|reset) by peer|broken pipe|socket closed|connection refused|timed? ?out|unhealthy"
    r"|remote (process|error)|unavailable|deadline_exceeded",
    re.IGNORECASE,
)


class UserError(ValueError):
    """Bad input: its message is one line that says what is wrong and what to change.

    `main.py` and `cr-jax` print the message without a traceback and exit with status 2.  File names
    in it may hold anything: whatever a terminal would not show as a character is escaped.

    >>> try:
    ...     raise UserError("give a number")
    ... except ValueError as error:
    ...     print(error)
    give a number
    """

    def __str__(self) -> str:
        return "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode() for c in super().__str__()
        )


class turning:
    """`with turning(told, OSError):` raises `told(error)`, from the error, for an error in the
    block that is of one of these kinds, or of any where none is named.

    told: gives None for what is raised as it is.  No `contextlib.contextmanager`: from Python 3.12
    on, an error that a generator turns into another one lies in a cycle, and keeps what its callers
    hold, open files too, until the next garbage collection.
    """

    def __init__(self, told: Callable[[Any], Exception | None], *kinds: type[BaseException]):
        self._told, self._kinds = told, kinds or (BaseException,)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        other = self._told(error) if isinstance(error, self._kinds) else None
        if other is not None:
            try:
                raise other from error
            finally:
                del other  # whose traceback holds this frame


def lost_peer(error: BaseException | None) -> str | None:
    """What a collective said that failed because another process of the run is gone, in one line.

    None for any other error.  JAX has no type for it: it raises `JaxRuntimeError` or `ValueError`
    with the transport's words.
    """
    while error is not None:
        text = str(error)
        if _TRANSPORT.search(text) and _GONE.search(text):
            return " ".join(text.split())[:200]
        error = error.__cause__ or error.__context__
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether the host or a device had not enough memory.  JAX, which need not be imported here,
    has no type for it, and names its errors by the version."""
    return isinstance(error, MemoryError) or (
        type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
        and "RESOURCE_EXHAUSTED" in str(error)
    )


def printable(text: str) -> str:
    """`text` on one line and without control characters, which could steer a terminal."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def one_line(message: object) -> str:
    """A message on one line of at most `MOST` characters, as `printable`."""
    line = printable(" ".join(str(message).split()))
    return line if len(line) <= MOST else f"{line[: MOST - 4]} ..."


def complain(program: str, message: object) -> int:
    """Writes `PROGRAM: MESSAGE` in one line to stderr, where that can be written; -> status 2."""
    if sys.stderr is not None:  # print would take stdout instead
        with contextlib.suppress(OSError, ValueError):
            print(f"{program}: {one_line(message)}", file=sys.stderr, flush=True)
    return 2
