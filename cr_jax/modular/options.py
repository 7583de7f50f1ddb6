"""What a caller can ask of generated text and of a perplexity: the same in the library and on the
command line."""

import dataclasses
import math
import numbers
from collections.abc import Sequence

from cr_jax.errors import UserError
from cr_jax.modular.characters import checked_stops

# JAX is not imported here: the command line checks its flags before that starts.
AUTO = "auto"
SEED_NAME = "seed"
LACKING = "train them with configs/modular.py (docs/modular.md)"
NO_LMS = f"the bank has no language models: {LACKING}, or name another bank"
LEAST = 32  # positions of the shortest prefill; a cache has twice as many at least
MOST_SEED = 2**32


@dataclasses.dataclass(frozen=True)
class GenerateOptions:
    """How text is generated.

    max_tokens: at most so many.  temperature: 0 takes the likeliest token, 1 draws by the model's
    own probabilities.  top_p: draws among the likeliest tokens that have so much of the probability
    together.  seed: of the draws; the same seed gives the same text.  stop: texts before which it
    ends.  expert: who speaks, a name, "seed" (the language model of all domains), or "auto": whom
    the router chooses by the last `memory` tokens, the seed below `prefix` tokens and for text that
    no expert knows; decided again every `every` tokens (0: never), by what stands then.  mix: the
    nearest so many experts speak together, weighted by their posterior with the switching prior
    `switch`.  context: positions that a model sees at most; 0: as many as in its training.
    `UserError` for what cannot be.
    """

    max_tokens: int = 128
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0
    stop: Sequence[str] = ()
    expert: str = AUTO
    every: int = 64
    prefix: int = 16
    memory: int = 256
    mix: int = 1
    switch: float = 0.01
    context: int = 0

    def __post_init__(self):
        object.__setattr__(self, "stop", checked_stops(self.stop))
        at_least(1, max_tokens=self.max_tokens, memory=self.memory, mix=self.mix)
        at_least(0, every=self.every, prefix=self.prefix)
        if self.context != 0:
            at_least(2 * LEAST, context=self.context)
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(
                f"temperature={self.temperature}: give 0 for the likeliest tokens, or a finite "
                "number above 0"
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p} is a share above 0 and at most 1")
        at_least(0, seed=self.seed)
        if self.seed >= MOST_SEED:
            raise UserError(f"seed={self.seed} must lie below {MOST_SEED:,}")
        check_switch(self.switch)
        if self.mix > 1 and self.expert != AUTO:
            raise UserError(
                f"mix={self.mix} experts are chosen by the router: leave out expert={self.expert!r}"
            )


@dataclasses.dataclass(frozen=True)
class PerplexityOptions:
    """How a text is scored.

    prefix: the first so many tokens are the seed's, or the mixture's where there is no seed; then
    the expert speaks that predicted the past best, decided again every `every` tokens by the last
    `memory` of them (0: all).  switch: the switching prior of the mixture.  window: tokens that a
    model reads at once, each window from its own beginning; 0: as many as in its training.
    `UserError` for what cannot be.
    """

    prefix: int = 64
    every: int = 64
    memory: int = 256
    switch: float = 0.01
    window: int = 0

    def __post_init__(self):
        at_least(1, prefix=self.prefix, every=self.every)
        at_least(0, memory=self.memory, window=self.window)
        check_switch(self.switch)


def at_least(least: int, **values: int) -> None:
    """`UserError` unless each is a whole number of at least `least`."""
    for name, value in values.items():
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not whole or value < least:
            raise UserError(f"{name}={value!r} must be a whole number of at least {least}")


def check_switch(switch: float) -> None:
    """`UserError` unless it is a probability below 1."""
    if not 0 <= switch < 1:
        raise UserError(f"switch={switch} is a probability, at least 0 and below 1")
