"""Inputs of a library call with their right answers.

A `Probe` is refused by a `UserError`, or its call says what was wrong: nothing where what was read
is exactly what was written.  So a text that is lost without a word is a failure, as a traceback is.
"""

import dataclasses
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from cr_jax.errors import UserError

Input = TypeVar("Input")


@dataclasses.dataclass(frozen=True)
class Probe:
    """One input.  what: it in words; call(empty folder): what was wrong, or a `UserError`; refused:
    whether that is right (None: either is)."""

    kind: str
    what: str
    call: Callable[[Path], Sequence[str]]
    refused: bool | None = None


def differences(said: Sequence[str], written: Sequence[str]) -> list[str]:
    """What was lost or changed on the way from a file to its documents."""
    if list(said) == list(written):
        return []
    return [f"read {list(map(ascii, said))[:3]}, written {list(map(ascii, written))[:3]}"[:300]]


def answer(probe: Probe, folder: Path) -> tuple[int, list[str]]:
    """-> (2 where it was refused, else 0, what was wrong)."""
    try:
        wrong = list(probe.call(folder))
    except UserError as error:
        wrong = [] if str(error) else ["refused without a word"]
        if probe.refused is False:
            wrong.append(f"refused: {str(error)[:200]}")
        return 2, wrong
    if probe.refused and not wrong:
        wrong = ["answered, though it should be refused"]
    return 0, wrong


def some(inputs: Sequence[Input], count: int, number: int) -> list[Input]:
    """`count` of the inputs or, if there are fewer, all; others for another number."""
    return random.Random(number).sample(list(inputs), min(count, len(inputs)))
