"""Linear n-grams price tokens so that the decoder cuts two alphabets apart."""

import dataclasses

import numpy as np
import pytest
import tiny_bank

from benchmarks import segment_ngrams
from cr_jax.studies import segments

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def bank():
    return tiny_bank.trained_bank()


@pytest.fixture(scope="module")
def own():
    return {
        name: tiny_bank.windows(60, i, low, low + 10)
        for i, (name, low) in enumerate((("e0", 97), ("e1", 113)))
    }


def test_token_n_grams_and_lines_know_their_domain(bank, own):
    text = segments.splices(own, (60, 120), seed=1, count=1)[0]
    ids = text.ids.copy()
    edges = np.flatnonzero(np.diff(text.owner)) + 1
    ids[edges - 1] = ord("\n")  # lines end where pieces do
    text = segments.Splice(ids, text.owner)
    lines = {n: dataclasses.replace(w, tokens=w.tokens.copy()) for n, w in own.items()}
    for w in lines.values():
        w.tokens[::3, 7] = ord("\n")
    found = segment_ngrams.peers(bank, lines)
    assert len(found) == 2
    for prices in found.values():
        cost = prices(text)
        assert cost.shape == (2, len(ids)) and np.isfinite(cost).all()
        right = segments.metrics(segments.decoded(cost, min(segments.PEER_SWITCHES), 8), text.owner)
        assert right["token_accuracy"] > 0.97 and right["boundary_f1"] > 0.9
        # Named the other way round they are wrong: the order of domains is the bank's.
        assert np.mean(cost.argmin(0) == text.owner) > 0.9
    by_line = found["linear character n-grams, per line"](text)
    first = by_line[:, : edges[0]]
    np.testing.assert_allclose(first, first[:, :1].repeat(edges[0], 1))
    np.testing.assert_allclose(np.exp(-first.sum(1)).sum(), 1, atol=1e-6)  # -log p of the line
