"""A compiled step, and the memory that it reserves.  Not in the paper."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled step; call it like one.  progress: [E], or one number for all experts.

    memory: bytes that the compiler reserves on each device for a call, by what they are for:
    "state" (in and out, the same buffers), "batch" and "temporary"; None under pmap.
    compiled: whether it is compiled already, or will be in the first call.
    """

    run: Callable[[Any, Any, Any], tuple[Any, Any]]
    experts: int
    memory: dict[str, int] | None
    compiled: bool = True

    def __call__(self, state, batch, progress):
        return self.run(state, batch, np.full(self.experts, progress, np.float32))


def reserved(compiled) -> dict[str, int] | None:
    """What `Program.memory` says, read off a compiled program; None where it cannot be known."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    state = analysis.alias_size_in_bytes
    return {
        "state": state,
        "batch": analysis.argument_size_in_bytes - state,
        "temporary": analysis.temp_size_in_bytes + analysis.output_size_in_bytes - state,
    }
