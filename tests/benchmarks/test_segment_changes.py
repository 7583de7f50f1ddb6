"""Change points of score vectors whose true switches are known."""

import sys

import numpy as np
import pytest

from benchmarks.segment_changes import cut
from cr_jax.errors import UserError


def _costs(gap: float) -> tuple[np.ndarray, np.ndarray]:
    """Three experts, 400 tokens of each one's text; its own costs `gap` nats less."""
    draw, own = np.random.default_rng(0), np.repeat([0, 1, 2], 400)
    return np.stack([draw.normal(2 + gap * (own != k), 1) for k in range(3)]), own


def test_switches_between_far_sources_are_found_exactly():
    cost, own = _costs(gap=3.0)
    assert np.array_equal(cut(cost, 40.0), own)


def test_sources_that_cost_the_same_are_one_piece():
    cost, _ = _costs(gap=0.0)
    assert not np.diff(cut(cost, 40.0)).any()


def test_a_penalty_above_all_that_cuts_gain_leaves_one_piece():
    cost, own = _costs(gap=3.0)
    assert not np.diff(cut(cost, 1e9)).any() and np.diff(own).any()


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ruptures", None)
    with pytest.raises(UserError, match="pip install ruptures"):
        cut(_costs(3.0)[0], 40.0)
