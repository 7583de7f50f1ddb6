"""Is a domain that was found new, or one that the bank has?  Cross code length both ways.

The new text's counts C over the bigram model of an old expert e give a model (C, e), as in
`discover`.  With L(X | M) the nats/token of text X by model M,

    gain = L(new | e) - L(new | C, e)     what the new text says that e does not know,
    loss = L(old | C, e) - L(old | e)     what e's own text loses by it,
    distance = gain + loss,

each document of the new text priced by the others alone.  Of the old domain no text is kept: its
text is drawn from the bigram model that its expert is stored with.  Not in the paper.
Letters: T tokens, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, Integer

from cr_jax.continual.discover import Pairs, changed
from cr_jax.scoring.bigram_model import BigramModel, high_bits, pair_hashes

NEW = 0.45  # nats/token of distance from which on a domain is new
KNOWN = 0.25  # below it the bank has the domain already
DRAWN = 2048  # tokens that stand for an old domain
ROWS = 64  # of V numbers each that are held while it is drawn
Verdict = Literal["new", "extend", "refuse"]


@dataclasses.dataclass(frozen=True)
class Nearness:
    """Of new text to the expert that prices it best; gain, loss: nats/token."""

    expert: str
    gain: float
    loss: float

    @property
    def distance(self) -> float:
        return self.gain + self.loss

    @property
    def verdict(self) -> Verdict:
        """new: it gets an expert; extend: a second expert beside the near one; refuse: none."""
        if self.distance >= NEW:
            return "new"
        return "extend" if self.distance >= KNOWN else "refuse"


def nearness(
    expert: str,
    bigram: BigramModel,
    documents: Sequence[Integer[np.ndarray, " _"]],
    known: Sequence[Float[np.ndarray, " _"]],
    seed: int = 0,
) -> Nearness:
    """known: nats by the expert's bigram model of each document's tokens but the first."""
    vocab_size = len(bigram.alone)
    pairs = Pairs(documents, vocab_size)
    everyone = range(len(documents))
    counts = pairs.counts(everyone)
    saved = sum(pairs.saved(i, known[i], counts, True) for i in everyone)
    ids, nats = drawn(bigram, DRAWN, seed)
    numbers = ids[:-1] * vocab_size + ids[1:]
    at = np.minimum(np.searchsorted(pairs.numbers, numbers), max(0, len(pairs.numbers) - 1))
    there = pairs.numbers[at] == numbers
    n = np.where(there, counts.n[at], 0)
    after = -np.log(changed(n, counts.total[ids[:-1]], nats))
    tokens = sum(len(x) for x in known)
    return Nearness(expert, float(saved / max(1, tokens)), float(np.mean(after - nats)))


def drawn(
    bigram: BigramModel, count: int, seed: int = 0
) -> tuple[Int[np.ndarray, " T"], Float[np.ndarray, " T_less_1"]]:
    """Text of a bigram model: `count` tokens, and the nats of each but the first."""
    random = np.random.default_rng(seed)
    alone = bigram.alone.astype(np.float64)
    first = np.exp(-alone)
    after = functools.lru_cache(ROWS)(functools.partial(_after, bigram, alone))
    ids = [int(random.choice(len(first), p=first / first.sum()))]
    nats = []
    for _ in range(count - 1):
        row, ends = after(ids[-1])
        ids.append(min(int(np.searchsorted(ends, random.random() * ends[-1])), len(row) - 1))
        nats.append(row[ids[-1]])
    return np.array(ids), np.array(nats)


def _after(bigram: BigramModel, alone, v: int):
    """nats of every token after v, and the running sums of their P."""
    before, last = np.full(len(alone), v, np.uint32), np.arange(len(alone), dtype=np.uint32)
    row = float(bigram.after[v]) + alone
    if len(bigram.keys):
        hashes = pair_hashes(before, last)
        at = np.minimum(np.searchsorted(bigram.keys, hashes), len(bigram.keys) - 1)
        here = bigram.keys[at] == hashes
        if bigram.high.size:
            here &= bigram.high[at] == high_bits(before, last, len(alone))
        row = np.where(here, bigram.nats[at].astype(np.float64), row)
    return row, np.cumsum(np.exp(-row))
