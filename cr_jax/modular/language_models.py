"""A bank's language models, given out by place: a few at a time, read when they are needed.

Letters: E experts, G of them.
"""

import collections
from typing import Any

import jax
import numpy as np
from jaxtyping import Integer

from cr_jax.bank import ExpertBank
from cr_jax.errors import UserError
from cr_jax.models.lm import grouped
from cr_jax.modular.options import LACKING, NO_LMS
from cr_jax.modular.schedule import SEED

SEED_NAME = "seed"
_KEPT = 4  # models that were read from the bank's folder and stay in the host's memory


class BankLms:
    """Language models of a bank.  `UserError` when it has none, or of a kind that cannot speak.

    config: their shape; has_seed; speakers: names of the experts that have a model.  A bank that
    was loaded with lms=False stays on disk: `stack` reads what it is asked for.
    """

    def __init__(self, bank: ExpertBank):
        if bank.lm is None:
            raise UserError(NO_LMS)
        grouped.check_kind(bank.lm)
        self.config, self._bank = bank.lm, bank
        self._read: collections.OrderedDict[int, Any] = collections.OrderedDict()
        self.speakers = tuple(e.name for e in bank.experts if e.lm is not None)
        self.has_seed = bank.seed_lm is not None
        if not self.speakers and not self.has_seed:
            raise UserError(f"no expert of the bank has a language model: {LACKING}")

    @property
    def count(self) -> int:
        """Models that there are, the seed among them."""
        return len(self.speakers) + self.has_seed

    def place(self, name: str) -> int:
        """Of an expert in the bank, or `SEED`.  `UserError` when it has no language model."""
        if name == SEED_NAME:
            if not self.has_seed:
                raise UserError(
                    "the bank has no seed, a language model of all domains: name one of its "
                    f"experts, {', '.join(self.speakers)}"
                )
            return SEED
        place = self._bank.index(name)
        if name not in self.speakers:
            raise UserError(
                f"expert {name!r} has no language model: name one of "
                f"{', '.join(self.speakers) or SEED_NAME}, or {LACKING}"
            )
        return place

    def name(self, place: int) -> str:
        """The inverse of `place`."""
        return SEED_NAME if place == SEED else self._bank.names[place]

    def params(self, place: int) -> Any:
        """One model's parameters, on the host."""
        return self._bank.seed_lm if place == SEED else self._bank.experts[place].lm

    def stack(self, places: Integer[np.ndarray, " G"]) -> Any:
        """Parameters [G, ...] on the host."""
        return jax.tree.map(lambda *x: np.stack(x), *(self.params(p) for p in places.tolist()))
