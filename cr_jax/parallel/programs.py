"""Programs that a process has compiled, for its next run of the same kind.  Not in the paper.

A process that trains again, as a bank that grows does and a study of many arms, needs no second
trace of a step that it has: of a small model, tracing and compiling take longer than training.
"""

import collections
import functools
import threading
from collections.abc import Callable, Hashable
from typing import Any

import jax

KEPT = 32  # the latest ones; a program holds no arrays

_kept: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()
_lock = threading.Lock()


def once(make: Callable, key: tuple, build: Callable[[], Any]) -> Any:
    """`build()`, or what it gave for the same `make` and `key`.

    make: the pure function that is compiled.  Two are the same that are `functools.partial`s of one
    function with equal arguments; of any other, as of one with arguments that have no hash, nothing
    is kept.  key: all else that `build` depends on.
    """
    if not isinstance(make, functools.partial):
        return build()
    key = (make.func, make.args, tuple(sorted(make.keywords.items())), *key)
    try:
        hash(key)
    except TypeError:
        return build()
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    made = build()
    with _lock:
        _kept[key] = made
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return made


def forget() -> None:
    """Drops all programs: for tests that change what a program was traced from."""
    with _lock:
        _kept.clear()


def shapes(tree: Any) -> tuple:
    """A tree's structure, and its leaves' shapes, types and places: what a trace depends on."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((x.shape, x.dtype, getattr(x, "sharding", None)) for x in leaves)
