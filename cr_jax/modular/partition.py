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

from cr_jax.data import Corpus, Mixture, Tokenizer
from cr_jax.errors import UserError
from cr_jax.modular.rounds import Halves, PartitionOptions, Round, at_random, tokens_of

__all__ = [
    "Partition",
    "PartitionOptions",
    "Parts",
    "Round",
    "deal_corpora",
    "partition",
    "partition_corpora",
]


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
    """k corpora, and how their documents came there."""

    corpora: tuple[Corpus, ...]
    partition: Partition


def partition(
    tokens: Integer[np.ndarray, " T"],
    starts: Int64[np.ndarray, " documents_plus_1"],
    token_bytes: Integer[np.ndarray, " V"],
    options: PartitionOptions,
    say: Callable[[str], None] = lambda line: None,
) -> Partition:
    """Splits documents `tokens[starts[i]:starts[i + 1]]`; the same for the same seed.

    token_bytes: UTF-8 bytes of each id, for bits/byte.  `UserError` for fewer documents than parts.
    """
    sizes = np.diff(starts)
    need_documents(len(sizes), options.parts)
    work = Halves(tokens, sizes, token_bytes, options)
    part, rounds, best = work.random_start(), [Round(*work.start_cost())], None
    say(_line(0, rounds[0]))
    for number in range(1, options.rounds + 1):
        models, part, found = work.round(part)
        rounds.append(found)
        say(_line(number, found))
        if best is None or found.bits_per_byte < rounds[best[0]].bits_per_byte:
            best = number, models, part
        if not found.moved:
            break
    kept, models, part = best
    part = work.all_documents(models, part)
    return Partition(part, *_counts(part, sizes, options.parts), tuple(rounds), kept)


def partition_corpora(
    corpora: Iterable[Corpus | Mixture] | Mapping[str, Corpus | Mixture],
    tokenizer: Tokenizer,
    options: PartitionOptions,
    say: Callable[[str], None] = lambda line: None,
) -> Parts:
    """Splits the documents of tokenised corpora, whichever corpus they are from, into k corpora.

    The shares of a `Mixture` are left behind: each of its documents counts once.  `UserError` as
    `partition`.
    """
    whole = _Joined(corpora)
    found = partition(whole.tokens, whole.starts, tokenizer.token_bytes, options, say)
    return whole.parts(found, tokenizer, ["partition", dataclasses.asdict(options)])


def deal_corpora(
    corpora: Iterable[Corpus | Mixture] | Mapping[str, Corpus | Mixture],
    tokenizer: Tokenizer,
    parts: int,
    seed: int = 0,
) -> Parts:
    """The control: the same documents dealt at random into k corpora of as many tokens."""
    options = PartitionOptions(parts, seed=seed)
    whole = _Joined(corpora)
    sizes = np.diff(whole.starts)
    need_documents(len(sizes), parts)
    part = at_random(sizes, parts, 0.0, np.random.default_rng(options.seed))
    found = Partition(part, *_counts(part, sizes, parts), (), 0)
    return whole.parts(found, tokenizer, ["random", parts, seed])


def need_documents(count: int, parts: int) -> None:
    """`UserError` for fewer documents than parts."""
    if count < parts:
        raise UserError(
            f"{count} documents cannot make {parts} parts: give more text, or fewer parts"
        )


class _Joined:
    """The documents of several corpora as one row of tokens."""

    def __init__(self, corpora):
        named = corpora.items() if isinstance(corpora, Mapping) else ((None, c) for c in corpora)
        each = [
            (name, corpus)
            for name, source in named
            for corpus in (source.corpora if isinstance(source, Mixture) else [source])
        ]
        if not each:
            raise UserError("no corpus to split: name at least one data source")
        # Ids of one tokenizer have one type.
        self.tokens = np.concatenate([corpus.tokens for _, corpus in each])
        ends = np.cumsum(np.concatenate([np.diff(corpus.starts) for _, corpus in each]))
        self.starts = np.concatenate([[0], ends]).astype(np.int64)
        self.names = [
            document if name is None else f"{name}: {document}"
            for name, corpus in each
            for document in corpus.names
        ]
        self.fingerprints = [corpus.fingerprint for _, corpus in each]

    def parts(self, found: Partition, tokenizer: Tokenizer, how: list) -> Parts:
        sizes, corpora = np.diff(self.starts), []
        for k in range(len(found.tokens)):
            places = np.flatnonzero(found.part == k)
            tokens = tokens_of(self.tokens, sizes, places)
            key = json.dumps([*how, k, tokenizer.fingerprint, self.fingerprints])
            corpora.append(
                Corpus(
                    tokens,
                    np.concatenate([[0], np.cumsum(sizes[places])]).astype(np.int64),
                    int(tokenizer.token_bytes[tokens].sum()),
                    hashlib.sha256(key.encode()).hexdigest(),
                    [self.names[n] for n in places],
                )
            )
        return Parts(tuple(corpora), found)


def _counts(part, sizes, parts):
    return np.bincount(part, sizes, parts).astype(np.int64), np.bincount(part, minlength=parts)


def _line(number: int, found: Round) -> str:
    how = f"{found.moved:.1%} of the tokens moved" if number else "dealt at random"
    return f"round {number}: {found.bits_per_byte:.4f} bits/byte, {how}"
