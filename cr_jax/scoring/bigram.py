"""Bigram models: each domain's smallest compressor, counted instead of trained.

    a domain's training text -> counts of its pairs of tokens -> nats of a token after another

A bigram model tells by look-ups in a table what a window costs to write down.  That is a residual
like an expert's code length, of one domain's text alone, and almost free: good enough to choose the
experts that are scored in full (`routing.cascade`), and to help an expert's prediction where its
encoder is surprised (`config.Scoring.bigram_weight`).  With n counts, t numbers of different
successors, v and w tokens:

    P(w) = (n(w) + t / V) / (n + t)            P(w | v) = (n(vw) + t(v) P(w)) / (n(v) + t(v))

(Witten and Bell 1991.)  Only the pairs that save most nats are stored; the counts of the others go
where t(v) goes, so each P is a distribution.  Not in the paper.
Letters: B windows, L tokens per window, V vocabulary, E experts, P pairs, S slots.
"""

import functools
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float16, Int, Integer, UInt32

from cr_jax.errors import UserError

MAX_BIGRAMS = 65_536  # of one model: 0.4 MB
MOST = 16 * MAX_BIGRAMS  # all bigram models of a bank get the memory of the largest
TRAINING_TOKENS = 1 << 24  # tokens of a training text, at most
WAYS = 8  # pairs that share a slot: 32 bytes, the least that a GPU reads
SIDE_BY_SIDE = 16  # bigram models on an accelerator
COLLECTION = "bigram"  # of a pytree of parameters


class BigramModel(NamedTuple):
    """One domain's pairs, by the hash of a pair, and what to do about others.

    nats[i]: of a pair with hash keys[i] (sorted, all different); `after[v] + alone[w]` of any other
    pair vw, `alone[w]` of a first token w.
    """

    keys: UInt32[np.ndarray, " P"]
    nats: Float16[np.ndarray, " P"]
    after: Float16[np.ndarray, " V"]
    alone: Float16[np.ndarray, " V"]


class BigramTable(NamedTuple):
    """Bigram models ready for look-ups: a pair's hash begins with the number of its slot."""

    keys: UInt32[Array, "E S 8"]
    nats: Float16[Array, "E S 8"]  # infinite where a slot has room
    after: Float16[Array, "E V"]
    alone: Float16[Array, "E V"]


def count(
    tokens: Integer[np.ndarray, "B L"],
    mask: Bool[np.ndarray, "B L"],
    vocab_size: int,
    max_bigrams: int = MAX_BIGRAMS,
) -> BigramModel:
    """The bigram model of a training text, given as windows; `mask`: True on real tokens.

    max_bigrams: pairs stored at most, those that save most nats on this text.  `UserError` when no
    token is real, an id lies beyond the vocabulary, or max_bigrams is negative or above `MOST`.
    """
    if not 0 <= max_bigrams <= MOST:
        raise UserError(f"a bigram model has from 0 to {MOST:,} pairs of tokens, not {max_bigrams}")
    if tokens.shape != mask.shape:
        raise UserError(f"tokens of shape {tokens.shape} have a mask of shape {mask.shape}")
    real = tokens[mask].astype(np.int64)
    if not real.size or real.min() < 0 or real.max() >= vocab_size:
        raise UserError(
            f"a bigram model is counted from real tokens with ids below {vocab_size}: "
            "give the text that its expert is trained on, cut by the bank's tokenizer"
        )
    ones = np.bincount(real, minlength=vocab_size)
    kinds = np.count_nonzero(ones)
    alone = (ones + kinds / vocab_size) / (ones.sum() + kinds)
    inside = mask[:, 1:] & mask[:, :-1]
    numbers = tokens[:, :-1][inside].astype(np.int64) * vocab_size + tokens[:, 1:][inside].astype(
        np.int64
    )
    pairs, counts = np.unique(numbers, return_counts=True)
    before, last = np.divmod(pairs, vocab_size)
    total, different = (np.bincount(before, w, vocab_size) for w in (counts, None))
    every = np.maximum(total + different, 1)

    def shares(stored):
        """(P of each pair, share of P(w) after each v) where only `stored` pairs are known."""
        rest = (different + np.bincount(before[~stored], counts[~stored], vocab_size)) / every
        return counts / every[before] + rest[before] * alone[last], rest

    p, rest = shares(np.ones(pairs.size, bool))
    saved = counts * np.log(p / (rest[before] * alone[last]))
    hashes = pair_hashes(before.astype(np.uint32), last.astype(np.uint32))
    stored = _stored(hashes, saved, max_bigrams)
    p, rest = shares(stored)
    order = np.argsort(hashes[stored])
    return BigramModel(
        hashes[stored][order],
        _nats(p[stored][order]),
        _nats(np.where(total > 0, rest, 1)),
        _nats(alone),
    )


def _nats(p):
    return (0 - np.log(p)).astype(np.float16)


def pair_hashes(before, last):
    """uint32 of each pair of tokens, numpy or JAX; different for different ids below 65,536.

    Larger ids may share one, about as often as random numbers do.
    """
    u = np.uint32
    x = (before << u(16)) ^ last
    x = x ^ (before >> u(16)) * u(0x9E3779B1) ^ (last >> u(16)) * u(0x85EBCA77)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # MurmurHash3's last step
        x = (x ^ (x >> u(shift))) * u(factor)
    return x ^ (x >> u(16))


def _stored(hashes, saved, most: int):
    """Which pairs are stored: the `most` that save most, no two of one hash, no slot overfull."""
    best = np.argsort(-saved, kind="stable")[:most]
    best = best[np.sort(np.unique(hashes[best], return_index=True)[1])]
    slot = _slots(hashes[best], slot_bits(best.size))
    # Place of each among those of its slot, the one that saves most first.
    order = np.argsort(slot, kind="stable")
    first = np.searchsorted(slot[order], slot[order])
    stored = np.zeros(hashes.size, bool)
    stored[best[order[np.arange(best.size) - first < WAYS]]] = True
    return stored


def slot_bits(pairs: int) -> int:
    """Half full on average: 1 in 100 pairs then finds its slot full."""
    return max(0, (2 * pairs - 1) // WAYS).bit_length()


def _slots(hashes, bits: int):
    return hashes >> np.uint32(32 - bits) if bits else hashes & np.uint32(0)


def table(bigrams: Iterable[BigramModel]) -> BigramTable:
    """Bigram models of one vocabulary, stacked; each says what it says alone."""
    bigrams = tuple(bigrams)
    bits = max(bits_without_loss(s.keys) for s in bigrams)
    keys = np.zeros((len(bigrams), 1 << bits, WAYS), np.uint32)
    nats = np.full(keys.shape, np.inf, np.float16)
    for e, bigram in enumerate(bigrams):
        slot = _slots(bigram.keys, bits)
        way = np.arange(slot.size) - np.searchsorted(slot, slot)
        keys[e, slot, way], nats[e, slot, way] = bigram.keys, bigram.nats
    return BigramTable(
        *map(
            jnp.asarray,
            (
                keys,
                nats,
                np.stack([s.after for s in bigrams]),
                np.stack([s.alone for s in bigrams]),
            ),
        )
    )


def bits_without_loss(keys) -> int:
    bits = slot_bits(keys.size)
    while keys.size and np.unique(_slots(keys, bits), return_counts=True)[1].max() > WAYS:
        bits += 1
    return bits


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
    slot = _slots(hashes, bigram.keys.shape[0].bit_length() - 1).astype(jnp.int32)
    here = bigram.keys[slot] == hashes[..., None]
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
