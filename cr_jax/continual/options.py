"""What a bank grows by: documents as they arrive, and the settings of a call.  Not in the paper."""

import dataclasses
from typing import Any, Literal, NamedTuple

from cr_jax.bank.files import check_name
from cr_jax.continual.evidence import RUN_LENGTH, SequentialTest
from cr_jax.continual.search import TOKENS
from cr_jax.errors import UserError


class Arrival(NamedTuple):
    """A document: its name for people; its text, a path, or what is wrong with it."""

    name: str
    text: Any


@dataclasses.dataclass(frozen=True)
class GrowOptions:
    """run_length: documents between false alarms, on average, at least.  tokens: that a new domain
    must have.  start: what a new expert begins with, the nearest expert or noise.  steps: of its
    training; 0: as its text allows.  name: of new experts (NAME, NAME-2, ...; default new-1, ...).
    `UserError` for what cannot be."""

    run_length: float = RUN_LENGTH
    tokens: int = TOKENS
    start: Literal["noise", "nearest"] = "nearest"
    steps: int = 0
    name: str = ""
    dry_run: bool = False

    def __post_init__(self):
        SequentialTest(self.run_length)
        if self.tokens < 1 or self.steps < 0:
            raise UserError("tokens must be at least 1, and steps 0 (as the text allows) or more")
        if self.start not in ("noise", "nearest"):
            raise UserError(f"start={self.start!r}: an expert begins with 'noise' or 'nearest'")
        if self.name:
            check_name(self.name)
