"""Capacity from curves: interpolation, monotone repair, censoring, the bound."""

import math

import numpy as np
import pytest

from cr_jax.errors import UserError
from cr_jax.studies.capacity.capacity import (
    BOUND,
    Capacity,
    against_bound,
    capacities,
    capacity,
    decreasing,
    logit,
    miss,
)

LEVEL = math.log(99)


def _curve(windows, star, slope=4.0):
    """TRA that is linear in log L on the logit scale and passes 99 % at `star`."""
    return [1 / (1 + math.exp(-(LEVEL + slope * math.log(star / w)))) for w in windows]


@pytest.mark.parametrize("star", [20.0, 64.0, 90.0])
def test_interpolation_finds_where_a_straight_curve_passes_the_threshold(star):
    windows = [16, 32, 64, 128]
    found, censored = capacity(windows, _curve(windows, star), [10**6] * 4)
    assert censored == ""
    assert found == pytest.approx(star, rel=1e-6)


def test_order_of_lines_does_not_matter_and_another_threshold_gives_another_capacity():
    windows, tra = [64, 16, 128, 32], _curve([64, 16, 128, 32], 40.0)
    assert capacity(windows, tra, [10**6] * 4)[0] == pytest.approx(40.0)
    assert capacity(windows, tra, [10**6] * 4, 0.9)[0] > 60


def test_a_curve_that_does_not_cross_is_censored_on_the_side_where_it_lies():
    windows = [16, 32, 64]
    assert capacity(windows, _curve(windows, 1000.0), [10**6] * 3) == (pytest.approx(64), "above")
    assert capacity(windows, _curve(windows, 5.0), [10**6] * 3) == (pytest.approx(16), "below")
    # Perfect and hopeless shares have no logit; they count as half a token from the end.
    assert capacity(windows, [1.0, 1.0, 1.0], [1000] * 3)[1] == "above"
    assert capacity(windows, [0.0, 0.0, 0.0], [1000] * 3)[1] == "below"
    assert np.isfinite(logit(np.array([0.0, 1.0]), np.array([10, 10]))).all()


def test_a_lucky_long_window_does_not_count_alone():
    """L* is where the pooled curve falls, so one outlier beyond a failure moves it only a bit."""
    windows, tokens = [16, 32, 64, 128], [10**6] * 4
    clean, _ = capacity(windows, [0.999, 0.97, 0.90, 0.50], tokens)
    lucky, censored = capacity(windows, [0.999, 0.97, 0.90, 0.985], tokens)
    assert censored == ""
    assert 16 < lucky < 32 and lucky == pytest.approx(clean, rel=0.1)


def test_pooling_keeps_falling_sequences_and_averages_rises():
    assert decreasing(np.array([3.0, 2.0, 1.0])).tolist() == [3, 2, 1]
    assert decreasing(np.array([3.0, 1.0, 2.0])).tolist() == [3, 1.5, 1.5]
    assert decreasing(np.array([0.0, 1.0, 5.0])).tolist() == [2, 2, 2]
    random = np.random.default_rng(0).normal(size=40)
    pooled = decreasing(random)
    assert (np.diff(pooled) <= 1e-12).all()
    assert pooled.sum() == pytest.approx(random.sum())


def test_a_window_measured_twice_is_an_error():
    with pytest.raises(UserError, match="twice"):
        capacity([16, 16], [0.9, 0.95], [100, 100])


def _row(window, tra, latents=2, seed=0, **more):
    return {
        "window": window,
        "tra": tra,
        "tokens": 10**6,
        "latents": latents,
        "d_latent": 32,
        "domain": "text",
        "size": "",
        "d_model": 64,
        "budget_tokens": 1000,
        "xz_bits": 2.0,
        "seed": seed,
        **more,
    }


def test_every_setting_and_seed_has_its_own_capacity():
    rows = [
        _row(w, t, m, s)
        for m, star in ((2, 20.0), (4, 1000.0))
        for s in (0, 1)
        for w, t in zip((16, 32), _curve((16, 32), star * (1 + 0.1 * s)))
    ]
    found = {(p.setting["latents"], p.seed): p for p in capacities(rows)}
    assert len(found) == 4
    assert found[2, 0].window == pytest.approx(20) and found[2, 1].window == pytest.approx(22)
    assert found[4, 0].censored == found[4, 1].censored == "above"


def test_the_bound_stands_beside_at_the_same_number_of_latents():
    point = lambda m: Capacity({"latents": m, "d_latent": 64}, 0, 32.0)
    for m, tokens in BOUND.items():
        (line,) = against_bound([point(m)])
        assert line["bound_window"] == pytest.approx(tokens)
        assert line["bound_numbers_per_token"] == pytest.approx(m * 768 / tokens)
        assert line["numbers_per_token"] == 2.0 * m
    (between,) = against_bound([point(3)])
    assert 192 < between["bound_window"] < 384
    (outside,) = against_bound([point(64)])
    assert outside["bound_window"] is None and outside["bound_numbers_per_token"] is None


def test_misses_name_ratio_and_side():
    said = {"window": 40.0, "low": 30.0, "high": 50.0}
    point = lambda window, censored="", seed=0: Capacity({"latents": 2}, seed, window, censored)
    near = miss(said, [point(44.0), point(36.0, seed=1)])
    assert near["inside"] and near["ratio"] == pytest.approx(math.sqrt(44 * 36) / 40)
    far = miss(said, [point(80.0)])
    assert not far["inside"] and far["ratio"] == pytest.approx(2)
    # Beyond the largest window of 45: 50 can still be true, of 64 it cannot.
    assert miss(said, [point(45.0, "above")])["inside"]
    assert not miss(said, [point(64.0, "above")])["inside"]
    assert not miss(said, [point(16.0, "below")])["inside"]
    assert miss(said, [point(64.0, "above")])["measured"] is None
