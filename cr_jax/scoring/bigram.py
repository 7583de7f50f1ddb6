"""Scouts: each domain's smallest compressor, counted instead of trained.

    a domain's training text -> counts of its pairs of tokens -> nats of a token after another

By a look-up in a table a scout says what a window costs to write down by its domain's pairs of
tokens.  That is a residual like an expert's code length, of one domain's text alone, and almost
free: good enough to tell which experts are worth asking (`routing.cascade`), and to lend experts a
prediction that is never far off (`config.Scoring.pairs`).  With n counts, t
numbers of different successors, v and w tokens:

    P(w) = (n(w) + t / V) / (n + t)            P(w | v) = (n(vw) + t(v) P(w)) / (n(v) + t(v))

(Witten and Bell 1991.)  Of the pairs only those that say most are kept; the counts of the others
go where t(v) goes, so each P is a distribution.  Not in the paper.
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

PAIRS = 65_536  # that a scout keeps: 0.4 MB
MOST = 16 * PAIRS  # all scouts of a bank get the room of the largest
COUNTED = 1 << 24  # tokens of a training text, at most
WAYS = 8  # pairs that share a slot: 32 bytes, the least that a GPU reads
TOGETHER = 16  # scouts side by side on an accelerator
COLLECTION = "scout"  # of a pytree of parameters


class Scout(NamedTuple):
    """One domain's pairs, by the hash of a pair, and what to do about others.

    nats[i]: of a pair with hash keys[i] (sorted, all different); `after[v] + alone[w]` of any other
    pair vw, `alone[w]` of a first token w.
    """

    keys: UInt32[np.ndarray, " P"]
    nats: Float16[np.ndarray, " P"]
    after: Float16[np.ndarray, " V"]
    alone: Float16[np.ndarray, " V"]


class Table(NamedTuple):
    """Scouts as their look-ups want them: a pair's hash begins with the number of its slot."""

    keys: UInt32[Array, "E S 8"]
    nats: Float16[Array, "E S 8"]  # infinite where a slot has room
    after: Float16[Array, "E V"]
    alone: Float16[Array, "E V"]


def count(tokens: Integer[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], vocab_size: int,
          pairs: int = PAIRS) -> Scout:
    """The scout of a training text, given as windows; `mask`: True on real tokens.

    pairs: kept at most, those that save most nats on this text.  `UserError` when no token is
    real, an id lies beyond the vocabulary, or `pairs` is negative or above `MOST`.
    """
    if not 0 <= pairs <= MOST:
        raise UserError(f"a scout keeps from 0 to {MOST:,} pairs, not {pairs}")
    if tokens.shape != mask.shape:
        raise UserError(f"tokens of shape {tokens.shape} have a mask of shape {mask.shape}")
    real = tokens[mask].astype(np.int64)
    if not real.size or real.min() < 0 or real.max() >= vocab_size:
        raise UserError(f"a scout is counted from real tokens with ids below {vocab_size}: give "
                        "the text that its expert is trained on, cut by the bank's tokenizer")
    ones = np.bincount(real, minlength=vocab_size)
    kinds = np.count_nonzero(ones)
    alone = (ones + kinds / vocab_size) / (ones.sum() + kinds)
    inside = mask[:, 1:] & mask[:, :-1]
    numbers = (tokens[:, :-1][inside].astype(np.int64) * vocab_size
               + tokens[:, 1:][inside].astype(np.int64))
    found, counts = np.unique(numbers, return_counts=True)
    before, last = np.divmod(found, vocab_size)
    total, different = (np.bincount(before, w, vocab_size) for w in (counts, None))
    every = np.maximum(total + different, 1)

    def shares(kept):
        """(P of each pair, share of P(w) after each v) where only `kept` pairs are known."""
        rest = (different + np.bincount(before[~kept], counts[~kept], vocab_size)) / every
        return counts / every[before] + rest[before] * alone[last], rest

    p, rest = shares(np.ones(found.size, bool))
    saved = counts * np.log(p / (rest[before] * alone[last]))
    hashes = pair_hashes(before.astype(np.uint32), last.astype(np.uint32))
    kept = _fit(hashes, saved, pairs)
    p, rest = shares(kept)
    order = np.argsort(hashes[kept])
    half = lambda x: (0 - np.log(x)).astype(np.float16)
    return Scout(hashes[kept][order], half(p[kept][order]),
                 half(np.where(total > 0, rest, 1)), half(alone))


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


def _fit(hashes, saved, pairs: int):
    """Which pairs are kept: the `pairs` that save most, no two of one hash, no slot overfull."""
    best = np.argsort(-saved, kind="stable")[:pairs]
    best = best[np.sort(np.unique(hashes[best], return_index=True)[1])]
    slot = _slots(hashes[best], slot_bits(best.size))
    # Place of each among those of its slot, the one that saves most first.
    order = np.argsort(slot, kind="stable")
    first = np.searchsorted(slot[order], slot[order])
    kept = np.zeros(hashes.size, bool)
    kept[best[order[np.arange(best.size) - first < WAYS]]] = True
    return kept


def slot_bits(pairs: int) -> int:
    """Half full on average: 1 in 100 pairs then finds its slot full."""
    return max(0, (2 * pairs - 1) // WAYS).bit_length()


def _slots(hashes, bits: int):
    return hashes >> np.uint32(32 - bits) if bits else hashes & np.uint32(0)


def table(scouts: Iterable[Scout]) -> Table:
    """Scouts of one vocabulary, stacked; each says what it says alone."""
    scouts = tuple(scouts)
    bits = max(bits_without_loss(s.keys) for s in scouts)
    keys = np.zeros((len(scouts), 1 << bits, WAYS), np.uint32)
    nats = np.full(keys.shape, np.inf, np.float16)
    for e, scout in enumerate(scouts):
        slot = _slots(scout.keys, bits)
        way = np.arange(slot.size) - np.searchsorted(slot, slot)
        keys[e, slot, way], nats[e, slot, way] = scout.keys, scout.nats
    return Table(*map(jnp.asarray, (keys, nats, np.stack([s.after for s in scouts]),
                                    np.stack([s.alone for s in scouts]))))


def bits_without_loss(keys) -> int:
    bits = slot_bits(keys.size)
    while keys.size and np.unique(_slots(keys, bits), return_counts=True)[1].max() > WAYS:
        bits += 1
    return bits


def side_by_side() -> int:
    """Scouts that are best asked at once here: a CPU's caches hold one table."""
    return 1 if jax.default_backend() == "cpu" else TOGETHER


@functools.partial(jax.jit, static_argnames="together")
def residuals(scouts: Table, tokens: Int[Array, "B L"], mask: Bool[Array, "B L"],
              together: int = 1) -> Float[Array, "E B"]:
    """nats of each window by each scout: of its first token, and of every other after the last.

    `together`: scouts side by side.
    """
    one = lambda scout: jnp.sum(jnp.where(mask, token_nats(scout, tokens), 0), -1)
    return jax.lax.map(one, scouts, batch_size=together)


def token_nats(scout: Table, tokens: Int[Array, "B L"]) -> Float[Array, "B L"]:
    """nats of each token after the last by one scout, a `Table` without its axis E."""
    ids = tokens.astype(jnp.uint32)
    hashes = pair_hashes(ids[:, :-1], ids[:, 1:])
    slot = _slots(hashes, scout.keys.shape[0].bit_length() - 1).astype(jnp.int32)
    here = scout.keys[slot] == hashes[..., None]
    known = jnp.min(jnp.where(here, scout.nats[slot], jnp.inf), -1).astype(jnp.float32)
    alone = scout.alone[tokens].astype(jnp.float32)
    other = scout.after[tokens[:, :-1]].astype(jnp.float32) + alone[:, 1:]
    return jnp.concatenate([alone[:, :1], jnp.where(jnp.isfinite(known), known, other)], -1)


def mixed(nll: Float[Array, "..."], counted: Float[Array, "..."], share: float
          ) -> Float[Array, "..."]:
    """nats by the mixture of two predictions, given by theirs; `share` is the second's."""
    return -jnp.logaddexp(math.log1p(-share) - nll, math.log(share) - counted)


def beside(params: Any, scouts: Table) -> Any:
    """Stacked parameters with their experts' scouts as one more collection, for rules with `pairs`.
    """
    return {**params, COLLECTION: scouts._asdict()}
