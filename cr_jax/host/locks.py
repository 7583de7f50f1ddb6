"""One process at a time: a lock on a regular file, and what stands for it on disks without locks.

`flock` where it works; network disks want a regular file that is open for writing.  Where there is
none (ENOSYS, ENOLCK, ...), a file that only one process can make, `NAME.held`: a killed process
leaves it, and the message says what to delete.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import socket
import time
from collections.abc import Iterator

from cr_jax.errors import UserError
from cr_jax.host.inside import Inside

LOCK = ".lock"
HELD = f"{LOCK}.held"
GROWING = ".growing"  # of a bank: held for as long as it grows, beside `LOCK` for each change
GROWING_HELD = f"{GROWING}.held"
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}
_PAUSE = 0.02  # seconds between two looks


class Busy(UserError):
    """Another process holds the lock."""


@contextlib.contextmanager
def exclusive(folder: Inside, wait: float, busy: str, name: str = LOCK) -> Iterator[None]:
    """Holds a lock of a folder while the block runs.

    wait: seconds for which another process may hold it; busy: what `Busy` then says of it; name: of
    the lock's file.
    `OSError` where the lock's file cannot be written.
    """
    deadline = time.monotonic() + wait
    while True:
        with _opened(folder, name, os.O_RDWR | os.O_CREAT) as lock, contextlib.ExitStack() as stack:
            try:
                _flock(lock, fcntl.LOCK_EX, deadline, busy)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                stack.enter_context(_held(folder, f"{name}.held", deadline, busy))
            else:
                if not _is_named(folder, name, lock):
                    continue
            try:
                yield
            finally:
                # While it is held: who waits for it then sees that it is not the folder's any more.
                with contextlib.suppress(OSError):
                    folder.delete(name)
            return


def wait_until_free(folder: Inside, wait: float, busy: str) -> None:
    """Until nobody holds the lock, for who may not write in the folder.  `Busy` as in
    `exclusive`."""
    deadline = time.monotonic() + wait
    if folder.is_file(LOCK):
        with contextlib.suppress(OSError), _opened(folder, LOCK, os.O_RDONLY) as lock:
            _flock(lock, fcntl.LOCK_SH, deadline, busy)
    while folder.has(HELD):
        _pause(folder, HELD, deadline, busy)


@contextlib.contextmanager
def _opened(folder: Inside, name: str, flags: int) -> Iterator[int]:
    lock = folder.open(name, flags)
    try:
        yield lock
    finally:
        os.close(lock)


def _flock(lock: int, kind: int, deadline: float, busy: str) -> None:
    while True:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Busy(f"{busy}; wait for it or choose another folder") from None
        time.sleep(_PAUSE)


def _is_named(folder: Inside, name: str, lock: int) -> bool:
    """Whether the open file is still the folder's: else others lock another one."""
    try:
        return os.path.samestat(folder.stat(name), os.fstat(lock))
    except OSError:
        return False


@contextlib.contextmanager
def _held(folder: Inside, held: str, deadline: float, busy: str) -> Iterator[None]:
    owner = f"process {os.getpid()} on {socket.gethostname()}, {secrets.token_hex(8)}\n"
    while True:
        try:
            file = folder.open(held, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            break
        except FileExistsError:
            _pause(folder, held, deadline, busy)
    try:
        with os.fdopen(file, "w") as stream:
            stream.write(owner)
    except BaseException:
        folder.delete(held)
        raise
    try:
        yield
    finally:
        with contextlib.suppress(OSError, UserError):
            if folder.read(held) == owner.encode():  # not deleted by hand and taken by another
                folder.delete(held)


def _pause(folder: Inside, held: str, deadline: float, busy: str) -> None:
    if time.monotonic() < deadline:
        time.sleep(_PAUSE)
        return
    owner = "an unknown process"
    with contextlib.suppress(UserError):
        owner = folder.read(held, 1000).decode("utf-8", "replace").split(",")[0] or owner
    raise Busy(
        f"{busy}, as {held} there says ({owner}); this disk has no locks by which to know whether "
        f"it still does: if it has ended, delete {folder.path / held}"
    )
