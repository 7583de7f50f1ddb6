"""Documents that explain each other are found, known ones and strangers are left out."""

import numpy as np
import pytest

from cr_jax.continual import discover
from cr_jax.continual.discover import Pairs, separate

V = 64


def chain(seed):
    """A domain: which token follows which."""
    random = np.random.default_rng(seed)
    return random.dirichlet(np.full(V, 0.05), V)


def document(domain, seed, length=300):
    random = np.random.default_rng([9, seed])
    ids = [int(random.integers(V))]
    for _ in range(length - 1):
        ids.append(int(random.choice(V, p=domain[ids[-1]])))
    return np.array(ids)


BANK = chain(0)


def heap(*domains):
    """(documents, their nats by the bank's own domain, whose they are); domains: (seed, count)."""
    documents, whose = [], []
    for seed, count in domains:
        for i in range(count):
            documents.append(document(chain(seed), 100 * seed + i))
            whose.append(seed)
    known = [-np.log(0.9 * BANK[x[:-1], x[1:]] + 0.1 / V) for x in documents]
    return documents, known, np.array(whose)


@pytest.fixture(autouse=True)
def weak_prior(monkeypatch):
    monkeypatch.setattr(discover, "PRIOR", 8.0)  # so small a vocabulary needs fewer counts


def test_two_new_domains_at_once_are_separated_and_known_text_is_left_out():
    documents, known, whose = heap((1, 12), (0, 6), (2, 9))
    first, second = separate(documents, known, V)
    assert set(first.members) == set(np.flatnonzero(whose == 1))
    assert set(second.members) == set(np.flatnonzero(whose == 2))
    assert first.tokens == 12 * 300 and min(first.saved, second.saved) > 0.5
    again = separate(documents, known, V)
    assert again == [first, second]


def test_known_text_and_strangers_make_no_cluster_that_saves():
    documents, known, _ = heap((0, 12))
    assert all(c.saved < 0.05 for c in separate(documents, known, V))
    strangers, known, _ = heap(*((seed, 1) for seed in range(3, 13)))
    assert all(c.saved < 0.05 for c in separate(strangers, known, V))
    assert separate([], [], V) == []


def test_a_document_is_never_counted_in_the_model_that_prices_it():
    documents, known, _ = heap((1, 3))
    pairs = Pairs(documents, V)
    with_all, others = pairs.counts([0, 1, 2]), pairs.counts([1, 2])
    assert pairs.saved(0, known[0], with_all, True) == pytest.approx(
        pairs.saved(0, known[0], others, False)
    )
    assert pairs.saved(0, known[0], with_all, False) > pairs.saved(0, known[0], others, False)


def test_counts_make_a_distribution_of_the_banks_prediction():
    documents, *_ = heap((1, 2))
    pairs = Pairs(documents, V)
    counts = pairs.counts([0, 1])
    v = int(documents[0][0])
    n = np.zeros(V)
    here = pairs.before == v
    n[pairs.numbers[here] - v * V] = counts.n[here]
    bank = 0.9 * BANK[v] + 0.1 / V
    p = discover.changed(n, counts.total[v], -np.log(bank))
    assert p.sum() == pytest.approx(1) and (p > 0).all() and not np.allclose(p, bank)


def test_documents_of_one_token_are_borne():
    documents, known, _ = heap((1, 4))
    short = [np.array([3]), *documents]
    found = separate(short, [np.zeros(0), *known], V)
    assert [set(c.members) for c in found] == [{1, 2, 3, 4}]


def test_counts_are_made_in_one_pass_over_the_members(monkeypatch):
    documents = heap((1, 12))[0]
    pairs, calls, count = Pairs(documents, V), [], np.bincount
    monkeypatch.setattr(discover.np, "bincount", lambda *a, **k: calls.append(1) or count(*a, **k))
    some = pairs.counts(range(0, 12, 2))
    assert len(calls) == 2  # of pairs and of the tokens before, however many members there are
    of_each = [pairs.counts([i]) for i in range(0, 12, 2)]
    assert np.array_equal(some.n, sum(one.n for one in of_each))
    assert np.array_equal(some.total, sum(one.total for one in of_each))
    assert not pairs.counts([]).n.any() and len(pairs.counts([]).n) == len(some.n)
