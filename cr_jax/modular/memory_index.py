"""Which past windows speak of the same things: an index of each window's most surprising pairs.

A window's key is hashes of 16 bits of its pairs of neighbouring tokens that no bigram model of the
bank expects.  A query is scored against all keys by the sum of what it shares with each, weighted
by surprise and by rarity among the windows before.  Keys do not depend on which expert wrote a
window, so windows of all experts compare; what else was tried is in docs/memory.md.
Not in the paper.  Letters: B windows or queries, L tokens, F hashes of a key, W windows kept.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Integer, UInt16

from cr_jax.bank import ExpertBank
from cr_jax.scoring.bigram import bigram_nats

HASHES = 1 << 16
EMPTY = 0  # a slot of a key that holds nothing


class Features(NamedTuple):
    """Hash of the pair that ends at each token, `EMPTY` at padding and at a first token, and the
    nats by which it surprises; 0 there."""

    hashes: UInt16[np.ndarray, "B L"]
    weights: Float32[np.ndarray, "B L"]


def surprise(bank: ExpertBank, tokens: Integer[np.ndarray, "B L"]) -> Float32[np.ndarray, "B L"]:
    """Nats of each token after the one before it by the bigram model that expects it most; all
    alike, log V, in a bank without bigram models."""
    if not bank.bigrams or not tokens.size:
        return np.full(tokens.shape, math.log(bank.model.vocab_size), np.float32)
    rows, width = tokens.shape
    # Few shapes: each is a program of its own.
    filled = np.pad(tokens, ((0, 0), (0, (1 << (width - 1).bit_length()) - width)))
    nats = bigram_nats(bank.bigram_table, filled, min(512, 1 << (rows - 1).bit_length()))
    return nats[:, :, :width].min(0)


def hashes_of(
    tokens: Integer[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"]
) -> UInt16[np.ndarray, "B L"]:
    """Of the pair that ends at each token."""
    ids = tokens.astype(np.uint32)
    before = np.pad(ids[:, :-1], ((0, 0), (1, 0)))
    there = mask & np.pad(mask[:, :-1], ((0, 0), (1, 0)))
    return np.where(there, _hash(before, ids), EMPTY).astype(np.uint16)


def features(
    tokens: Integer[np.ndarray, "B L"],
    mask: Bool[np.ndarray, "B L"],
    nats: Float[np.ndarray, "B L"],
) -> Features:
    """Of every pair of neighbours; nats: `surprise` of each token."""
    hashes = hashes_of(tokens, mask)
    return Features(hashes, np.where(hashes != EMPTY, nats, 0).astype(np.float32))


def idf(counts: Int[np.ndarray, " 65536"], windows: int) -> Float32[np.ndarray, " 65536"]:
    """log((2 + windows) / (1 + those whose keys hold a hash)); 0 where none does."""
    found = np.log((2 + windows) / (1 + np.minimum(counts, windows)))
    return np.where(counts > 0, found, 0).astype(np.float32)


@functools.partial(jax.jit, static_argnames="best")
def nearest(
    keys: Integer[Array, "W F"],
    weights: Float[Array, "B 65536"],
    before: Int[Array, " B"],
    best: int,
) -> tuple[Int[Array, "B best"], Float[Array, "B best"]]:
    """(the windows that share most with each query, -1 where there are no more; their scores).

    weights: of each hash in each query; before: windows from this one on are not looked at.
    """

    def one(pair):
        table, end = pair
        score = jnp.sum(table[keys.astype(jnp.int32)], -1)
        score = jnp.where(jnp.arange(len(keys)) < end, score, 0)
        return jax.lax.top_k(score, best)

    score, window = jax.lax.map(one, (weights, before))
    return jnp.where(score > 0, window, -1), score


def tables(
    found: Features,
    keys: UInt16[np.ndarray, "W F"],
    before: Int[np.ndarray, " B"],
    weighted: bool = True,
) -> Float32[np.ndarray, "B 65536"]:
    """What each hash weighs in each query: its nats, times its `idf` among the windows before.

    Windows from `before` on change nothing, so that what is read at a token does not depend on what
    comes after it.  weighted: False leaves out the idf of hashes that are there.
    """
    out = np.zeros((len(found.hashes), HASHES), np.float32)
    counts, seen, own = np.zeros(HASHES, np.int64), 0, np.zeros(HASHES, np.float32)
    for i in np.argsort(before, kind="stable"):
        if before[i] != seen:
            new = keys[seen : before[i]].reshape(-1)
            counts += np.bincount(new, minlength=HASHES)
            counts[EMPTY], seen = 0, int(before[i])
            own = idf(counts, seen) if weighted else (counts > 0).astype(np.float32)
        out[i, found.hashes[i]] = found.weights[i]  # a feature that comes twice counts once
        out[i] *= own
    return out


def keys_of(found: Features, count: int) -> UInt16[np.ndarray, "B F"]:
    """Each window's `count` most surprising distinct pairs, ties in the order of the hashes."""
    hashes, weights = found
    order = np.lexsort((hashes, -weights), axis=-1)
    hashes, weights = (np.take_along_axis(x, order, 1) for x in (hashes, weights))
    again = np.pad(hashes[:, 1:] == hashes[:, :-1], ((0, 0), (1, 0)))
    hashes = np.where(again | (weights <= 0), EMPTY, hashes)
    first = np.argsort(hashes == EMPTY, axis=-1, kind="stable")[:, :count]
    found = np.take_along_axis(hashes, first, 1)
    return np.pad(found, ((0, 0), (0, count - found.shape[1])))


def _hash(a, b):
    """uint32 ids -> 16 bits, never `EMPTY`."""
    x = a * np.uint32(0x9E3779B1) + b * np.uint32(0x85EBCA77) + np.uint32(0x2545F491)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    x = (x ^ (x >> np.uint32(12))) >> np.uint32(16)
    return np.where(x == EMPTY, 1, x)
