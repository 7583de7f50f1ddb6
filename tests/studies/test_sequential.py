"""The test that stops early: by hand, against the true model, and when windows repeat."""

import numpy as np
import pytest

from cr_jax.errors import UserError
from cr_jax.studies.sequential import Evidence, curve, fit_evidence, prefixes, sequential


def drawn(count, windows, seed, tokens=4, repeat=False):
    """Documents whose nll differences are exact log likelihood ratios: N(+-m, 2 m) by home."""
    rng = np.random.default_rng(seed)
    mean, found = 0.6, []
    for i in range(count):
        home = i % 2
        gap = rng.normal(mean, np.sqrt(2 * mean), 1 if repeat else windows) * np.ones(windows)
        nll = np.full((2, windows), 50.0)
        nll[1 - home] += gap
        found.append((home, *prefixes(nll, np.full(windows, tokens))))
    return found


def test_by_hand():
    nll, tokens = np.array([[3.0, 1.0, 1.0], [2.0, 4.0, 9.0]]), np.array([4, 4, 4])
    # Differences of the sums: 1, -2, -10; posteriors of the leader 0.73, 0.88, 0.99995.
    assert sequential(nll, tokens, 0.7) == (1, 1)
    assert sequential(nll, tokens, 0.8) == (0, 2)
    assert sequential(nll, tokens, 0.9) == (0, 3)
    assert sequential(nll, tokens, 1.1) == (0, 3)  # never certain: all windows
    # Ten times as hot: 0.52, 0.55, 0.73.
    assert sequential(nll, tokens, 0.7, Evidence(10.0, 1.0)) == (0, 3)


def test_the_posterior_is_softmax_of_minus_the_sums():
    nll = np.random.default_rng(0).normal(9, 2, (3, 5))
    residual, read = prefixes(nll, np.array([3, 1, 4, 1, 5]))
    want = np.exp(-np.cumsum(nll, 1))
    np.testing.assert_allclose(Evidence().posterior(residual, read), want / want.sum(0)[None])


def test_true_likelihoods_need_no_correction():
    found = fit_evidence(drawn(1500, 6, 0))
    assert found.power == 1.0 and 0.7 < found.temperature < 1.4


def test_windows_that_repeat_each_other_are_no_new_evidence():
    """Power 0: what counts is the mean residual, however many windows were read."""
    found = fit_evidence(drawn(1500, 6, 0, repeat=True))
    assert found.power == 0.0 and found.temperature == pytest.approx(1 / 4, rel=0.3)


def test_stopping_is_as_right_as_it_claims_and_cheaper_than_reading_all():
    evidence = fit_evidence(drawn(1000, 32, 1))
    found = curve(drawn(1000, 32, 2), evidence, (0.8, 0.95))
    for row in found["rows"]:
        assert row["accuracy"] > row["threshold"] - 0.02
    low, high = found["rows"]
    assert low["windows"] < high["windows"] < 12 < found["fixed"][-1]["windows"] == 32
    fixed = {row["windows_at_most"]: row["accuracy"] for row in found["fixed"]}
    assert fixed[1] < fixed[4] < fixed[32]
    # Sequential beats always reading as many windows.
    assert high["accuracy"] > fixed[4] and high["windows"] < 8


def test_the_curve_agrees_with_one_document_at_a_time():
    rng = np.random.default_rng(3)
    sums = [rng.normal(9, 2, (3, w)) for w in (1, 4, 9)]
    documents = [(0, *prefixes(x, np.full(x.shape[1], 5))) for x in sums]
    stops = [sequential(x, np.full(x.shape[1], 5), 0.9, Evidence(2.0, 1.0)) for x in sums]
    (row,) = curve(documents, Evidence(2.0, 1.0), (0.9,))["rows"]
    assert row["accuracy"] == np.mean([e == 0 for e, _ in stops])
    assert row["windows"] == np.mean([n for _, n in stops])


def test_clones_are_never_certain():
    nll = np.repeat(np.random.default_rng(4).normal(9, 2, (1, 7)), 3, 0)
    assert sequential(nll, np.full(7, 5), 0.5)[1] == 7


def test_bad_input_is_one_clear_line():
    with pytest.raises(UserError, match="first window"):
        sequential(np.zeros((2, 0)), np.zeros(0, int), 0.9)
    with pytest.raises(UserError, match="validation documents"):
        fit_evidence([])
