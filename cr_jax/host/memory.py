"""How much memory there is, to say beforehand that something cannot fit, and how many cores."""

import contextlib
import os
import resource
from pathlib import Path

from cr_jax.errors import UserError

# Of a container: version 2 of control groups, version 1.
_CONTROL = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def limit() -> int:
    """Bytes of memory that this process can have at most: the machine's, its container's, its own
    limit."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for place in _CONTROL:
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            found.append(int(Path(place).read_text()))
    own = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min(found + ([] if own == resource.RLIM_INFINITY else [own]))


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check(need: int, what: str, advice: str, there: int | None = None) -> None:
    """`UserError` when `what` needs more bytes than there are.

    need: a lower bound; advice: what to change; there: bytes of another memory than this
    process's.
    """
    there = limit() if there is None else there
    if need > there:
        raise UserError(
            f"{what} takes at least {need / 1e9:,.1f} GB of memory, and there is "
            f"{there / 1e9:,.1f} GB: {advice}"
        )
