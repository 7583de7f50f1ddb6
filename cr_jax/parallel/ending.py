"""How a process of several ends: never alone, and never waiting for one that is gone.

Not in the paper.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from typing import NoReturn

from cr_jax.errors import lost_peer

LOST = 75  # exit status when another process is gone; "try again" of sysexits.h
started = threading.Event()  # this process is, or tried to become, one of several
_told = threading.Lock()  # taken by the thread that tells of a lost process


def leave(status: int) -> None:
    """Ends a failed process of several at once with `status`; returns when there is nothing to do.

    Exit handlers would wait minutes for peers that wait in a collective for this process.
    """
    if status and started.is_set():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def crash(kind, value, trace) -> None:
    """`sys.excepthook` of a process of several."""
    reason = lost_peer(value)
    if reason:
        _end_without_peer(f"another process of this run is gone ({reason})")
    sys.__excepthook__(kind, value, trace)
    leave(1)


def _end_without_peer(what: str) -> NoReturn:
    """One line, status `LOST`; of two threads that notice only the first one speaks."""
    if _told.acquire(blocking=False):
        line = (
            f"error: {what}; start all processes again with the same command: the run goes on "
            "from its newest checkpoint\n"
        )
        with contextlib.suppress(OSError):  # stderr may be gone as well
            # Past Python's buffers, whose locks another thread may hold.
            os.write(2, line.encode("utf-8", "backslashreplace"))
        os._exit(LOST)
    while True:
        time.sleep(1)


def hear_abort() -> None:
    """JAX's heartbeat thread ends a process without its peers by abort(), behind a C++ stack.

    Python's own signal handlers run too late for that: abort() ends the process when the C handler
    returns.
    """

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def heard(number):
        _end_without_peer(
            "this process was aborted, most likely because another one of this run "
            "is gone (see the lines above)"
        )

    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(heard, ctypes.c_void_p))
    hear_abort.kept = heard  # C does not count references
