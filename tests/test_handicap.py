"""A head start makes a weak expert win its own text, and only as far as that is worth it."""

import numpy as np
import pytest

from cr_jax import handicap
from cr_jax.errors import UserError

NAMES = ("a", "b", "weak")


def world(behind, seed=0, n=400):
    """a and b win at home by 2 nats; `weak` stands `behind` the nearer of them on its own text."""
    rng = np.random.default_rng(seed)
    noise = lambda: 0.3 * rng.standard_normal(n)
    away = lambda: 5 + noise()
    home = 3 + noise()
    neighbour = 6 + noise()
    return {"a": np.stack([home, away(), 8 + noise()]), "b": np.stack([away(), home, 8 + noise()]),
            "weak": np.stack([neighbour, 7 + noise(), neighbour + behind + noise()])}


def test_a_share_of_its_own_windows_is_what_an_expert_gets():
    residuals = world(behind=2.0)
    for share in (0.5, 0.8, 0.95):
        found = handicap.handicaps(residuals, NAMES, share)
        won = (residuals["weak"] - found[:, None]).argmin(0) == 2
        assert won.mean() == pytest.approx(share, abs=0.01)
        assert found[0] == found[1] == 0  # they win at home without


def test_the_weak_expert_wins_its_text_on_new_windows_and_others_keep_theirs():
    fitted, new = world(2.0, seed=0), world(2.0, seed=1)
    share, found = handicap.choose(fitted, NAMES)
    plain = np.zeros(3)
    assert share > 0.8
    assert handicap.accuracy(new, NAMES, plain) < 0.7
    assert handicap.accuracy(new, NAMES, found) > 0.95
    assert np.mean((new["a"] - found[:, None]).argmin(0) == 0) > 0.99


def test_an_expert_beyond_help_gets_none():
    # what it would need to win at home takes all of its neighbours' text
    residuals = world(behind=8.0)
    assert handicap.accuracy(residuals, NAMES, handicap.handicaps(residuals, NAMES, 0.5)) < 0.5
    share, found = handicap.choose(residuals, NAMES)
    assert share == 0 and not found.any()


def test_a_strong_bank_needs_none():
    share, found = handicap.choose({n: r for n, r in world(-4.0).items()}, NAMES)
    assert share == 0 and not found.any()


def test_bad_input_is_refused():
    residuals = world(1.0)
    with pytest.raises(UserError, match=r"share=2 .* must lie in \[0, 1\]"):
        handicap.handicaps(residuals, NAMES, 2)
    with pytest.raises(UserError, match="weak: finite residuals of all 3"):
        handicap.handicaps({k: residuals[k] for k in "ab"}, NAMES, 0.5)
    with pytest.raises(UserError, match="a: finite residuals"):
        handicap.handicaps(residuals | {"a": residuals["a"] * np.nan}, NAMES, 0.5)
