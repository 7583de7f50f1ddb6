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
numpy only; JAX looks them up in `scoring.bigram`, numpy in `scoring.bigram_lookup`.
Letters: B windows, L tokens per window, V vocabulary, P pairs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float16, Integer, UInt32

from cr_jax.errors import UserError

MAX_BIGRAMS = 65_536  # of one model: 0.4 MB
MOST = 16 * MAX_BIGRAMS  # all bigram models of a bank get the memory of the largest
TRAINING_TOKENS = 1 << 24  # tokens of a training text, at most
EXACT = 1 << 16  # ids below it: no two pairs have one hash
NO_HIGH = np.zeros(0, np.uint32)
WAYS = 8  # pairs that share a slot: 32 bytes, the least that a GPU reads


class BigramModel(NamedTuple):
    """One domain's pairs, by the hash of a pair, and what to do about others.

    nats[i]: of a pair with hash keys[i] (sorted, all different); `after[v] + alone[w]` of any other
    pair vw, `alone[w]` of a first token w.  high[i]: `high_bits` of the pair, which tell it from
    others of its hash; empty for V <= 65,536, where hashes do, and in older files.
    """

    keys: UInt32[np.ndarray, " P"]
    nats: Float16[np.ndarray, " P"]
    after: Float16[np.ndarray, " V"]
    alone: Float16[np.ndarray, " V"]
    high: UInt32[np.ndarray, " H"] = NO_HIGH


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
        high_bits(before, last, vocab_size)[stored][order] if vocab_size > EXACT else NO_HIGH,
    )


def _nats(p):
    return (0 - np.log(p)).astype(np.float16)


def pair_hashes(before, last):
    """uint32 of each pair of tokens, numpy or JAX; different for different ids below 65,536.

    Pairs of larger ids may share one, but none that also share their `high_bits`.
    """
    u = np.uint32
    x = (before << u(16)) ^ last
    x = x ^ (before >> u(16)) * u(0x9E3779B1) ^ (last >> u(16)) * u(0x85EBCA77)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # MurmurHash3's last step
        x = (x ^ (x >> u(shift))) * u(factor)
    return x ^ (x >> u(16))


def high_bits(before, last, vocab_size: int):
    """uint32 of each pair of tokens: what of both ids is above 16 bits.  With the pair's hash it
    says which pair it is."""
    parts = ((vocab_size - 1) >> 16) + 1
    return ((before >> 16) * parts + (last >> 16)).astype(np.uint32)


def have_high(bigrams: Sequence[BigramModel]) -> bool:
    """Whether pairs of these models of one vocabulary are told by more than their hashes: not in
    one whose hashes suffice, nor where a model comes from an older file."""
    return len(bigrams[0].alone) > EXACT and all(b.high.size == b.keys.size for b in bigrams)


def _stored(hashes, saved, most: int):
    """Which pairs are stored: the `most` that save most, no two of one hash, no slot overfull."""
    best = np.argsort(-saved, kind="stable")[:most]
    best = best[np.sort(np.unique(hashes[best], return_index=True)[1])]
    slot = slots(hashes[best], slot_bits(best.size))
    # Place of each among those of its slot, the one that saves most first.
    order = np.argsort(slot, kind="stable")
    first = np.searchsorted(slot[order], slot[order])
    stored = np.zeros(hashes.size, bool)
    stored[best[order[np.arange(best.size) - first < WAYS]]] = True
    return stored


def slot_bits(pairs: int) -> int:
    """Half full on average: 1 in 100 pairs then finds its slot full."""
    return max(0, (2 * pairs - 1) // WAYS).bit_length()


def slots(hashes, bits: int):
    return hashes >> np.uint32(32 - bits) if bits else hashes & np.uint32(0)


def bits_without_loss(keys) -> int:
    bits = slot_bits(keys.size)
    while keys.size and np.unique(slots(keys, bits), return_counts=True)[1].max() > WAYS:
        bits += 1
    return bits
