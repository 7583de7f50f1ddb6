"""Text without labels falls into its kinds; what is dealt at random does not."""

import dataclasses
import functools
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_corpora
from tiny_corpora import NAMES, TOKENIZER

from cr_jax.data import Corpus, Mixture
from cr_jax.errors import UserError
from cr_jax.modular import rounds
from cr_jax.modular.partition import PartitionOptions, partition, partition_corpora, split_corpora
from cr_jax.scoring import bigram

DOCUMENTS = 60  # of each kind


@functools.cache
def corpora():
    """One corpus per kind of text, of documents of several lengths."""
    return {kind: corpus(kind) for kind in NAMES}


def corpus(kind, documents=DOCUMENTS):
    rng = np.random.default_rng(NAMES.index(kind))
    rows = [
        np.append(TOKENIZER.encode(tiny_corpora.words(kind, i, count=count)), TOKENIZER.end_id)
        for i, count in enumerate(rng.integers(10, 60, documents))
    ]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    names = [f"{i}" for i in range(documents)]
    tokens = np.concatenate(rows).astype(np.uint16)
    return Corpus(tokens, starts, len(tokens) - documents, kind, names)


def options(**changes):
    return dataclasses.replace(PartitionOptions(3, rounds=4, slack=0.3), **changes)


def purity(parts, renamed=None):
    """Share of tokens that belong to the commonest kind of their part."""
    counts = np.zeros((len(parts.corpora), len(NAMES)))
    for k, part in enumerate(parts.corpora.values()):
        names = [renamed[name] if renamed else name for name in part.names]
        kinds = [NAMES.index(name.partition(":")[0]) for name in names]
        np.add.at(counts[k], kinds, np.diff(part.starts))
    return counts.max(1).sum() / counts.sum()


def test_three_alphabets_are_found_without_their_names():
    parts = split_corpora(corpora(), options())
    assert purity(parts) > 0.9
    names = [name for part in parts.corpora.values() for name in part.names]
    shuffled = np.random.default_rng(0).permutation(names)
    assert purity(parts, dict(zip(names, shuffled, strict=True))) < 0.5
    lines = parts.partition.rounds
    assert lines[0].bits_per_byte > 1.1 * lines[parts.partition.kept].bits_per_byte > 0
    falling = [each.bits_per_byte for each in lines[: parts.partition.kept + 1]]
    assert falling == sorted(falling, reverse=True)
    assert parts.partition.kept == np.argmin([r.bits_per_byte for r in lines])
    loads = parts.partition.tokens
    # What is dealt of each half may exceed the share by a document.
    assert loads.max() <= 1.3 * loads.mean() + 2 * np.diff(corpora()["digits"].starts).max()


def test_nothing_is_lost_and_nothing_doubled():
    parts = split_corpora(corpora(), options())
    whole = sorted(text for c in corpora().values() for text in texts(c))
    assert sorted(text for c in parts.corpora.values() for text in texts(c)) == whole
    assert list(parts.corpora) == ["part_00", "part_01", "part_02"]
    for k, part in enumerate(parts.corpora.values()):
        assert part.starts[-1] == len(part.tokens) == parts.partition.tokens[k]
        assert len(part.names) == parts.partition.documents[k]
        assert part.bytes == pytest.approx(len(part.tokens) - len(part.names), rel=0.01)
        kind, _, number = part.names[0].partition(": ")
        assert texts(part)[0] == texts(corpora()[kind])[int(number)]
    assert len({part.fingerprint for part in parts.corpora.values()}) == 3


def texts(found):
    ends = found.starts
    assert (found.tokens[ends[1:] - 1] == TOKENIZER.end_id).all()
    return [TOKENIZER.decode(found.tokens[a:b]) for a, b in itertools.pairwise(ends)]


def test_a_seed_says_all():
    a, b, c = (split_corpora(corpora(), options(seed=s)) for s in (0, 0, 1))
    assert np.array_equal(a.partition.part, b.partition.part)
    assert a.partition.rounds == b.partition.rounds
    keys = [[part.fingerprint for part in x.corpora.values()] for x in (a, b, c)]
    assert keys[0] == keys[1] and not set(keys[0]) & set(keys[2])
    assert a.partition.rounds != c.partition.rounds


def test_a_sample_is_enough_for_the_rounds():
    total = sum(len(c.tokens) for c in corpora().values())
    parts = split_corpora(corpora(), options(sample_tokens=total // 2))
    assert purity(parts) > 0.85
    assert parts.partition.tokens.sum() == total
    shares = Mixture(list(corpora().values()), [1, 2, 3])
    mixed = split_corpora([shares], options())
    plain = split_corpora(list(corpora().values()), options())
    assert np.array_equal(mixed.partition.part, plain.partition.part)


def test_a_document_is_never_assigned_by_a_model_that_has_counted_it(monkeypatch):
    counted, read = [], []
    count, nats = rounds.part_models, rounds.document_nats

    def counting(tokens, *rest):
        counted.append(set(tokens.tolist()))
        return count(tokens, *rest)

    def reading(models, tokens, sizes):
        read.append(set(tokens.tolist()))
        return nats(models, tokens, sizes)

    monkeypatch.setattr(rounds, "part_models", counting)
    monkeypatch.setattr(rounds, "document_nats", reading)
    tokens = np.arange(40, dtype=np.uint16)  # each document has ids of its own
    starts = np.arange(0, 41, 4, dtype=np.int64)
    partition(tokens, starts, 1.0, PartitionOptions(2, rounds=2))
    assert len(counted) == len(read) >= 4
    assert all(not a & b and len(a | b) == 40 for a, b in zip(counted, read, strict=True))


def test_nats_of_documents_are_sums_of_their_tokens():
    c = corpora()["letters"]
    sizes = np.diff(c.starts)
    models = rounds.part_models(c.tokens, np.arange(len(c.tokens)) % 2, 2, 258)
    found = rounds.document_nats(models, c.tokens, sizes)
    each = np.asarray(bigram.token_nats(*first(models[0]), jnp.asarray(c.tokens[None], jnp.int32)))[
        0
    ]
    wanted = np.add.reduceat(each.astype(np.float64), c.starts[:-1])
    # Rows of 512 tokens forget what came before them.
    assert np.abs(found[:, 0] - wanted).max() < 12
    assert np.abs(found[0, 0] - wanted[0]) < 1e-2
    assert not np.allclose(found[:, 0], found[:, 1])
    empty = rounds.part_models(c.tokens, np.zeros(len(c.tokens), int), 2, 258)
    assert np.array_equal(empty[0].alone, empty[1].alone)  # a part without text knows all of it


def first(model):
    table = bigram.table([model])
    return (bigram.BigramTable(*(x[0] for x in table)),)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: PartitionOptions(1), "parts=1: text is split into 2 parts or more"),
        (lambda: PartitionOptions(2, rounds=0), "needs 1 round or more"),
        (lambda: PartitionOptions(2, slack=float("nan")), "a slack of 0 or more"),
        (lambda: partition_corpora([corpus("marks", 5)], 6), "5 documents cannot make 6 parts"),
        (lambda: partition_corpora({}, 2), "no corpus to split"),
    ],
)
def test_what_makes_no_partition_is_one_line(call, says):
    with pytest.raises(UserError, match=says):
        call()


def test_the_usual_options_need_but_the_number_of_parts():
    found = partition_corpora(corpora(), 3, seed=1)
    whole = split_corpora(corpora(), PartitionOptions(3, seed=1)).corpora
    assert [part.names for part in found.values()] == [part.names for part in whole.values()]


def test_as_many_documents_as_parts_are_one_each():
    parts = split_corpora([corpus("marks", 5)], PartitionOptions(5, rounds=1))
    assert parts.partition.documents.tolist() == [1] * 5
