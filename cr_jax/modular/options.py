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
NONE, RECENT, LATENTS, IDS = "none", "recent", "latents", "ids"  # what is kept of a text's past
Z_DTYPES = ("float32", "bfloat16", "int8", "int4")


@dataclasses.dataclass(frozen=True)
class MemoryOptions:
    """How the past of a text is kept, and how much of it is read again (`modular.memory`).

    kind: "latents" (each window as its expert's latents), "ids" (the same index over the tokens
    themselves), "none", or in a perplexity "recent" (as many positions, all of the last tokens).
    dtype: of the latents.  features: hashes of a window's key; 0: by its length (`features_of`).
    corrections: tokens of a window, at most, that its expert would rebuild wrongly and that are
    kept beside the latents.  limit: windows at most.  pages: windows that are read for a query;
    span: tokens of each that a language model attends to, which divide the window; 0: as many as
    let all pages take half its positions.  query: the last so many tokens are the query.
    `UserError` for what cannot be.
    """

    kind: str = NONE
    dtype: str = "bfloat16"
    features: int = 0
    corrections: int = 64
    limit: int = 1 << 16
    pages: int = 4
    span: int = 0
    query: int = 64

    def __post_init__(self):
        if self.kind not in (NONE, RECENT, LATENTS, IDS):
            raise UserError(
                f"memory={self.kind!r} is unknown: use {NONE}, {RECENT}, {LATENTS} or {IDS}"
            )
        if self.dtype not in Z_DTYPES:
            raise UserError(f"dtype={self.dtype!r} is unknown: use {', '.join(Z_DTYPES)}")
        at_least(1, limit=self.limit, pages=self.pages, query=self.query)
        at_least(0, features=self.features, corrections=self.corrections, span=self.span)

    @property
    def pages_in(self) -> bool:
        """Whether windows are kept and read again."""
        return self.kind in (LATENTS, IDS)

    def features_of(self, window: int) -> int:
        """Hashes of the key of a window of so many tokens: three for four tokens, at most 192.
        With as many the window of a hidden line is among the best four of 2,048 (docs/memory.md).
        """
        return self.features or max(1, min(192, window * 3 // 4))

    def span_of(self, window: int, positions: int) -> int:
        """Tokens of a page that a language model of so many positions attends to.

        `UserError` when the span does not divide the window, or its pages do not fit.
        """
        room = positions // 2 // self.pages
        if not self.span:
            fitting = [n for n in range(1, min(window, room) + 1) if window % n == 0]
            if not fitting:
                raise UserError(
                    f"pages={self.pages} do not fit into half of {positions} positions: read fewer"
                )
            return fitting[-1]
        if window % self.span:
            raise UserError(
                f"span={self.span} does not divide the bank's window of {window} tokens"
            )
        if self.span > room:
            raise UserError(
                f"pages={self.pages} of span={self.span} tokens do not fit into half of "
                f"{positions} positions: read fewer, or shorter ones"
            )
        return self.span


def memory_of(memory: "str | MemoryOptions", kinds: Sequence[str]) -> "MemoryOptions":
    """Options by their kind alone, or as they are.  `UserError` for another kind than these."""
    found = MemoryOptions(memory) if isinstance(memory, str) else memory
    if not isinstance(found, MemoryOptions):
        raise UserError(f"memory={memory!r}: give {', '.join(kinds)} or MemoryOptions")
    if found.kind not in kinds:
        raise UserError(f"memory={found.kind!r} is not for this: use {', '.join(kinds)}")
    return found


@dataclasses.dataclass(frozen=True)
class GenerateOptions:
    """How text is generated.

    max_tokens: at most so many.  temperature: 0 takes the likeliest token, 1 draws by the model's
    own probabilities.  top_p: draws among the likeliest tokens that have so much of the probability
    together.  seed: of the draws; the same seed gives the same text.  stop: texts before which it
    ends.  expert: who speaks, a name, "seed" (the language model of all domains), or "auto": whom
    the router chooses by the last `judged` tokens, the seed below `prefix` tokens and for text that
    no expert knows; decided again every `every` tokens (0: never), by what stands then.  mix: the
    nearest so many experts speak together, weighted by their posterior with the switching prior
    `switch`.  positions: that a model sees at most; 0: as many as in its training.  memory: of what
    goes before the prompt, "none", "latents", "ids" or a `MemoryOptions`.  `UserError` for what
    cannot be.
    """

    max_tokens: int = 128
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0
    stop: Sequence[str] = ()
    expert: str = AUTO
    every: int = 64
    prefix: int = 16
    judged: int = 256
    mix: int = 1
    switch: float = 0.01
    positions: int = 0
    memory: str | MemoryOptions = NONE

    def __post_init__(self):
        object.__setattr__(self, "stop", checked_stops(self.stop))
        object.__setattr__(self, "memory", memory_of(self.memory, (NONE, LATENTS, IDS)))
        at_least(1, max_tokens=self.max_tokens, judged=self.judged, mix=self.mix)
        at_least(0, every=self.every, prefix=self.prefix)
        if self.positions != 0:
            at_least(2 * LEAST, positions=self.positions)
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
    `judged` of them (0: all).  switch: the switching prior of the mixture.  window: tokens that a
    model reads at once, each window from its own beginning; 0: as many as in its training.
    memory: "none", or what stands before the tokens that are scored in such a window
    (`modular.paged`): "recent", "latents", "ids" or a `MemoryOptions`.  `UserError` for what cannot
    be.
    """

    prefix: int = 64
    every: int = 64
    judged: int = 256
    switch: float = 0.01
    window: int = 0
    memory: str | MemoryOptions = NONE

    def __post_init__(self):
        kinds = (NONE, RECENT, LATENTS, IDS)
        object.__setattr__(self, "memory", memory_of(self.memory, kinds))
        at_least(1, prefix=self.prefix, every=self.every)
        at_least(0, judged=self.judged, window=self.window)
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
