"""Bigram models (`scoring.bigram_model`) that JAX looks up: a table of all, and nats by it.

Not in the paper.  Letters: B windows, L tokens per window, V vocabulary, E experts, S slots.
"""

import functools
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float16, Int, Integer, UInt32

from cr_jax.scoring.bigram_model import (
    MAX_BIGRAMS as MAX_BIGRAMS,  # for those who count and look up
)
from cr_jax.scoring.bigram_model import MOST as MOST
from cr_jax.scoring.bigram_model import TRAINING_TOKENS as TRAINING_TOKENS
from cr_jax.scoring.bigram_model import (
    WAYS,
    bits_without_loss,
    have_high,
    high_bits,
    pair_hashes,
    slots,
)
from cr_jax.scoring.bigram_model import BigramModel as BigramModel
from cr_jax.scoring.bigram_model import count as count
from cr_jax.scoring.bigram_model import slot_bits as slot_bits

SIDE_BY_SIDE = 16  # bigram models on an accelerator
COLLECTION = "bigram"  # of a pytree of parameters


class BigramTable(NamedTuple):
    """Bigram models ready for look-ups: a pair's hash begins with the number of its slot."""

    keys: UInt32[Array, "E S 8"]
    nats: Float16[Array, "E S 8"]  # infinite where a slot has room
    after: Float16[Array, "E V"]
    alone: Float16[Array, "E V"]
    high: UInt32[Array, "E T 8"]  # T = S, or 0 where hashes alone tell pairs apart


def table(bigrams: Iterable[BigramModel], least_bits: int = 0) -> BigramTable:
    """Bigram models of one vocabulary, stacked; each says what it says alone.

    least_bits: of the number of slots, so that tables of other models can have the same shape.
    Where one comes from an older file without `high`, all are told by their hashes.
    """
    bigrams = tuple(bigrams)
    bits = max(least_bits, *(bits_without_loss(s.keys) for s in bigrams))
    keys = np.zeros((len(bigrams), 1 << bits, WAYS), np.uint32)
    nats = np.full(keys.shape, np.inf, np.float16)
    told = have_high(bigrams)
    high = np.zeros((len(bigrams), keys.shape[1] if told else 0, WAYS), np.uint32)
    for e, bigram in enumerate(bigrams):
        slot = slots(bigram.keys, bits)
        way = np.arange(slot.size) - np.searchsorted(slot, slot)
        keys[e, slot, way], nats[e, slot, way] = bigram.keys, bigram.nats
        if told:
            high[e, slot, way] = bigram.high
    return BigramTable(
        *map(
            jax.device_put,  # compiles nothing
            (
                keys,
                nats,
                np.stack([s.after for s in bigrams]),
                np.stack([s.alone for s in bigrams]),
                high,
            ),
        )
    )


def models_side_by_side() -> int:
    """Bigram models that this device reads best at once: a CPU's caches hold one table."""
    return 1 if jax.default_backend() == "cpu" else SIDE_BY_SIDE


@functools.partial(jax.jit, static_argnames="side_by_side")
def residuals(
    bigrams: BigramTable, tokens: Int[Array, "B L"], mask: Bool[Array, "B L"], side_by_side: int = 1
) -> Float[Array, "E B"]:
    """nats of each window by each bigram model: of its first token, and of every other after the
    one before it.  side_by_side: bigram models that are read at once.
    """

    def one(bigram):
        return jnp.sum(jnp.where(mask, token_nats(bigram, tokens), 0), -1)

    return jax.lax.map(one, bigrams, batch_size=side_by_side)


def token_nats(bigram: BigramTable, tokens: Int[Array, "B L"]) -> Float[Array, "B L"]:
    """nats of each token after the last by one bigram model, a `BigramTable` without its axis E."""
    ids = tokens.astype(jnp.uint32)
    hashes = pair_hashes(ids[:, :-1], ids[:, 1:])
    slot = slots(hashes, bigram.keys.shape[0].bit_length() - 1).astype(jnp.int32)
    here = bigram.keys[slot] == hashes[..., None]
    if len(bigram.high):
        own = high_bits(ids[:, :-1], ids[:, 1:], len(bigram.alone))
        here &= bigram.high[slot] == own[..., None]
    known = jnp.min(jnp.where(here, bigram.nats[slot], jnp.inf), -1).astype(jnp.float32)
    alone = bigram.alone[tokens].astype(jnp.float32)
    other = bigram.after[tokens[:, :-1]].astype(jnp.float32) + alone[:, 1:]
    return jnp.concatenate([alone[:, :1], jnp.where(jnp.isfinite(known), known, other)], -1)


def bigram_nats(
    bigrams: BigramTable, tokens: Integer[np.ndarray, "B L"], rows: int = 512
) -> Float[np.ndarray, "E B L"]:
    """`token_nats` of any number of windows by every bigram model; rows: windows of one call."""
    nats = np.empty((len(bigrams.alone), *tokens.shape), np.float32)
    for start in range(0, len(tokens), rows):
        part = np.asarray(tokens[start : start + rows], np.int32)
        filled = np.pad(part, ((0, rows - len(part)), (0, 0)), "edge")
        nats[:, start : start + rows] = _bigram_nats(bigrams, filled)[:, : len(part)]
    return nats


@jax.jit
def _bigram_nats(bigrams: BigramTable, tokens: Int[Array, "B L"]) -> Float[Array, "E B L"]:
    return jax.lax.map(lambda one: token_nats(one, tokens), bigrams)


def mixed(
    nll: Float[Array, "..."], bigram_nll: Float[Array, "..."], weight: float
) -> Float[Array, "..."]:
    """-log((1 - weight) exp(-nll) + weight exp(-bigram_nll)): nats by the mixture."""
    return -jnp.logaddexp(math.log1p(-weight) - nll, math.log(weight) - bigram_nll)


def with_bigrams(params: Any, bigrams: BigramTable) -> Any:
    """Stacked parameters with their experts' bigram models as one more collection, for rules with a
    bigram_weight."""
    return {**params, COLLECTION: bigrams._asdict()}


def with_bigram(params: Any, bigram: BigramModel) -> Any:
    """`with_bigrams` of one expert, without the expert axis."""
    return with_bigrams(params, BigramTable(*(x[0] for x in table([bigram]))))
