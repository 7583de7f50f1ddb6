"""Metrics of known cuts, and the study on two alphabets, where fixed windows must lose."""

import numpy as np
import pytest
import tiny_bank

from cr_jax.data.windows import Windows
from cr_jax.scoring.batching import BatchSizes
from cr_jax.studies import segments


def labels(*runs):
    return np.concatenate([np.full(count, who) for who, count in runs])


TRUE = labels((0, 40), (1, 40), (0, 40))


def test_metrics_of_the_right_cut_and_of_none():
    right = segments.metrics(TRUE, TRUE)
    assert right == {
        "token_accuracy": 1.0,
        "boundary_f1": 1.0,
        "boundary_f1_32": 1.0,
        "pk": 0.0,
        "windowdiff": 0.0,
        "error": 0.0,
    }
    none = segments.metrics(labels((0, 120)), TRUE)
    assert none["token_accuracy"] == pytest.approx(2 / 3)
    assert none["boundary_f1"] == none["boundary_f1_32"] == 0.0
    # Of the 100 pairs at a distance of 20 tokens, 40 lie on both sides of a switch.
    assert none["pk"] == pytest.approx(0.4) and none["windowdiff"] == pytest.approx(0.4)


def test_a_late_cut_is_near_enough_or_not():
    late = segments.metrics(labels((0, 52), (1, 28), (0, 40)), TRUE)
    assert late["boundary_f1"] == 0.5 and late["boundary_f1_32"] == 1.0
    assert late["error"] == 6.0  # the median of 12 and 0
    # A cut too many costs precision; two cuts near one switch are not both right.
    more = segments.metrics(labels((0, 38), (2, 5), (1, 37), (0, 40)), TRUE)
    assert more["boundary_f1"] == pytest.approx(2 * 2 / 5)


def test_names_do_not_hide_a_wrong_boundary():
    renamed = segments.metrics(labels((1, 40), (0, 40), (1, 40)), TRUE)
    assert renamed["token_accuracy"] == 0.0 and renamed["boundary_f1"] == 1.0
    assert renamed["pk"] == renamed["windowdiff"] == 0.0


def test_hysteresis_stays_until_another_expert_leads():
    cost = np.array([[0.0] * 4 + [1.0] * 4 + [1.0] * 4, [1.0] * 4 + [0.8] * 4 + [0.0] * 4])
    assert segments.by_windows(cost, 4).tolist() == [0] * 4 + [1] * 8
    assert segments.by_windows(cost, 4, lead=0.3).tolist() == [0] * 8 + [1] * 4
    assert segments.by_windows(cost, 4, lead=2.0).tolist() == [0] * 12
    assert segments.by_windows(cost[:, :10], 4).tolist() == [0] * 4 + [1] * 6  # a short last window


def test_splices_have_pieces_of_the_lengths_asked_for():
    rows = np.arange(640, dtype=np.int32).reshape(40, 16)
    own = {
        name: Windows(rows + 1000 * i, np.ones(rows.shape, bool), np.zeros(40, np.int64))
        for i, name in enumerate("abc")
    }
    for text in segments.splices(own, (20, 50), seed=3, count=4):
        assert (text.ids // 1000 == text.owner).all()
        edges = np.flatnonzero(np.diff(text.owner)) + 1
        sizes = np.diff([0, *edges, len(text.owner)])
        assert len(sizes) == segments.PIECES and sizes.min() >= 20 and sizes.max() <= 50
        steps = np.diff(text.ids)
        assert (steps[np.setdiff1d(np.arange(len(steps)), edges - 1)] == 1).all()
    again = segments.splices(own, (20, 50), seed=3, count=4)
    assert all((a.ids == b.ids).all() for a, b in zip(again, segments.splices(own, (20, 50), 3, 4)))


def test_two_alphabets_are_cut_apart_and_fixed_windows_are_worse(monkeypatch):
    monkeypatch.setattr(segments, "LENGTHS", ((10, 20), (20, 60), (60, 90)))
    monkeypatch.setattr(segments, "TEXTS", 2)
    monkeypatch.setattr(segments, "MINIMA", (4, 8))
    bank = tiny_bank.trained_bank()
    own = {
        n: tiny_bank.windows(40, i, low, low + 10)
        for i, (n, low) in enumerate((("e0", 97), ("e1", 113)))
    }
    peers = {
        "oracle": lambda text: 5.0 * (text.owner != np.arange(2)[:, None]),
        "blind": lambda text: np.zeros((2, len(text.ids))),
    }
    found = segments.run(bank, own, own, 0, BatchSizes(experts=2, windows=8), peers)["segments"]
    assert found["splices"]["boundary_f1"] > 0.95 and found["splices"]["token_accuracy"] > 0.97
    fixed = found["baselines"]["fixed windows"]["splices"]
    # Windows of 16 tokens are off by up to 8, half of it on average.
    assert fixed["error"] >= 2 > found["splices"]["error"]
    assert fixed["token_accuracy"] < found["splices"]["token_accuracy"] - 0.02
    known = found["baselines"]["known switches"]["splices"]
    assert known["boundary_f1"] == 1.0 and known["token_accuracy"] > 0.97
    # A peer is cut by the same decoder: what knows all is right, what knows nothing cuts nowhere.
    assert found["baselines"]["oracle"]["splices"]["boundary_f1"] == 1.0
    assert found["baselines"]["blind"]["splices"]["boundary_f1"] == 0.0
    by_window = found["by_window"]
    assert by_window["16"]["fixed"] == fixed and set(by_window) >= {"32", "64"}
    assert by_window["16"]["fixed"]["error"] < by_window["128"]["fixed"]["error"]
    ways = found["adaptive"]
    assert ways["spans"]["tra"] > ways["fixed 16"]["tra"]
