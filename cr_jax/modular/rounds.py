"""The rounds of a partition: count each part's bigram model, assign every document by them.

A model that was counted on a document would call it its own for ever.  So the documents are in two
halves, and each half is assigned by models of the other: no round is stuck where it began, and its
code length is that of text which its models never saw.  Not in the paper.
Letters: N documents, T tokens, k parts, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int, Integer

from cr_jax.errors import UserError
from cr_jax.modular.assignment import assign_balanced
from cr_jax.scoring import bigram

WINDOW, ROWS = 512, 512  # tokens that are read at once by one model


@dataclasses.dataclass(frozen=True)
class PartitionOptions:
    """How text is split.

    parts: k, 2 or more.  rounds: of counting and assigning.  slack: by how much a part may exceed
    its even share of tokens.  sample_tokens: the rounds read about so many; then all documents are
    assigned once; 0: all.  `UserError` for what makes no partition.
    """

    parts: int
    rounds: int = 8
    seed: int = 0
    slack: float = 0.05
    sample_tokens: int = 8_000_000

    def __post_init__(self):
        if self.parts < 2:
            raise UserError(f"parts={self.parts}: text is split into 2 parts or more")
        if self.rounds < 1 or self.sample_tokens < 0 or not 0 <= self.slack < math.inf:
            raise UserError(
                "a partition needs 1 round or more, a slack of 0 or more and sample_tokens of 0 "
                f"or more; got {self.rounds}, {self.slack}, {self.sample_tokens}"
            )


@dataclasses.dataclass(frozen=True)
class Round:
    """bits_per_byte: code length of the sampled documents in their parts, by models of the other
    half; moved: share of tokens whose document came to another part.  Round 0 is the random start.
    """

    bits_per_byte: float
    moved: float


class Halves:
    """The documents in two halves, dealt at random, and of each half a sample for the rounds."""

    def __init__(self, tokens, sizes, bytes_per_token, options):
        self.options, self.sizes, self.tokens = options, sizes, tokens
        self.vocab_size = int(tokens.max()) + 1
        self.rng = np.random.default_rng(options.seed)
        order = self.rng.permutation(len(sizes))
        self.half = np.empty(len(sizes), np.int8)
        self.half[order] = np.arange(len(sizes)) % 2
        most = options.sample_tokens or int(sizes.sum())
        before = np.cumsum(sizes[order]) - sizes[order]
        # At least a few documents for each part, however long they are.
        chosen = (before < most) | (np.arange(len(sizes)) < 4 * options.parts)
        self.sampled = np.zeros(len(sizes), bool)
        self.sampled[order] = chosen
        self.places = [np.flatnonzero(self.sampled & (self.half == h)) for h in (0, 1)]
        self.rows = [tokens_of(tokens, sizes, places) for places in self.places]
        self.bits = math.log(2) * bytes_per_token * sum(map(len, self.rows))  # nats -> bits/byte

    def random_start(self):
        """Sampled documents dealt evenly, each half on its own; -1 for the others."""
        part = np.full(len(self.sizes), -1)
        for places in self.places:
            sizes = self.sizes[places]
            part[places] = at_random(sizes, self.options.parts, self.options.slack, self.rng)
        self.start = part
        return part.copy()

    def start_cost(self):
        """(bits/byte of the random start, 1.0: everything has been moved)."""
        cost = 0.0
        for own in (0, 1):
            nats = self._nats(self._models(self.start, 1 - own), own)
            cost += nats[np.arange(len(nats)), self.start[self.places[own]]].sum()
        return float(cost) / self.bits, 1.0

    def round(self, part):
        """Each half assigned by models of the other -> (the models that assigned each half, the
        parts, what the round came to)."""
        part, before, models, cost = part.copy(), part, [], 0.0
        for own in (0, 1):
            models.append(self._models(part, 1 - own))
            nats = self._nats(models[-1], own)
            assigned = assign_balanced(nats, self.sizes[self.places[own]], self.options.slack)
            part[self.places[own]] = assigned
            cost += nats[np.arange(len(assigned)), assigned].sum()
        moved = self.sizes[(part != before) & self.sampled].sum() / self.sizes[self.sampled].sum()
        return models, part, Round(float(cost) / self.bits, float(moved))

    def all_documents(self, models, part):
        """Every document assigned by the models of its half; as it was where all were sampled."""
        if self.sampled.all() and np.unique(part).size == self.options.parts:
            return part
        nats = np.empty((len(self.sizes), self.options.parts))
        for own in (0, 1):
            places = np.flatnonzero(self.half == own)
            tokens = tokens_of(self.tokens, self.sizes, places)
            nats[places] = document_nats(models[own], tokens, self.sizes[places])
        return assign_balanced(nats, self.sizes, self.options.slack)

    def _models(self, part, half):
        places = self.places[half]
        return part_models(
            self.rows[half],
            np.repeat(part[places], self.sizes[places]),
            self.options.parts,
            self.vocab_size,
        )

    def _nats(self, models, half):
        return document_nats(models, self.rows[half], self.sizes[self.places[half]])


def part_models(
    tokens: Integer[np.ndarray, " T"], part: Int[np.ndarray, " T"], parts: int, vocab_size: int
) -> list[bigram.BigramModel]:
    """The bigram model of each part's tokens; of a part without any that of all tokens."""

    def counted(row):
        return bigram.count(row[None].astype(np.int32), np.ones((1, row.size), bool), vocab_size)

    rows = [tokens[part == k] for k in range(parts)]
    everyone = None if all(row.size for row in rows) else counted(tokens)
    return [counted(row) if row.size else everyone for row in rows]


def document_nats(
    models: Iterable[bigram.BigramModel],
    tokens: Integer[np.ndarray, " T"],
    sizes: Integer[np.ndarray, " N"],
) -> Float[np.ndarray, "N k"]:
    """nats of each whole document under each bigram model; documents follow each other in `tokens`,
    `sizes` tokens each."""
    table = bigram.table(models)
    totals = np.zeros((len(sizes), len(table.alone)))
    document, step = np.repeat(np.arange(len(sizes)), sizes), WINDOW * ROWS
    for start in range(0, len(tokens), step):
        own = document[start : start + step]
        rows = np.pad(tokens[start : start + step], (0, -len(own) % WINDOW))
        nats = bigram.bigram_nats(table, rows.reshape(-1, WINDOW), ROWS)
        first = own[0]
        for k, each in enumerate(nats.reshape(len(nats), -1)[:, : len(own)]):
            sums = np.bincount(own - first, each)
            totals[first : first + len(sums), k] += sums
    return totals


def tokens_of(tokens, sizes, places):
    """The tokens of some documents, in order."""
    wanted = np.zeros(len(sizes), bool)
    wanted[places] = True
    return np.asarray(tokens)[np.repeat(wanted, sizes)]


def at_random(sizes, parts, slack, rng):
    """Documents dealt at random into parts of as many tokens."""
    return assign_balanced(rng.random((len(sizes), parts)) * sizes[:, None], sizes, slack)
