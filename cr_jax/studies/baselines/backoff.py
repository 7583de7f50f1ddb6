"""Interpolated n-gram probabilities by exact counts, in numpy: bytes up to order 8, tokens to 4.

An n-gram is one 64-bit number, so counts are sorted arrays and a lookup is a binary search; no
hashing, no collisions.  T symbols, E models, U distinct n-grams.  Not in the paper.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer, UInt64

from cr_jax.errors import UserError


def keys(
    symbols: Integer[np.ndarray, " T"], place: Int64[np.ndarray, " T"], order: int, bits: int
) -> tuple[list[UInt64[np.ndarray, "..."]], list[Int64[np.ndarray, "..."]]]:
    """The n-grams that end at each symbol, n = 1..order: (their keys, where they end).

    `place`: a symbol's position in its window; an n-gram lies within one window.
    """
    if order < 1 or order * bits > 64:
        raise UserError(
            f"an n-gram of {order} symbols of {bits} bits does not fit in 64 bits; "
            f"choose an order from 1 to {64 // bits}"
        )
    running = symbols.astype(np.uint64)
    found, ends = [running], [np.arange(len(running))]
    for n in range(1, order):
        # The n symbols up to t are there; one more in front is symbol t - n.
        front = np.zeros_like(running)
        front[n:] = symbols[:-n].astype(np.uint64) << np.uint64(n * bits)
        running = running | front
        inside = np.flatnonzero(place >= n)
        found.append(running[inside])
        ends.append(inside)
    return found, ends


@dataclasses.dataclass(frozen=True)
class _Counts:
    grams: UInt64[np.ndarray, " U"]  # sorted
    counts: Float[np.ndarray, " U"]
    contexts: UInt64[np.ndarray, " C"]  # sorted: the grams without their last symbol
    totals: Float[np.ndarray, " C"]
    distinct: Float[np.ndarray, " C"]  # different symbols seen after it


class Backoff:
    """One text's n-gram model: P(s | c) mixes the counts after c with P(s | c without its first).

    Witten-Bell weights (`discount` 0; the escape of PPM method C): (n(cs) + t(c) P') / (n(c) +
    t(c)), t(c) different symbols seen after c.  Otherwise absolute discounting:
    (max(n(cs) - discount, 0) + discount t(c) P') / n(c).  Order 0 is uniform over `alphabet`.
    """

    def __init__(
        self,
        symbols: Integer[np.ndarray, " T"],
        place: Int64[np.ndarray, " T"],
        *,
        order: int,
        bits: int,
        alphabet: int,
        discount: float = 0.0,
    ):
        self.order, self.bits, self.alphabet, self.discount = order, bits, alphabet, discount
        self._levels = [self._count(k) for k in keys(symbols, place, order, bits)[0]]

    @property
    def size(self) -> int:
        """Number of stored n-grams."""
        return sum(len(level.grams) for level in self._levels)

    def _count(self, grams_read):
        grams, counts = np.unique(grams_read, return_counts=True)
        context = grams >> np.uint64(self.bits)
        first = np.flatnonzero(np.r_[True, context[1:] != context[:-1]][: len(context)])
        sums = np.add.reduceat(counts, first) if len(first) else counts
        distinct = np.diff(np.r_[first, len(grams)])
        narrow = lambda x: x.astype(np.float32)
        return _Counts(grams, narrow(counts), context[first], narrow(sums), narrow(distinct))

    def probability(self, asked: "Asked") -> list[Float64[np.ndarray, "..."]]:
        """P(last symbol | the others) of each distinct n-gram asked for, n = 1..order."""
        out: list[np.ndarray] = []
        for n, level in enumerate(self._levels):
            lower = out[-1][asked.suffix[n]] if n else 1.0 / self.alphabet
            count = _look_up(level.grams, level.counts, asked.grams[n])
            at = asked.context[n]
            total, distinct = (
                _look_up(level.contexts, x, asked.contexts[n])[at]
                for x in (level.totals, level.distinct)
            )
            if self.discount:
                known = np.maximum(count - self.discount, 0) + self.discount * distinct * lower
                p = np.where(total > 0, known / np.maximum(total, 1), lower)
            else:
                p = (count + distinct * lower) / np.maximum(total + distinct, 1)
                p = np.where(total > 0, p, lower)
            out.append(p)
        return out

    def log_probability(self, asked: "Asked") -> Float64[np.ndarray, " T"]:
        """nats of every symbol after up to order - 1 symbols of its own window."""
        tables = [np.log(p) for p in self.probability(asked)]
        out = np.empty(asked.total)
        for table, inverse, ends in zip(tables, asked.inverse, asked.ends):
            out[ends] = table[inverse]
        return out


class Asked:
    """The distinct n-grams of some windows, sorted once and looked up in every model."""

    def __init__(
        self,
        symbols: Integer[np.ndarray, " T"],
        place: Int64[np.ndarray, " T"],
        order: int,
        bits: int,
    ):
        self.total = len(symbols)
        found, self.ends = keys(symbols, place, order, bits)
        unique = [np.unique(k, return_inverse=True) for k in found]
        self.grams, self.inverse = zip(*unique)
        self.contexts, self.context, self.suffix = [], [], []
        for n, grams in enumerate(self.grams):
            contexts, context = np.unique(grams >> np.uint64(bits), return_inverse=True)
            self.contexts.append(contexts)
            self.context.append(context)
            # The n-gram without its first symbol ends at the same place, so it was asked for.
            rest = grams & np.uint64((1 << (n * bits)) - 1)
            self.suffix.append(np.searchsorted(self.grams[n - 1], rest) if n else None)


def log_probabilities(
    models: Sequence[Backoff], symbols: Integer[np.ndarray, " T"], place: Int64[np.ndarray, " T"]
) -> Float64[np.ndarray, "E T"]:
    """nats of every symbol under every model; the models share order and bits."""
    asked = Asked(symbols, place, models[0].order, models[0].bits)
    return np.stack([m.log_probability(asked) for m in models])


def _look_up(table, values, asked):
    """values where `asked` stands in the sorted `table`, otherwise 0."""
    if not len(table):
        return np.zeros(len(asked))
    at = np.minimum(np.searchsorted(table, asked), len(table) - 1)
    return np.where(table[at] == asked, values[at], 0).astype(np.float64)
