"""Watches one call of `cr-jax` in this process: what it says, writes, unpickles, and how long it
takes."""

import contextlib
import faulthandler
import functools
import io
import os
import resource
import signal
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.torture.probes import Probe, answer

SECONDS = 30.0  # after which a call hangs; many times what the slowest takes on a busy machine
_WRITES = {
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "os.utime",
}
_events: list[tuple[str, str]] | None = None  # of the call being watched


class Hang(BaseException):
    """Not an Exception: the code under test must not catch it."""


def call(
    main: Callable[[list[str]], int],
    argv: list[str],
    stdin: bytes,
    folders: tuple[Path, ...],
    reports: bool,
) -> tuple[int | None, list[str]]:
    """-> (exit status, what was wrong with the call; [] when all was well).

    folders: the only places that it may write to; reports: several lines on stderr, and a part of
    the output, are this command's way to refuse.
    """
    wrong, status = [], None
    out, err = _stream(), _stream()
    inner = types.SimpleNamespace(buffer=io.BytesIO(stdin))
    with _recorded() as events, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        kept, sys.stdin = sys.stdin, inner
        try:
            with _time_limit():
                status = main(argv)
        except Hang:
            wrong.append(f"no answer within {SECONDS:g} s")
        except BaseException as error:
            wrong.append(f"{type(error).__name__} at {_place(error)}: {str(error)[:200]}")
        finally:
            sys.stdin = kept
    said = [s.buffer.getvalue().decode("utf-8", "replace") for s in (out, err)]
    if not wrong:
        wrong += _judge(status, *said, reports)
    return status, wrong + _told(events, folders)


def _told(events: list[tuple[str, str]], folders: tuple[Path, ...]) -> list[str]:
    """What was unpickled, or written elsewhere."""
    wrong = []
    for event, path in events:
        if event == "pickle":
            wrong.append(f"unpickled {path}")
        elif not any(Path(path).is_relative_to(folder) for folder in folders):
            wrong.append(f"{event} outside: {path}")
    return wrong


def probe(one: Probe, folder: Path, writable: tuple[Path, ...]) -> tuple[int | None, list[str]]:
    """-> (2 where the probe was refused, 0 where it was answered, None where it ended otherwise;
    what was wrong).  folder: empty; a command inside the probe is watched on its own."""
    status = None
    with _recorded() as events:
        try:
            with _time_limit():
                status, wrong = answer(one, folder)
        except Hang:
            wrong = [f"no answer within {SECONDS:g} s"]
        except BaseException as error:
            wrong = [f"{type(error).__name__} at {_place(error)}: {str(error)[:200]}"]
    return status, wrong + _told(events, (folder, *writable))


@contextlib.contextmanager
def limited_memory(gigabytes: float) -> Iterator[None]:
    """So much more address space than now: what would take terabytes fails at once."""
    old = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + int(gigabytes * 2**30), old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, old)


@functools.cache
def install() -> None:
    """Starts to listen; audit hooks stay for the life of the process."""
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple) -> None:
    if _events is None:
        return
    if event == "pickle.find_class":
        _events.append(("pickle", ".".join(map(str, arguments))))
    elif event == "open":
        path, _mode, flags = arguments
        if isinstance(path, int) or not isinstance(flags, int):
            return
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            _note(event, path, _opening())
    elif event in ("os.remove", "os.rmdir", "os.mkdir"):
        _note(event, arguments[0], arguments[-1])
    elif event in ("os.rename", "os.link"):
        for path, folder in zip(arguments[:2], arguments[2:], strict=True):
            _note(event, path, folder)
    elif event in _WRITES:
        for path in arguments[:2]:
            if isinstance(path, (str, bytes, os.PathLike)):
                _note(event, path)


def _opening() -> int:
    """The open folder that a name is opened in: the event does not tell."""
    frame = sys._getframe(2)
    inside = frame.f_code.co_name == "open_inside"
    return frame.f_locals["folder"] if inside else -1


def _base(folder: int) -> str:
    return os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else os.getcwd()


def _note(event: str, path, folder: int = -1) -> None:
    whole = os.path.join(_base(folder), os.fsdecode(path))
    if whole != os.devnull:
        # The last part is not followed: what is replaced or deleted is the link itself.
        head, tail = os.path.split(whole)
        _events.append((event, os.path.join(os.path.realpath(head), tail)))


@contextlib.contextmanager
def _recorded() -> Iterator[list[tuple[str, str]]]:
    global _events
    around, _events = _events, []  # a probe may call a command
    try:
        yield _events
    finally:
        _events = around


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_):
        raise Hang

    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    # A loop inside C cannot be interrupted: then the whole process ends, and says where.
    faulthandler.dump_traceback_later(4 * SECONDS, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, old)


def _judge(status, out: str, err: str, reports: bool) -> list[str]:
    lines = err.splitlines()
    if status == 0:
        return [f"status 0, but on stderr: {lines[:1]}"] if err else []
    if status != 2:
        return [f"status {status}"]
    wrong = []
    if not lines or (len(lines) > 1 and not reports):
        wrong.append(f"{len(lines)} lines on stderr: {lines[:3]}")
    if not all(line.startswith("cr-jax: ") for line in lines):
        wrong.append(f"a line on stderr is not the command's: {lines[:3]}")
    if any(not c.isprintable() for line in lines for c in line):
        wrong.append(f"control characters on stderr: {err[:200]!r}")
    if out and not reports:
        wrong.append(f"status 2, but on stdout: {out[:100]!r}")
    return wrong


def _place(error: BaseException) -> str:
    trace, found = error.__traceback__, "?"
    while trace:
        code = trace.tb_frame.f_code
        if f"{os.sep}cr_jax{os.sep}" in code.co_filename:
            found = f"{code.co_filename.rpartition('cr_jax' + os.sep)[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
