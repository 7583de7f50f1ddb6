"""A bank's experts and its bigram models, made ready for routing many documents.

Not in the paper.
"""

import threading
from collections.abc import Callable, Iterable

from cr_jax.bank import ExpertBank
from cr_jax.bank.bigram_bank import BigramBank
from cr_jax.errors import UserError
from cr_jax.scoring.bigram import table, with_bigrams
from cr_jax.scoring.bigram_model import BigramModel, bits_without_loss


class Experts:
    """A bank's experts, each made ready when it is first needed.

    names: in the order of the expert axis; bigrams: their models, or none; load: reads some of them
    by name, or all for None.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        bigrams: tuple[BigramModel, ...],
        load: Callable[[tuple[str, ...] | None], ExpertBank],
    ):
        self.names, self._load = names, load
        # One program for all: tables of as many slots.
        self._bits = max((bits_without_loss(b.keys) for b in bigrams), default=0)
        self._lock = threading.Lock()
        self._wanted: set[str] = set()
        self._ready: dict[str | None, ExpertBank] = {}

    def want(self, names: Iterable[str]) -> None:
        """Says which will be needed, so that one reading of the bank is enough."""
        with self._lock:
            self._wanted |= set(names)

    def whole(self) -> ExpertBank:
        """All experts, stacked."""
        return self._made(None)

    def one(self, name: str) -> ExpertBank:
        """A bank of one expert."""
        return self._made(name)

    def some(self, names: tuple[str, ...]) -> ExpertBank:
        """Experts that were made ready, for what is not computed on the device."""
        if len(names) == len(self.names):
            return self.whole()
        first = self.one(names[0])
        experts = tuple(self.one(name).experts[0] for name in names)
        return first if len(names) == 1 else first.changed(experts=experts, folder=None)

    def _made(self, name):
        with self._lock:
            if name is None and None not in self._ready:
                self._ready[None] = self._load(None)
            elif name not in self._ready:
                wanted = self._wanted - self._ready.keys() | {name}
                bank = self._load(tuple(n for n in self.names if n in wanted))
                self._ready |= {n: self._alone(bank, n) for n in bank.names}
            return self._ready[name]

    def _alone(self, bank: ExpertBank, name: str) -> ExpertBank:
        alone = bank if len(bank.names) == 1 else bank.select((name,))
        if alone.scoring.bigram_weight:
            own = table([alone.bigrams[name]], self._bits)
            vars(alone)["weights"] = with_bigrams(alone.params, own)
        return alone


def experts_of(bank: ExpertBank) -> Experts:
    """The experts of a bank in memory."""
    bigrams = tuple(bank.bigrams.values())
    return Experts(bank.names, bigrams, lambda names: bank if names is None else bank.select(names))


def bigram_bank(bank: ExpertBank) -> BigramBank:
    """The bigram models of a bank in memory, with the screen that was stored with it when it was
    loaded.  `UserError` when that is damaged."""
    if isinstance(bank.screen, UserError):
        raise bank.screen
    bigrams = tuple(bank.bigrams[n] for n in bank.names if n in bank.bigrams)
    return BigramBank(
        bank.names,
        bigrams if len(bigrams) == len(bank.names) else (),
        bank.tokenizer,
        bank.model.window,
        bank.text_form,
        bank.screen,
        bank.folder,
    )
