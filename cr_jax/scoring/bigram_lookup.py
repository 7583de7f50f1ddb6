"""Bigram models looked up with numpy: what many documents cost under each, without JAX.

All pairs that any model stores are in one sorted list, and a row of it holds every model's nats, so
that a pair of tokens is looked up once for all experts.  Not in the paper.
Letters: E experts, V vocabulary, U pairs of all models, T tokens, D documents or windows.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Integer

from cr_jax.host import memory
from cr_jax.scoring.bigram_model import BigramModel, have_high, high_bits, pair_hashes

ROWS = 1 << 15  # tokens looked up at a time: what is gathered stays in a cache


class BigramLookup:
    """Bigram models of one vocabulary, ready for look-ups.

    It gives what `bigram.residuals` gives, summed in float32 over whole documents.  `UserError`
    where the U x E nats do not fit into memory: about the square of the number of models.
    """

    def __init__(self, bigrams: Sequence[BigramModel]):
        self._told = have_high(bigrams)
        every = np.concatenate([b.keys for b in bigrams])
        if self._told:
            every = _whole(every, np.concatenate([b.high for b in bigrams]))
        self.keys, rows = np.unique(every, return_inverse=True)
        memory.check(
            4 * len(bigrams) * (len(self.keys) + 2 * len(bigrams[0].alone)),
            f"the look-up of {len(self.keys):,} pairs of tokens by {len(bigrams)} bigram models",
            "let all experts score (--exact, exact=True)",
        )
        self.nats = np.full((len(self.keys), len(bigrams)), np.inf, np.float32)
        owner = np.repeat(np.arange(len(bigrams)), [len(b.keys) for b in bigrams])
        self.nats[rows, owner] = np.concatenate([b.nats for b in bigrams])
        self.after = np.stack([b.after for b in bigrams], 1).astype(np.float32)
        self.alone = np.stack([b.alone for b in bigrams], 1).astype(np.float32)
        # Where the keys of each block of hashes begin: a short way to a key's place.
        self._shift = np.uint32(32 - max(1, len(self.keys)).bit_length())
        hashes = (self.keys >> np.uint64(32)).astype(np.uint32) if self._told else self.keys
        sizes = np.bincount(hashes >> self._shift, minlength=(1 << 32 >> int(self._shift)))
        self._first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        self._most = int(sizes.max(initial=0))

    def token_nats(self, ids: Integer[np.ndarray, " T"], first: int) -> Float[np.ndarray, "T E"]:
        """nats of each token after the one before it; first: the id before ids[0]."""
        ids = np.asarray(ids, np.uint32)
        before = np.concatenate([np.array([first], np.uint32), ids[:-1]])
        hashes = pair_hashes(before, ids)
        block = hashes >> self._shift
        if self._told:
            hashes = _whole(hashes, high_bits(before, ids, len(self.alone)))
        place, end = self._first[block], self._first[block + np.uint32(1)]
        nats = self.after[before] + self.alone[ids]
        looking = np.flatnonzero(place < end)  # tokens whose pair may still be found
        for _ in range(self._most):
            same = self.keys[place[looking]] == hashes[looking]
            stored = self.nats[place[looking[same]]]
            at = looking[same]
            nats[at] = np.where(np.isfinite(stored), stored, nats[at])
            place[looking] += 1
            looking = looking[~same & (place[looking] < end[looking])]
        return nats

    def sums(
        self, ids: Integer[np.ndarray, " T"], starts: Int[np.ndarray, " D"]
    ) -> Float[np.ndarray, "D E"]:
        """nats of each part of the tokens, which begin at `starts`: of its first token, and of
        every other after the one before it."""
        if not len(starts):
            return np.zeros((0, self.alone.shape[1]))
        total = np.zeros((len(starts), self.alone.shape[1]))
        begins = np.zeros(len(ids), bool)
        begins[starts] = True
        for at in range(0, len(ids), ROWS):
            part = ids[at : at + ROWS]
            nats = self.token_nats(part, int(ids[at - 1]) if at else 0)
            begin = np.flatnonzero(begins[at : at + ROWS])
            nats[begin] = self.alone[part[begin]]
            cuts = begin if len(begin) and begin[0] == 0 else np.concatenate([[0], begin])
            owner = np.searchsorted(starts, at + cuts, side="right") - 1
            np.add.at(total, owner, np.add.reduceat(nats, cuts, axis=0, dtype=np.float64))
        return total


def _whole(hashes, high):
    """uint64 of each pair, sorted as its hash is: which pair it is."""
    return hashes.astype(np.uint64) << np.uint64(32) | high.astype(np.uint64)
