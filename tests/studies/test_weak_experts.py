"""An offset makes a weak expert win its own text, and only as far as that is worth it."""

import numpy as np
import pytest

from cr_jax.errors import UserError
from cr_jax.studies import weak_experts

NAMES = ("a", "b", "weak")


def world(behind, seed=0, n=400):
    """a and b win at home by 2 nats; `weak` stands `behind` the nearer of them on its own text."""
    rng = np.random.default_rng(seed)
    noise = lambda: 0.3 * rng.standard_normal(n)
    away = lambda: 5 + noise()
    home = 3 + noise()
    neighbour = 6 + noise()
    return {
        "a": np.stack([home, away(), 8 + noise()]),
        "b": np.stack([away(), home, 8 + noise()]),
        "weak": np.stack([neighbour, 7 + noise(), neighbour + behind + noise()]),
    }


def test_a_share_of_its_own_windows_is_what_an_expert_gets():
    residuals = world(behind=2.0)
    for share in (0.5, 0.8, 0.95):
        found = weak_experts.own_offsets(residuals, NAMES, share)
        won = (residuals["weak"] - found[:, None]).argmin(0) == 2
        assert won.mean() == pytest.approx(share, abs=0.01)
        assert found[0] == found[1] == 0  # they win at home without


def test_the_weak_expert_wins_its_text_on_new_windows_and_others_keep_theirs():
    fitted, new = world(2.0, seed=0), world(2.0, seed=1)
    share, found = weak_experts.choose(fitted, NAMES)
    plain = np.zeros(3)
    assert share > 0.8
    assert weak_experts.accuracy(new, NAMES, plain) < 0.7
    assert weak_experts.accuracy(new, NAMES, found) > 0.95
    assert np.mean((new["a"] - found[:, None]).argmin(0) == 0) > 0.99


def test_an_expert_beyond_help_gets_none():
    # what it would need to win at home takes all of its neighbours' text
    residuals = world(behind=8.0)
    half = weak_experts.own_offsets(residuals, NAMES, 0.5)
    assert weak_experts.accuracy(residuals, NAMES, half) < 0.5
    share, found = weak_experts.choose(residuals, NAMES)
    assert share == 0 and not found.any()


def test_a_strong_bank_needs_none():
    share, found = weak_experts.choose({n: r for n, r in world(-4.0).items()}, NAMES)
    assert share == 0 and not found.any()


def test_bad_input_is_refused():
    residuals = world(1.0)
    with pytest.raises(UserError, match=r"share=2 .* must lie in \[0, 1\]"):
        weak_experts.own_offsets(residuals, NAMES, 2)
    with pytest.raises(UserError, match="weak: finite residuals of all 3"):
        weak_experts.own_offsets({k: residuals[k] for k in "ab"}, NAMES, 0.5)
    with pytest.raises(UserError, match="a: finite residuals"):
        weak_experts.own_offsets(residuals | {"a": residuals["a"] * np.nan}, NAMES, 0.5)


def test_text_beyond_what_is_typical_leaves_the_neighbour():
    """`weak` needs 6 nats on its own text, b 5: typical of weak, far beyond b's usual 3."""
    valid, test = world(2.0, seed=0), world(2.0, seed=1)
    found = weak_experts.typicality(valid, test, NAMES)
    rows = {r["weight"]: r for r in found["rows"]}
    assert rows[0.0]["per_domain"]["weak"] < 0.1 and found["chosen_on_valid"] > 0
    assert rows[found["chosen_on_valid"]]["per_domain"]["weak"] > 0.9
    assert rows[found["chosen_on_valid"]]["per_domain"]["a"] > 0.95


def test_typicality_leaves_what_is_typical_alone():
    residual = np.array([[1.0, 3.0], [2.0, 2.5]])
    found = weak_experts.with_typicality_penalty(residual, np.array([1.5, 3.0]), 2.0)
    np.testing.assert_allclose(found, [[1.0, 6.0], [2.0, 2.5]])
