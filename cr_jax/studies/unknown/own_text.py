"""How much of a window an expert's own training text has, word for word.  Not in the paper.

A set of n-grams of tokens per expert, as one bit for each of 2^26 hashes: 8 MB, whatever the text's
length.  A million distinct n-grams fill 1.5 % of the bits, and so many of strange ones pass.
Trigrams are a witness (`OwnText.novel`); of n-grams of eight tokens those that stand in a text were
copied (`OwnText.holds`): a licence at the head of a source file is no strange text.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from cr_jax.data.batches import Mixture
from cr_jax.data.corpus import Corpus
from cr_jax.data.windows import Windows

ORDER = 3  # tokens of an n-gram
COPIED = 8  # tokens of an n-gram that are rarely the same by chance
BITS = 26
BLOCK = 1 << 20  # tokens that are hashed at once
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: neighbouring ids go far apart


class OwnText:
    """The n-grams of each expert's training text, in the order of `names`.  order: their tokens."""

    def __init__(
        self, names: Sequence[str], train: Mapping[str, Corpus | Mixture], order: int = ORDER
    ):
        self.order = order
        self.sets = [_bits(train[name], order) for name in names]

    def novel(self, windows: Windows) -> Float[np.ndarray, "E N"]:
        """Share of each window's n-grams that are not in the expert's own text; 0 where a window is
        shorter than an n-gram."""
        if windows.tokens.shape[1] < self.order:
            return np.zeros((len(self.sets), len(windows)))
        at = _hashes(windows.tokens, self.order)
        whole = windows.mask[:, self.order - 1 :]  # padding is at the end only
        missing = [1 - ((bits[at >> 3] >> (at & 7).astype(np.uint8)) & 1) for bits in self.sets]
        return np.stack([(m * whole).sum(-1) for m in missing]) / np.maximum(1, whole.sum(-1))

    def holds(self, windows: Windows) -> Bool[np.ndarray, " N"]:
        """Whether at least half of a window's n-grams stand in one expert's text; not where it is
        shorter than an n-gram."""
        long = windows.mask.sum(-1) >= self.order
        return long & (self.novel(windows).min(0) <= 0.5)


def _hashes(tokens: Integer[np.ndarray, "*batch L"], order: int) -> Integer[np.ndarray, "*batch n"]:
    """Of every n-gram of the last axis, in [0, 2^BITS)."""
    last = tokens.shape[-1] - order + 1
    mixed = np.zeros((*tokens.shape[:-1], last), np.uint64)
    for i in range(order):
        mixed = (mixed + tokens[..., i : i + last].astype(np.uint64) + np.uint64(1)) * _ODD
        mixed ^= mixed >> np.uint64(29)
    return (mixed * _ODD >> np.uint64(64 - BITS)).astype(np.int64)


def _bits(text: Corpus | Mixture, order: int) -> UInt8[np.ndarray, " bytes"]:
    found = np.zeros(1 << BITS, bool)
    for corpus in text.corpora if isinstance(text, Mixture) else [text]:
        for start in range(0, max(0, len(corpus.tokens) - order + 1), BLOCK):
            part = np.asarray(corpus.tokens[start : start + BLOCK + order - 1])
            found[_hashes(part, order)] = True
    return np.packbits(found, bitorder="little")
