"""Who speaks next, judged by the bank's router on the text so far.  Not in the paper.

    tokens so far -> router.route of the last of them -> Decision

The judged text is what stands already, never what will be said.
"""

import dataclasses

import numpy as np
from jaxtyping import Int

from cr_jax.bank import ExpertBank
from cr_jax.data.windows import windows_of
from cr_jax.errors import UserError
from cr_jax.modular.language_models import BankLms
from cr_jax.modular.options import SEED_NAME
from cr_jax.router import route
from cr_jax.scoring.batching import BatchSizes

SEED_ALONE = (SEED_NAME,)


@dataclasses.dataclass(frozen=True)
class Decision:
    """experts: who speaks, the likeliest first, several of a mixture; `SEED_NAME` is the seed.

    known: whether the router takes the text for these experts' own; None: it did not say.
    reason: why, in a few words.
    """

    experts: tuple[str, ...]
    known: bool | None
    reason: str


@dataclasses.dataclass(frozen=True)
class Judge:
    """What decides.  prefix: tokens below which nothing is decided; memory: the last tokens that
    are judged; mix: experts that speak together."""

    bank: ExpertBank
    lms: BankLms
    prefix: int
    memory: int
    mix: int = 1
    sizes: BatchSizes | None = None

    def first(self, text: Int[np.ndarray, " N"]) -> Decision:
        """Who begins.  Text that no expert knows, or too little of it, is the seed's.

        `UserError` for a bank without a seed when there is no text at all.
        """
        if len(text) < self.prefix:
            why = f"{len(text)} tokens are too few to judge" if len(text) else "there is no text"
            if self.lms.has_seed:
                return Decision(SEED_ALONE, None, why)
            if not len(text):
                raise UserError(
                    "an empty prompt is the seed's to begin, and the bank has none: give some "
                    "text, or name an expert"
                )
            return dataclasses.replace(self._nearest(text), known=None, reason=why)
        decision = self._nearest(text)
        if decision.known is False and self.lms.has_seed:
            return Decision(SEED_ALONE, False, decision.reason)
        return decision

    def again(self, text: Int[np.ndarray, " N"], now: Decision) -> Decision:
        """Who goes on.  An expert takes over only text that it knows."""
        if len(text) < self.prefix:
            return now
        decision = self._nearest(text)
        return now if decision.known is False else decision

    def _nearest(self, text) -> Decision:
        judged = windows_of(
            text[-self.memory :], self.bank.model.window, self.bank.tokenizer.pad_id
        )
        answer = route(self.bank, judged, sizes=self.sizes)
        ranked = tuple(name for name in answer.ranked if name in self.lms.speakers)
        if not ranked:
            return Decision(SEED_ALONE, None, "no expert has a language model")
        if answer.known is False:
            return Decision(ranked[: self.mix], False, f"no expert knows it: {answer.reason}")
        if answer.nearest not in self.lms.speakers:
            reason = f"{answer.nearest} is nearest and has no language model"
        elif answer.known is None:
            reason = "nearest; too short to be known"
        else:
            reason = "known"
        return Decision(ranked[: self.mix], answer.known, reason)
