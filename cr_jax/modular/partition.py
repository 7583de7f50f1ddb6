"""Text without labels in k parts: hard expectation-maximisation on code length.

    documents -> dealt at random -> rounds: count each part's bigram model, assign -> k parts

A document goes to the part whose bigram model needs the fewest nats for it, as far as parts stay
of equal size (`assignment`).  Each half of the documents is assigned by models of the other
(`rounds`).  Not in the paper; SmallTalk LM (arXiv 2410.03529) splits text by small language models.
Letters: N documents, T tokens, k parts, V vocabulary.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from jaxtyping import Int, Int64, Integer

from cr_jax.data import Corpus, Mixture
from cr_jax.errors import UserError
from cr_jax.modular.rounds import Halves, PartitionOptions, Round, tokens_of

__all__ = [
    "Partition",
    "PartitionOptions",
    "Parts",
    "Round",
    "partition",
    "partition_corpora",
    "split_corpora",
]

Texts = Mapping[str, Corpus | Mixture] | Iterable[Corpus | Mixture]


@dataclasses.dataclass(frozen=True)
class Partition:
    """The part of each document, tokens and documents of each part, and the rounds; `kept` is the
    round with the least code length, from whose models the parts come."""

    part: Int[np.ndarray, " N"]
    tokens: Int[np.ndarray, " k"]
    documents: Int[np.ndarray, " k"]
    rounds: tuple[Round, ...]
    kept: int


@dataclasses.dataclass(frozen=True)
class Parts:
    """ "part_00", "part_01", ...: a corpus each, its bytes estimated by tokens; and how their
    documents came there."""

    corpora: Mapping[str, Corpus]
    partition: Partition


def partition(
    tokens: Integer[np.ndarray, " T"],
    starts: Int64[np.ndarray, " documents_plus_1"],
    bytes_per_token: float,
    options: PartitionOptions,
    say: Callable[[str], None] = lambda line: None,
) -> Partition:
    """Splits documents `tokens[starts[i]:starts[i + 1]]`; the same for the same seed.

    bytes_per_token: of the text, for bits/byte.  `UserError` for fewer documents than parts.
    """
    sizes = np.diff(starts)
    need_documents(len(sizes), options.parts)
    work = Halves(tokens, sizes, bytes_per_token, options)
    part, rounds, best = work.random_start(), [Round(*work.start_cost())], None
    say(_line(0, rounds[0]))
    for number in range(1, options.rounds + 1):
        models, part, done = work.round(part)
        rounds.append(done)
        say(_line(number, done))
        if best is None or done.bits_per_byte < rounds[best[0]].bits_per_byte:
            best = number, models, part
        if not done.moved:
            break
    kept, models, part = best
    part = work.all_documents(models, part)
    tokens_of_parts = np.bincount(part, sizes, options.parts).astype(np.int64)
    documents = np.bincount(part, minlength=options.parts)
    return Partition(part, tokens_of_parts, documents, tuple(rounds), kept)


def split_corpora(
    corpora: Texts, options: PartitionOptions, say: Callable[[str], None] = lambda line: None
) -> Parts:
    """Splits the documents of tokenised corpora, whichever they are from, into k corpora.

    Shares of a `Mixture` are left behind: each of its documents counts once.  `UserError` as
    `partition`, and without a corpus.
    """
    whole = _Joined(corpora)
    answer = partition(whole.tokens, whole.starts, whole.bytes_per_token, options, say)
    return whole.parts(answer, options)


def partition_corpora(texts: Texts, parts: int, seed: int = 0) -> dict[str, Corpus]:
    """`split_corpora` with the usual options: the text of each part by its name."""
    return dict(split_corpora(texts, PartitionOptions(parts, seed=seed)).corpora)


def need_documents(count: int, parts: int) -> None:
    """`UserError` for fewer documents than parts."""
    if count < parts:
        raise UserError(
            f"{count} documents cannot make {parts} parts: give more text, or fewer parts"
        )


class _Joined:
    """The documents of several corpora as one row of tokens."""

    def __init__(self, texts):
        named = texts.items() if isinstance(texts, Mapping) else ((None, text) for text in texts)
        each = [
            (name, corpus)
            for name, source in named
            for corpus in (source.corpora if isinstance(source, Mixture) else [source])
        ]
        if not each:
            raise UserError("no corpus to split: name at least one data source")
        # Ids of one tokenizer have one type.
        self.tokens = np.concatenate([corpus.tokens for _, corpus in each])
        sizes = [np.diff(corpus.starts) for _, corpus in each]
        self.starts = np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64)
        ratios = [corpus.bytes / max(1, len(corpus.tokens)) for _, corpus in each]
        self.ratio = np.repeat(ratios, [len(own) for own in sizes])  # bytes/token by document
        self.names = [
            document if name is None else f"{name}: {document}"
            for name, corpus in each
            for document in corpus.names
        ]
        self.fingerprints = [corpus.fingerprint for _, corpus in each]

    @property
    def bytes_per_token(self) -> float:
        return float(self.ratio @ np.diff(self.starts)) / max(1, len(self.tokens))

    def parts(self, answer: Partition, options: PartitionOptions) -> Parts:
        sizes, corpora = np.diff(self.starts), {}
        for k in range(options.parts):
            places = np.flatnonzero(answer.part == k)
            key = json.dumps(["partition", dataclasses.asdict(options), k, self.fingerprints])
            corpora[f"part_{k:02d}"] = Corpus(
                tokens_of(self.tokens, sizes, places),
                np.concatenate([[0], np.cumsum(sizes[places])]).astype(np.int64),
                round(float(self.ratio[places] @ sizes[places])),
                hashlib.sha256(key.encode()).hexdigest(),
                [self.names[n] for n in places],
            )
        return Parts(corpora, answer)


def _line(number: int, done: Round) -> str:
    how = f"{done.moved:.1%} of the tokens moved" if number else "dealt at random"
    return f"round {number}: {done.bits_per_byte:.4f} bits/byte, {how}"
