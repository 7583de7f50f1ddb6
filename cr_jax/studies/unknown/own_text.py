"""How much of a window an expert's own training text has, word for word.  Not in the paper.

A set of n-grams of tokens per expert, as one bit for each of 2^26 hashes: 8 MB, whatever the text's
length.  A million distinct n-grams fill 1.5 % of the bits, and so many of strange ones pass.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Integer, UInt8

from cr_jax.data.batches import Mixture
from cr_jax.data.corpus import Corpus
from cr_jax.data.windows import Windows

ORDER = 3  # tokens of an n-gram
BITS = 26
BLOCK = 1 << 20  # tokens that are hashed at once
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: neighbouring ids go far apart


class OwnText:
    """The n-grams of each expert's training text, in the order of `names`."""

    def __init__(self, names: Sequence[str], train: Mapping[str, Corpus | Mixture]):
        self.sets = [_bits(train[name]) for name in names]

    def novel(self, windows: Windows) -> Float[np.ndarray, "E N"]:
        """Share of each window's n-grams that are not in the expert's own text; 0 where a window is
        shorter than an n-gram."""
        if windows.tokens.shape[1] < ORDER:
            return np.zeros((len(self.sets), len(windows)))
        at = _hashes(windows.tokens)
        whole = windows.mask[:, ORDER - 1 :]  # padding is at the end only
        missing = [1 - ((bits[at >> 3] >> (at & 7).astype(np.uint8)) & 1) for bits in self.sets]
        return np.stack([(m * whole).sum(-1) for m in missing]) / np.maximum(1, whole.sum(-1))


def _hashes(tokens: Integer[np.ndarray, "*batch L"]) -> Integer[np.ndarray, "*batch n"]:
    """Of every n-gram of the last axis, in [0, 2^BITS)."""
    last = tokens.shape[-1] - ORDER + 1
    mixed = np.zeros((*tokens.shape[:-1], last), np.uint64)
    for i in range(ORDER):
        mixed = (mixed + tokens[..., i : i + last].astype(np.uint64) + np.uint64(1)) * _ODD
        mixed ^= mixed >> np.uint64(29)
    return (mixed * _ODD >> np.uint64(64 - BITS)).astype(np.int64)


def _bits(text: Corpus | Mixture) -> UInt8[np.ndarray, " bytes"]:
    found = np.zeros(1 << BITS, bool)
    for corpus in text.corpora if isinstance(text, Mixture) else [text]:
        for start in range(0, max(0, len(corpus.tokens) - ORDER + 1), BLOCK):
            found[_hashes(np.asarray(corpus.tokens[start : start + BLOCK + ORDER - 1]))] = True
    return np.packbits(found, bitorder="little")
