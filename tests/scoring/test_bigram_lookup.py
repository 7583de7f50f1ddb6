"""Numpy's look-ups of bigram models say what JAX's say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bank import TINY, fresh_bigram, refuses, windows

from cr_jax.host import memory
from cr_jax.scoring import bigram, bigram_lookup, bigram_model
from cr_jax.scoring.bigram_lookup import BigramLookup

MODELS = [fresh_bigram(i) for i in range(3)]


def test_each_window_costs_what_it_costs_in_jax(monkeypatch):
    monkeypatch.setattr(bigram_lookup, "ROWS", 7)  # parts end inside of windows
    some = windows(9, low=0, high=256)
    lengths = some.mask.sum(1)
    ours = BigramLookup(MODELS).sums(some.tokens[some.mask], np.cumsum(lengths) - lengths)
    theirs = bigram.residuals(bigram.table(MODELS), some.tokens, some.mask)
    np.testing.assert_allclose(ours.T, theirs, rtol=1e-5)


def test_a_document_is_read_across_its_windows():
    ids = windows(4).tokens.reshape(-1)
    lookup = BigramLookup(MODELS)
    whole = lookup.sums(ids, np.array([0]))
    cut = lookup.sums(ids, np.arange(0, len(ids), TINY.window))
    assert whole.shape == (1, 3) and not np.allclose(whole[0], cut.sum(0), rtol=1e-3)
    by_jax = bigram.bigram_nats(bigram.table(MODELS), ids[None], rows=1).sum((1, 2))
    np.testing.assert_allclose(whole[0], by_jax, rtol=1e-5)
    assert lookup.sums(ids, np.zeros(0, int)).shape == (0, 3)


def test_what_does_not_fit_into_memory_is_refused_beforehand(monkeypatch):
    dense = BigramLookup(MODELS).nats.nbytes
    monkeypatch.setattr(memory, "limit", lambda: dense)
    refuses(lambda: BigramLookup(MODELS), "3 bigram models", "exact")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 65_535), min_size=2, max_size=50), st.integers(0, 40))
def test_any_vocabulary_and_any_number_of_stored_pairs(ids, most):
    tokens = np.array([ids], np.int32)
    model = bigram_model.count(tokens, np.ones(tokens.shape, bool), 65_536, most)
    ours = BigramLookup([model]).sums(tokens[0], np.array([0]))[0, 0]
    theirs = bigram.bigram_nats(bigram.table([model]), tokens, rows=1).sum()
    assert ours == pytest.approx(float(theirs), rel=1e-4)
