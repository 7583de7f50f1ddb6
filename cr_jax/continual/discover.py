"""Does a heap of unknown documents hold new domains?  They do if the documents explain each other.

    documents, their cost by the bank's bigram models -> hard EM on code length -> clusters

What is known of a token w after v is the bigram model of the bank that is nearest to the document,
P0.  The other documents of a cluster, with n counts, change it to

    P(w | v) = (n(vw) + a P0(w | v)) / (n(v) + a)

(MacKay and Peto 1995; a is `PRIOR`).  What a document costs less by P than by P0 is what the others
say of it that the bank does not know: its *saving*, in nats/token.  A document is never counted in
the model that prices it.  Known text that was refused by chance saves about
nothing, and so do strangers of each other.  Not in the paper.
Letters: N documents, U different pairs of tokens, V vocabulary, K clusters.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Integer

PRIOR = 256.0  # counts that the bank's own prediction of a token is worth
ROUNDS = 20  # of EM, at most
CLUSTERS = 6  # looked for at once, at most
SEEDS = 32  # documents from which a cluster may begin: the longest ones


@dataclasses.dataclass(frozen=True)
class Cluster:
    """members: places of its documents; saved: nats/token, the mean over their tokens."""

    members: tuple[int, ...]
    tokens: int
    saved: float


class Pairs:
    """The pairs of tokens of N documents, numbered; `known[i]`: nats of each token of document i
    by the bank."""

    def __init__(self, documents: Sequence[Integer[np.ndarray, " _"]], vocab_size: int):
        numbers = [
            ids[:-1].astype(np.int64) * vocab_size + ids[1:].astype(np.int64) for ids in documents
        ]
        every = np.concatenate(numbers) if numbers else np.zeros(0, np.int64)
        pairs, place = np.unique(every, return_inverse=True)
        self.before = pairs // vocab_size  # [U]
        self.numbers, self.vocab_size = pairs, vocab_size
        ends = np.cumsum([len(x) for x in numbers])
        self.of = np.split(place, ends[:-1]) if numbers else []
        self.sizes = np.array([len(ids) for ids in documents])

    def counts(self, members: Sequence[int]) -> "Counts":
        """Of these documents together."""
        own = [self.of[i] for i in members]
        every = np.concatenate(own) if own else np.zeros(0, np.int64)
        n = np.bincount(every, minlength=len(self.before))
        return Counts(n, np.bincount(self.before, n, self.vocab_size))

    def saved(
        self, i: int, known: Float[np.ndarray, " _"], counts: "Counts", counted: bool
    ) -> float:
        """nats that document i costs less by these counts than by the bank alone.

        known: nats of its tokens after the first; counted: it is among the counts, and left out.
        """
        own = self.of[i]
        if not len(own):
            return 0.0
        some, place, times = np.unique(own, return_inverse=True, return_counts=True)
        before = self.before[some]
        n, total = counts.n[some], counts.total[before]
        if counted:
            group = np.unique(before, return_inverse=True)[1]
            n, total = n - times, total - np.bincount(group, times)[group]
        return float(np.sum(known + np.log(changed(n[place], total[place], known))))


@dataclasses.dataclass(frozen=True)
class Counts:
    """n [U] of each pair; total [V] of those that begin with each token."""

    n: Int[np.ndarray, " U"]
    total: Float[np.ndarray, " V"]


def changed(n, total, known):
    """P of tokens whose nats were `known`, by the counts of their pairs."""
    return (n + PRIOR * np.exp(-known)) / (total + PRIOR)


def separate(
    documents: Sequence[Integer[np.ndarray, " _"]],
    known: Sequence[Float[np.ndarray, " _"]],
    vocab_size: int,
    most: int = CLUSTERS,
) -> list[Cluster]:
    """Clusters of documents that explain each other, the largest first; the rest is in none.

    known: nats of each document's tokens but the first by the bigram model that is nearest to it.
    There are as many clusters as make the code of all documents, and of who belongs where, the
    shortest.  The same for the same documents in the same order.
    """
    pairs = Pairs(documents, vocab_size)
    best, least = np.zeros(len(documents), int) - 1, 0.0  # nobody belongs anywhere
    seeds: list[int] = []
    for count in range(1, min(most, len(documents)) + 1):
        seeds = _one_more_seed(pairs, known, seeds)
        if len(seeds) < count:
            break
        part, cost = _em(pairs, known, seeds)
        if cost >= least:
            if count > 1:
                break
            continue
        best, least = part, cost
    return _clusters(pairs, known, best)


def savings(
    pairs: Pairs, known: Sequence[Float[np.ndarray, " _"]], part: Int[np.ndarray, " N"], count: int
) -> Float[np.ndarray, "N K"]:
    """nats that each document saves by each cluster, itself left out of its own."""
    found = np.zeros((len(part), count))
    for k in range(count):
        counts = pairs.counts(np.flatnonzero(part == k).tolist())
        for i in range(len(part)):
            found[i, k] = pairs.saved(i, known[i], counts, bool(part[i] == k))
    return found


def _em(pairs, known, seeds) -> tuple[np.ndarray, float]:
    """Documents in clusters (-1: in none), and the cost of all beyond the bank's, nats."""
    count, sizes = len(seeds), len(pairs.of)
    part = np.full(sizes, -1)
    part[seeds] = np.arange(count)
    label = np.log(count + 1)
    gain = np.zeros((sizes, count))
    for _ in range(ROUNDS):
        gain = savings(pairs, known, part, count)
        new = np.where(gain.max(1) > 0, gain.argmax(1), -1)
        if (new == part).all():
            break
        part = new
    won = gain[np.arange(sizes), np.maximum(part, 0)] * (part >= 0)
    return part, float(sizes * label - won.sum())


def _one_more_seed(pairs, known, seeds: list[int]) -> list[int]:
    """The seeds, and the document that saves most on others beyond what the seeds save."""
    sizes = len(pairs.of)
    reached = np.zeros(sizes)
    for seed in seeds:
        reached = np.maximum(reached, _by_one(pairs, known, seed))
    gains = {}
    for i in np.argsort(-pairs.sizes, kind="stable")[:SEEDS].tolist():
        if i not in seeds:
            gains[i] = float(np.maximum(_by_one(pairs, known, i) - reached, 0).sum())
    best = max(gains, key=lambda i: gains[i], default=None)
    return seeds if best is None or gains[best] <= 0 else [*seeds, best]


def _by_one(pairs, known, seed: int) -> np.ndarray:
    """nats that each document saves by one other."""
    cache = vars(pairs).setdefault("_by_one", {})
    if seed not in cache:
        counts = pairs.counts([seed])
        cache[seed] = np.array(
            [
                0.0 if i == seed else pairs.saved(i, known[i], counts, False)
                for i in range(len(pairs.of))
            ]
        )
    return cache[seed]


def _clusters(pairs, known, part) -> list[Cluster]:
    found = []
    for k in range(part.max(initial=-1) + 1):
        members = np.flatnonzero(part == k)
        if len(members) < 2:
            continue
        counts = pairs.counts(members.tolist())
        nats = sum(pairs.saved(i, known[i], counts, True) for i in members.tolist())
        tokens = int(pairs.sizes[members].sum())
        found.append(Cluster(tuple(int(i) for i in members), tokens, nats / max(1, tokens)))
    return sorted(found, key=lambda c: (-c.tokens, c.members))
