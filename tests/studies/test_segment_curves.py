"""Curves around a switch: fixed windows have a grey zone that spans take away."""

import numpy as np
import pytest
import tiny_bank

from cr_jax.scoring.batching import BatchSizes
from cr_jax.studies import segment_curves, segments


@pytest.fixture(scope="module")
def bank():
    return tiny_bank.trained_bank()


@pytest.fixture(scope="module")
def own():
    return {
        name: tiny_bank.windows(60, i, low, low + 10)
        for i, (name, low) in enumerate((("e0", 97), ("e1", 113)))
    }


def test_fixed_windows_cost_more_around_a_switch_than_spans_do(bank, own, monkeypatch):
    monkeypatch.setattr(segment_curves, "LENGTHS", ((20, 40), (60, 90)))
    monkeypatch.setattr(segment_curves, "AROUND", 24)
    monkeypatch.setattr(segments, "TEXTS", 2)
    monkeypatch.setattr(segments, "NEAR", 2)  # no window of 16 tokens is off by more than 8
    chosen = {name: {"switch": 4.0, "minimum": 8} for name in list(segments.WAYS)[:2]}
    sizes = BatchSizes(experts=2, windows=8)
    monkeypatch.setattr(BatchSizes, "for_device", classmethod(lambda cls: sizes))
    found = segment_curves.curves(bank, own, chosen, seed=0)
    assert found["f1"]["tokens"] == [30, 75] and found["f1"]["experts"][1] > 0.9
    assert found["f1"]["fixed windows"][1] < found["f1"]["experts"][1]
    at = {k: np.array(v) for k, v in found["at_switch"].items()}
    near, far = np.abs(at["token"] + 0.5) < 8, np.abs(at["token"] + 0.5) > 16
    assert at["fixed windows"][near].mean() > at["spans"][near].mean() + 0.2
    # Far from a switch there is no grey zone to take away.
    gap = at["fixed windows"] - at["spans"]
    assert abs(gap[far].mean()) < gap[near].mean() / 2


def test_spans_are_encoded_from_their_own_first_token(bank):
    ids = np.concatenate([tiny_bank.windows(3).tokens.ravel()[:40]])
    who = np.repeat([0, 1, 0], [9, 20, 11])
    sizes = BatchSizes(experts=2, windows=8)
    nats = segment_curves.encoded_anew(bank, ids, who, sizes)
    alone = segment_curves.encoded_anew(bank, ids[9:29], who[9:29], sizes)
    np.testing.assert_allclose(nats[9:29], alone, rtol=1e-5)
    whole = segment_curves.encoded_anew(bank, ids, np.zeros(40, int), sizes)
    assert np.abs(whole[29:] - nats[29:]).max() > 1e-3  # there its window begins elsewhere
