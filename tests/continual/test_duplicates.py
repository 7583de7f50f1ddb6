"""Cross code length both ways tells a new domain from one that the bank has."""

import tracemalloc

import numpy as np
import pytest

from cr_jax.continual import discover, duplicates
from cr_jax.continual.duplicates import KNOWN, NEW, Nearness, drawn, nearness
from cr_jax.scoring.bigram_lookup import BigramLookup
from cr_jax.scoring.bigram_model import count

V = 48


def chain(seed):
    return np.random.default_rng(seed).dirichlet(np.full(V, 0.05), V)


def documents(domain, seed, number=12, length=300):
    random, made = np.random.default_rng(seed), []
    for _ in range(number):
        ids = [int(random.integers(V))]
        for _ in range(length - 1):
            ids.append(int(random.choice(V, p=domain[ids[-1]])))
        made.append(np.array(ids))
    return made


@pytest.fixture(scope="module")
def bigram():
    own = np.array(documents(chain(0), 0, 40))
    return count(own, np.ones(own.shape, bool), V)


@pytest.fixture(autouse=True)
def weak_prior(monkeypatch):
    monkeypatch.setattr(discover, "PRIOR", 32.0)


def near(bigram, domain, seed=5):
    own = documents(domain, seed)
    known = [BigramLookup([bigram]).token_nats(x[1:], int(x[0]))[:, 0].astype(float) for x in own]
    return nearness("old", bigram, own, known)


def test_new_text_is_far_known_text_near_and_a_mixture_between(bigram):
    old, new = chain(0), chain(1)
    far, same = near(bigram, new), near(bigram, old)
    half = near(bigram, 0.75 * old + 0.25 * new)
    assert far.verdict == "new" and far.gain > 0.4 and far.loss > 0.05
    assert same.verdict == "refuse" and abs(same.gain) < 0.15
    assert same.distance < half.distance < far.distance
    assert near(bigram, new) == far


@pytest.mark.parametrize(
    ("distance", "verdict"),
    [(NEW, "new"), (NEW - 1e-9, "extend"), (KNOWN, "extend"), (0, "refuse")],
)
def test_the_rule_has_a_number(distance, verdict):
    assert Nearness("old", float(distance), 0.0).verdict == verdict
    assert Nearness("old", 0.0, float(distance)).verdict == verdict


def test_drawn_text_costs_its_model_what_the_models_own_text_costs(bigram):
    ids, nats = drawn(bigram, 4000)
    priced = BigramLookup([bigram]).token_nats(ids[1:], int(ids[0]))[:, 0]
    np.testing.assert_allclose(nats, priced, atol=0.01)
    own = documents(chain(0), 7)
    real = np.mean([BigramLookup([bigram]).token_nats(x[1:], int(x[0])).mean() for x in own])
    assert np.mean(nats) == pytest.approx(real, abs=0.25)
    assert np.array_equal(drawn(bigram, 50)[0], ids[:50])
    assert not np.array_equal(drawn(bigram, 50, seed=1)[0], ids[:50])


def test_a_model_without_pairs_can_be_drawn_from():
    own = np.array(documents(chain(0), 0, 4))
    single = count(own, np.ones(own.shape, bool), V, max_bigrams=0)
    ids, nats = drawn(single, 200)
    assert len(ids) == 200 == len(nats) + 1 and len(duplicates.drawn(single, 1)[1]) == 0


def test_few_rows_are_held_while_text_is_drawn(bigram, monkeypatch):
    usual = drawn(bigram, 200)
    monkeypatch.setattr(duplicates, "ROWS", 1)
    assert all(np.array_equal(a, b) for a, b in zip(usual, drawn(bigram, 200), strict=True))
    monkeypatch.undo()
    size = 8192
    own = np.arange(size).reshape(1, -1)
    wide = count(own, np.ones(own.shape, bool), size, max_bigrams=0)
    tracemalloc.start()
    try:
        drawn(wide, 400)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * duplicates.ROWS * 2 * 8 * size < 400 * 2 * 8 * size
