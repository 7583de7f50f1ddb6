"""Known laws are recovered within the error bars; where there is none, the fit says so."""

import json

import numpy as np
import pytest

from cr_jax.errors import UserError
from cr_jax.studies.capacity.capacity import BOUND, Capacity
from cr_jax.studies.capacity.power_law import bound_law, fit, predict

A, B, C = 0.4, 0.9, 0.7
SETTINGS = [(m, d) for m in (1, 2, 4, 8, 16) for d in (32, 64, 128)]


def _points(
    noise=0.05,
    seed=0,
    law=lambda m, d: A + B * np.log(m) + C * np.log(d),
    seeds=3,
    low=0.0,
    high=np.inf,
):
    rng = np.random.default_rng(seed)
    points = []
    for m, d in SETTINGS:
        for s in range(seeds):
            star = float(np.exp(law(m, d) + rng.normal(0, noise)))
            side = "below" if star < low else "above" if star > high else ""
            points.append(
                Capacity({"latents": m, "d_latent": d}, s, float(np.clip(star, low, high)), side)
            )
    return points


def test_a_law_without_noise_is_recovered_exactly():
    law = fit(_points(noise=0.0))
    assert law.terms == ("latents", "d_latent")
    assert law.coefficients == pytest.approx([A, B, C], abs=1e-6)
    assert law.verdict == "law" and law.r2 == pytest.approx(1)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """95 % intervals over 30 noisy samples: at least 24 of 30 hold each exponent (chance 0.2 %)."""
    held = np.zeros(2)
    widths = []
    for seed in range(30):
        law = fit(_points(noise=0.2, seed=seed), draws=100)
        for n, truth in enumerate((B, C)):
            low, high = law.interval(n + 1)
            held[n] += low <= truth <= high
            widths.append(high - low)
    assert (held >= 24).all(), held
    # Narrow enough to be of use: not every exponent fits into them.
    assert np.median(widths) < 0.5


def test_where_capacity_is_unrelated_the_fit_says_no_law():
    said = []
    for seed in range(20):
        rng = np.random.default_rng(100 + seed)
        level = {s: rng.normal(4, 0.8) for s in SETTINGS}
        # Seeds agree with each other: only the spread between settings shows that it is no law.
        law = fit(_points(0.02, seed, lambda m, d, level=level: level[m, d]), draws=100)
        said.append(law.verdict)
        assert min(np.diff(law.interval(n))[0] for n in (1, 2)) > 0.3
    assert said.count("no law") >= 15, said
    assert fit(_points(noise=0.2)).verdict == "law"


def test_censored_settings_pull_the_fit_and_dropping_them_would_bias_it():
    truth, windows = _points(noise=0.25, seed=5), (40.0, 200.0)
    cut = _points(noise=0.25, seed=5, low=windows[0], high=windows[1])
    law = fit(cut, draws=60)
    assert law.counts["above"] >= 3 and law.counts["below"] >= 3
    assert sum(law.counts.values()) == len(truth)
    kept = fit([p for p in cut if not p.censored], draws=60)
    wrong = lambda found: np.abs(found.coefficients[1:] - [B, C]).sum()
    assert wrong(law) < wrong(kept)
    for n, value in ((1, B), (2, C)):
        low, high = law.interval(n)
        assert low <= value <= high


def test_when_nothing_crosses_the_law_is_undetermined_not_invented():
    none = fit(_points(low=1e6))
    assert none.verdict == "undetermined" and none.counts == {
        "exact": 0,
        "above": 0,
        "below": len(SETTINGS) * 3,
    }
    assert "0 of 15 settings" in none.reason and "widen the windows" in str(none)
    assert none.to_json()["exponents"]["latents"] == {"value": None, "interval_95": [None, None]}
    with pytest.raises(UserError, match="no law to predict from"):
        predict(none, {"latents": 4, "d_latent": 32})
    one = [p for p in _points() if p.setting == {"latents": 4, "d_latent": 32}]
    assert fit(one).verdict == "undetermined"


def test_terms_that_always_move_together_are_not_told_apart():
    tied = [Capacity({"latents": m, "d_latent": 16 * m}, 0, 10.0 * m) for m in (1, 2, 4, 8, 16)]
    assert fit(tied).verdict == "undetermined"
    assert fit(tied, ("latents",)).coefficients[1] == pytest.approx(1)


def test_predictions_of_unseen_settings_hold_and_widen_away_from_the_data():
    law = fit(_points(noise=0.1, seed=3))
    truth = lambda m, d: float(np.exp(A + B * np.log(m) + C * np.log(d)))
    for m, d in ((3, 48), (32, 64), (64, 512)):
        said = predict(law, {"latents": m, "d_latent": d})
        assert said["low"] <= truth(m, d) <= said["high"]
        assert said["low"] < said["window"] < said["high"]
    width = lambda m, d: np.log(
        (p := predict(law, {"latents": m, "d_latent": d}))["high"] / p["low"]
    )
    assert width(1024, 4096) > width(4, 64)
    with pytest.raises(UserError, match="needs d_latent"):
        predict(law, {"latents": 3})


def test_more_noise_between_seeds_means_wider_bars():
    width = lambda noise: np.diff(fit(_points(noise=noise, seed=2)).interval(1))[0]
    assert width(0.4) > 2 * width(0.05)


def test_the_published_bound_has_an_exponent_just_below_one():
    law = bound_law()
    low, high = law.interval(1)
    assert law.counts["exact"] == len(BOUND) == 6
    assert 0.85 < law.coefficients[1] < 1 and low < law.coefficients[1] < high
    json.dumps(law.to_json(), allow_nan=False)
