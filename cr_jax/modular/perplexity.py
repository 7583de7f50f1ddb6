"""What a text costs under a bank's language models: scheduled, each alone, and mixed.

    text -> token ids -> windows -> nats [E, N] -> Schedule, Mixture -> Perplexity

Who speaks is decided by the language models' own nats of what stands before, so the text that is
scored never chose its expert.  Not in the paper.  Letters: E experts, N tokens, L tokens of a
window, B windows.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from cr_jax.bank import ExpertBank
from cr_jax.data.windows import windows_of
from cr_jax.errors import UserError
from cr_jax.modular.generate import tokens_of
from cr_jax.modular.language_models import BankLms
from cr_jax.modular.memory import Memory, write
from cr_jax.modular.memory_pages import Reader
from cr_jax.modular.options import NONE, SEED_NAME, PerplexityOptions
from cr_jax.modular.paged import contexts
from cr_jax.modular.schedule import SEED, Schedule, by_past, by_prefix, mixture, spoken
from cr_jax.modular.score import token_nats
from cr_jax.routing.document import Text
from cr_jax.scoring.batching import BatchSizes

MIXTURE = "mixture"


@dataclasses.dataclass(frozen=True)
class Turn:
    """Consecutive tokens that one model speaks.  nats: of all of them together."""

    expert: str
    start: int
    tokens: int
    nats: float
    text: str


@dataclasses.dataclass(frozen=True)
class Perplexity:
    """nats of a whole text: as scheduled, by each expert alone, by the seed, by the mixture.

    seed: None where the bank has none.  turns: who speaks where, `SEED_NAME` or `MIXTURE` first.
    memory: of the text, where pages of it were read.
    """

    tokens: int
    bytes: int
    scheduled: float
    experts: Mapping[str, float]
    mixture: float
    seed: float | None
    turns: tuple[Turn, ...] = dataclasses.field(repr=False)
    memory: Memory | None = None

    @property
    def nats(self) -> dict[str, float]:
        """Everything that was compared, fewest nats first, under "scheduled", "mixture", "seed" and
        the experts' names."""
        costs = {"scheduled": self.scheduled, MIXTURE: self.mixture, **self.experts}
        if self.seed is not None:
            costs[SEED_NAME] = self.seed
        return dict(sorted(costs.items(), key=lambda pair: pair[1]))

    def bits_per_byte(self, nats: float) -> float:
        """nats of the whole text in bits/byte."""
        return nats / (math.log(2) * self.bytes)

    def perplexity(self, nats: float) -> float:
        """nats of the whole text as perplexity of a token; infinite where no float holds it."""
        mean = nats / self.tokens
        return math.exp(mean) if mean < 700 else math.inf

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""

        def row(nats):
            ppl = self.perplexity(nats)
            return {
                "nats": nats,
                "bits_per_byte": self.bits_per_byte(nats),
                "perplexity": ppl if math.isfinite(ppl) else None,
            }

        kept = {"memory": self.memory.to_json()} if self.memory is not None else {}
        return {
            **kept,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "scheduled": row(self.scheduled),
            "mixture": row(self.mixture),
            "seed": None if self.seed is None else row(self.seed),
            "experts": {name: row(nats) for name, nats in self.experts.items()},
            "turns": [{k: v for k, v in vars(turn).items() if k != "text"} for turn in self.turns],
        }


def perplexity(
    bank: ExpertBank,
    text: Text,
    options: PerplexityOptions | None = None,
    sizes: BatchSizes | None = None,
) -> Perplexity:
    """What a text costs.  text: as of `cr_jax.route`.

    sizes: windows of one call, and tokens whose logits stand in memory.  `UserError` when the text
    is empty, or the bank has no language models, or none has finite nats.
    """
    options, sizes = options or PerplexityOptions(), sizes or BatchSizes.for_device()
    lms = BankLms(bank)
    lms.check_any()
    if not lms.speakers:
        raise UserError("no expert of the bank has a language model: only its seed speaks")
    ids = tokens_of(bank, text)
    if not len(ids):
        raise UserError("the text is empty: give at least one token to score")
    read, kept = _read(bank, ids, options, options.window or lms.window, sizes)
    each = np.stack([_nats(lms, lms.place(n), read, sizes) for n in lms.speakers])
    seed = _nats(lms, SEED, read, sizes) if lms.has_seed else None
    if not np.isfinite(each).all(1).any():
        raise UserError("no language model has finite nats: train them again")
    mixed, schedule, said = _scheduled(each, seed, options)
    names = np.array([SEED_NAME if lms.has_seed else MIXTURE, *lms.speakers])[schedule + 1]
    return Perplexity(
        tokens=len(ids),
        bytes=int(bank.tokenizer.token_bytes[ids].sum()),
        scheduled=float(said.sum(dtype=float)),
        experts=dict(zip(lms.speakers, each.sum(1, dtype=float).tolist(), strict=True)),
        mixture=float(mixed.sum(dtype=float)),
        seed=None if seed is None else float(seed.sum(dtype=float)),
        turns=tuple(_turns(bank.tokenizer, ids, names, said)),
        memory=kept,
    )


def _read(
    bank: ExpertBank, ids, options: PerplexityOptions, window: int, sizes: BatchSizes
) -> tuple[tuple[np.ndarray, np.ndarray], Memory | None]:
    """((what models read, where the text's tokens stand in it), a memory of the text)."""
    asked, pad, kept = options.memory, bank.tokenizer.pad_id, None
    if asked.kind == NONE:
        windows = windows_of(ids, window, pad)
        return (windows.tokens, windows.mask), None
    reader = None
    if asked.pages_in:
        asked.span_of(bank.model.window, window)  # refused before a text is read
        kept = write(bank, windows_of(ids, bank.model.window, pad), asked, sizes)
        reader = Reader(bank, kept, sizes)
    return contexts(ids, reader, asked, window, pad), kept


def _nats(lms: BankLms, place: int, read, sizes: BatchSizes) -> Float[np.ndarray, " N"]:
    """nats of each token by one model, which alone is on the device."""
    tokens, own = read
    params = lms.stack(np.array([place]))
    nats = token_nats(lms.config, params, tokens, sizes.tokens, sizes.rows(len(tokens)))
    return nats[0][own]


def _scheduled(
    each: Float[np.ndarray, "E N"], seed: Float[np.ndarray, " N"] | None, options: PerplexityOptions
) -> tuple[Float[np.ndarray, " N"], Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """(nats by the mixture, who speaks, nats by who speaks) of one text."""
    tokens = each.shape[1]
    room = (1 << (tokens - 1).bit_length()) - tokens  # few lengths, few programs
    nll = jnp.asarray(np.pad(each, ((0, 0), (0, room))))[:, None]
    mask = jnp.asarray(np.arange(tokens + room)[None] < tokens)
    mixed = mixture(nll, mask, None, options.switch).nats
    first = mixed if seed is None else jnp.asarray(np.pad(seed, (0, room)))[None]
    begun = by_prefix(nll, mask, options.prefix).expert
    past = by_past(nll, mask, options.every, options.judged).expert
    # Decided first after the prefix, then at each multiple of `every`.
    at = jnp.arange(tokens + room)[None]
    expert = jnp.where(at < max(options.prefix, options.every), begun, past)
    said = spoken(Schedule(expert, jnp.zeros(expert.shape, bool)), nll, first)
    return tuple(np.asarray(x)[0, :tokens] for x in (mixed, expert, said))


def _turns(tokenizer, ids, names, nats) -> Iterator[Turn]:
    edges = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(ids)]
    for start, end in itertools.pairwise(edges):
        yield Turn(
            str(names[start]),
            start,
            end - start,
            float(nats[start:end].sum(dtype=float)),
            tokenizer.decode(ids[start:end]),
        )
