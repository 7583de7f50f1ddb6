"""How the processes of one run take turns and tell each other something.

Process 0 owns the workdir; the others read.  `cluster` joins them, `ending` ends them.  Not in the
paper.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from cr_jax.errors import UserError

T = TypeVar("T")


def is_first() -> bool:
    """Whether this process writes what only one may write."""
    return jax.process_index() == 0


def in_turn(make: Callable[[], T]) -> T:
    """Process 0 calls `make` while the others wait; then they call it too.  -> each its own value.

    A failure of process 0 ends the others with a `UserError` that points to it.
    """
    if jax.process_count() == 1:
        return make()
    if is_first():
        try:
            made = make()
        except BaseException:
            _all_agree(False)
            raise
        _all_agree(True)
        return made
    if not _all_agree(True):
        raise UserError("process 0 could not prepare the run; see its message")
    return make()


def from_first(make: Callable[[], T]) -> T:
    """What process 0's `make` returns, JSON types, on every process; the others do not call it.

    A failure of process 0 ends the others with a `UserError` that points to it.
    """
    if jax.process_count() == 1:
        return make()
    if not is_first():
        data = _sent(b"")
        if not data:
            raise UserError("process 0 could not prepare the run; see its message")
        return json.loads(data)
    try:
        data = json.dumps(make()).encode()
    except BaseException:
        _sent(b"")
        raise
    return json.loads(_sent(data))


def all_true(good: bool) -> bool:
    """Whether it is so on every process; also a meeting point."""
    if jax.process_count() == 1:
        return good
    from jax.experimental import multihost_utils

    return bool(np.all(multihost_utils.process_allgather(np.int32(good))))


def gathered(tree: Any) -> Any:
    """numpy arrays [P, ...] of all P processes; every one calls it with arrays of these shapes."""
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(tree)


def wait(name: str) -> None:
    """Until every process is here.  `name` says where, and is the same on all."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def _all_agree(good: bool) -> bool:
    """Process 0's answer, on every process; also a meeting point."""
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.int32(good)))


def _sent(data: bytes) -> bytes:
    """Process 0's bytes, on every process."""
    from jax.experimental import multihost_utils

    send = multihost_utils.broadcast_one_to_all
    size = int(send(np.int32(len(data))))
    raw = np.zeros(size, np.uint8)
    if is_first():
        raw[:] = np.frombuffer(data, np.uint8)
    return np.asarray(send(raw), np.uint8).tobytes() if size else b""
