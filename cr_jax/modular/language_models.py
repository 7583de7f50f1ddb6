"""A bank's language models, given out by place: a few at a time, read when they are needed.

Letters: E experts, G of them.
"""

import collections
from typing import Any

import jax
import numpy as np
from jaxtyping import Integer

from cr_jax.bank import ExpertBank, parameters
from cr_jax.bank.files import BankFolder, consistent
from cr_jax.bank.manifest import LM
from cr_jax.errors import UserError
from cr_jax.modular.options import LACKING, LEAST, NO_LMS, SEED_NAME
from cr_jax.modular.schedule import SEED
from cr_jax.modular.speakers import Models

UNTOLD = 512  # `config.modular.window` by default
KEPT = 4  # models that were read from the bank's folder and stay in the host's memory


class BankLms:
    """Language models of a bank, of any kind.  `UserError` for one that was made without any.

    config: their shape; has_seed; speakers: names of the experts that have a model.  Those of a
    bank that was loaded with lms=False stay on disk until they are asked for.
    """

    def __init__(self, bank: ExpertBank):
        if bank.lm is None:
            raise UserError(NO_LMS)
        self.config, self._bank = bank.lm, bank
        self._read: collections.OrderedDict[int, Any] = collections.OrderedDict()
        self._stored: dict[str | None, str] = {}  # on disk, None: the seed -> SHA-256
        if bank.folder is not None:
            self._stored = consistent(bank.folder, lambda files: _stored(files, bank.names))
        self.speakers = tuple(
            e.name for e in bank.experts if e.lm is not None or e.name in self._stored
        )
        self.has_seed = bank.seed_lm is not None or None in self._stored

    @property
    def window(self) -> int:
        """Tokens of a window of their training; `UNTOLD` where the bank does not say."""
        return self.config.window or UNTOLD

    def positions(self, asked: int) -> int:
        """That a model sees at most: those of its training unless others are asked for."""
        return asked or max(self.window, 2 * LEAST)

    @property
    def models(self) -> Models:
        """What `Speakers` and `spoken_nats` take, by place."""
        return Models(self.config, self.stack, self.count)

    @property
    def count(self) -> int:
        """Models that there are, the seed among them."""
        return len(self.speakers) + self.has_seed

    def place(self, name: str) -> int:
        """Of an expert in the bank, or `SEED`.  `UserError` when it has no language model."""
        if name == SEED_NAME:
            if not self.has_seed:
                raise UserError(
                    "the bank has no seed, a language model of all domains: name an expert"
                )
            return SEED
        place = self._bank.index(name)
        if name not in self.speakers:
            raise UserError(f"expert {name!r} has no language model: name another, or {LACKING}")
        return place

    def check_any(self) -> None:
        """`UserError` when no expert and no seed has a language model."""
        if not self.count:
            raise UserError(f"no expert of the bank has a language model: {LACKING}")

    def params(self, place: int) -> Any:
        """One model's parameters, on the host.  `UserError` when its file was changed."""
        held = self._bank.seed_lm if place == SEED else self._bank.experts[place].lm
        if held is not None:
            return held
        if place in self._read:
            self._read.move_to_end(place)
            return self._read[place]
        while len(self._read) >= KEPT:
            self._read.popitem(last=False)
        self._read[place] = self._from_disk(place)
        return self._read[place]

    def stack(self, places: Integer[np.ndarray, " G"]) -> Any:
        """Parameters [G, ...] on the host."""
        return jax.tree.map(lambda *x: np.stack(x), *(self.params(p) for p in places.tolist()))

    def _from_disk(self, place: int) -> Any:
        name = None if place == SEED else self._bank.names[place]

        def read(files: BankFolder) -> Any:
            if _stored(files, () if name is None else (name,)).get(name) != self._stored[name]:
                raise UserError(
                    f"the bank {files.path} was changed since it was loaded: load it again"
                )
            sealed = files.sealed_seed() if name is None else files.sealed_expert(name)
            return parameters.read(sealed, LM, self.config)

        return consistent(self._bank.folder, read)


def _stored(files: BankFolder, names: tuple[str, ...]) -> dict[str | None, str]:
    """SHA-256 of the language models of these experts that have one, and of the seed."""
    found = {n: files.sealed_expert(n).manifest.files for n in names if n in files.names}
    if (seed := files.sealed_seed()) is not None:
        found[None] = seed.manifest.files
    return {name: listed[LM] for name, listed in found.items() if LM in listed}
