"""The margin by position, of experts for which it is known."""

import made_experts
import numpy as np
import pytest
import tiny_bank

from cr_jax.studies.in_context.positions import by_position


def measured(monkeypatch, residual):
    made_experts.use(monkeypatch, residual)
    return by_position(made_experts.bank(), made_experts.own(4), made_experts.own(20, seed=1))


def test_a_margin_that_shrinks_is_told_from_one_that_does_not(monkeypatch):
    steady = measured(monkeypatch, made_experts.steady)
    assert steady["bank"]["late_over_early"] == pytest.approx(1.0)
    assert steady["bank"]["slope"] == pytest.approx(0.0, abs=1e-9)
    assert steady["bank"]["margin"] == pytest.approx([3.0] * 16)
    learning = measured(monkeypatch, made_experts.learning)
    place = np.arange(16)
    assert learning["bank"]["rival"] == pytest.approx((4 / (1 + place / 8) + 1).tolist())
    assert learning["bank"]["own"] == pytest.approx([1.0] * 16)
    assert learning["bank"]["late_over_early_95"][1] < 0.7 and learning["bank"]["slope_95"][1] < 0
    assert learning["rebuild"] == steady["rebuild"]  # the control stays
    assert learning["windows"] == 60


def test_a_place_that_says_nothing_is_routed_by_chance(monkeypatch):
    def blind_at_first(domain):
        cost = made_experts.steady(domain)
        cost[..., :8] = made_experts.OWN  # all alike: the first expert has it
        return cost

    pieces = measured(monkeypatch, blind_at_first)["bank"]["pieces"]
    assert pieces["tokens"] == 2
    assert pieces["right"] == pytest.approx([1 / 3] * 4 + [1.0] * 4)


def test_what_cannot_be_measured_is_refused():
    own = made_experts.own(4)
    one = tiny_bank.in_memory(1)
    tiny_bank.refuses(lambda: by_position(one, own, own), "two experts")
    short = {n: w.take(np.zeros(0, int)) for n, w in own.items()}
    tiny_bank.refuses(lambda: by_position(made_experts.bank(), short, own), "no full window")
