"""Linear n-grams price tokens so that the decoder cuts two alphabets apart."""

import dataclasses
import json

import numpy as np
import pytest
import tiny_bank

from benchmarks import segment_curves, segment_ngrams
from cr_jax.scoring.batching import BatchSizes
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


def test_fixed_windows_cost_more_around_a_switch_than_spans_do(bank, own, monkeypatch, tmp_path):
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

    pytest.importorskip("matplotlib")
    file = tmp_path / "segments.json"
    file.write_text(json.dumps({"curves": found}))
    assert segment_curves.main([str(file)]) == 0
    assert (tmp_path / "segments.png").read_bytes()[:4] == b"\x89PNG"


def test_a_record_without_curves_is_refused(tmp_path, capsys):
    (tmp_path / "x.json").write_text("{}")
    assert segment_curves.main([str(tmp_path / "x.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_spans_are_encoded_from_their_own_first_token(bank):
    ids = np.concatenate([tiny_bank.windows(3).tokens.ravel()[:40]])
    who = np.repeat([0, 1, 0], [9, 20, 11])
    sizes = BatchSizes(experts=2, windows=8)
    nats = segment_curves.encoded_anew(bank, ids, who, sizes)
    alone = segment_curves.encoded_anew(bank, ids[9:29], who[9:29], sizes)
    np.testing.assert_allclose(nats[9:29], alone, rtol=1e-5)
    whole = segment_curves.encoded_anew(bank, ids, np.zeros(40, int), sizes)
    assert np.abs(whole[29:] - nats[29:]).max() > 1e-3  # there its window begins elsewhere
