"""Which windows of a document are looked at first, and what they say of the others."""

import math

import numpy as np
import pytest

from cr_jax.routing.looks import LOOKED, SHORTEST, SURE, look, sure
from cr_jax.routing.result import Route
from cr_jax.scoring.residuals import WindowSums

WINDOW = 8


def nats(cost, lead):
    """Of windows by three bigram models, the first of which is the nearest."""
    cost, lead = np.asarray(cost, float), np.asarray(lead, float)
    return np.stack([cost, cost + lead, cost + lead + 50], 1)


def whole(count):
    return np.full(count, WINDOW)


def test_windows_of_all_degrees_are_looked_at_and_each_stands_for_its_like():
    order = np.random.default_rng(0).permutation(4 * LOOKED)  # rank of each window
    found = look(nats(10 + order, 40 - order), whole(len(order)), WINDOW)
    assert sorted(order[found.at]) == [4 * i + 2 for i in range(LOOKED)]
    for window, one in enumerate(found.stand_in):
        assert one in found.at and order[one] // 4 == order[window] // 4


def test_windows_with_a_small_lead_are_as_novel_as_dear_ones():
    """Both numbers count: by the residual alone all windows here are alike."""
    order = np.arange(4 * LOOKED)
    found = look(nats(np.full(len(order), 10), 40 - order), whole(len(order)), WINDOW)
    assert found.at.tolist() == [4 * i + 2 for i in range(LOOKED)]


def test_short_documents_and_banks_of_one_have_no_look():
    long = nats(np.arange(SHORTEST), np.ones(SHORTEST))
    assert look(long, whole(SHORTEST), WINDOW) is not None
    assert look(long[1:], whole(SHORTEST - 1), WINDOW) is None
    assert look(long[:, :1], whole(SHORTEST), WINDOW) is None
    lengths = whole(SHORTEST)
    lengths[-1] = 1  # one whole window too few
    assert look(long, lengths, WINDOW) is None


def test_a_window_that_is_not_whole_is_not_looked_at_and_counts_by_its_tokens():
    lengths = np.append(whole(SHORTEST), 2)
    found = look(nats(np.arange(SHORTEST + 1), np.ones(SHORTEST + 1)), lengths, WINDOW)
    assert SHORTEST not in found.at and found.stand_in[-1] in found.at
    costs = np.full((2, SHORTEST + 1), np.inf)
    costs[0, found.at] = 8.0
    all_ = found.of_all(WindowSums(costs, surprise=costs / 4), lengths)
    np.testing.assert_array_equal(all_.residual[0], [8.0] * SHORTEST + [2.0])
    np.testing.assert_array_equal(all_.surprise[0], [2.0] * SHORTEST + [0.5])
    assert np.isinf(all_.residual[1]).all()  # an expert that did not score stays out


def test_a_look_says_more_of_a_document_than_its_beginning():
    """Experts cost what bigram models do, and some more: the first windows are the cheap ones."""
    rng = np.random.default_rng(1)
    off = {"look": [], "beginning": []}
    for _ in range(50):
        cost = np.sort(rng.gamma(4.0, 1.0, 27)) * WINDOW
        by_bigrams = nats(cost, rng.gamma(4.0, 1.0, 27))
        expert = cost + rng.normal(0, 0.1, 27) * WINDOW
        found = look(by_bigrams, whole(27), WINDOW)
        known = np.full((1, 27), np.inf)
        known[0, found.at] = expert[found.at]
        off["look"].append(found.of_all(WindowSums(known), whole(27)).residual.sum() - expert.sum())
        off["beginning"].append(27 * expert[:LOOKED].mean() - expert.sum())
    spread = {way: np.abs(x).mean() for way, x in off.items()}
    assert spread["look"] < spread["beginning"] / 4


@pytest.mark.parametrize(
    ("p", "expert", "want"),
    [(SURE, "a", True), (0.9 * SURE, "a", False), (0.5, None, False), (math.nan, "a", False)],
)
def test_only_a_text_that_is_known_by_far_needs_no_other_windows(p, expert, want):
    route = Route(expert, "a", 1.0, {"a": 2.0, "b": 3.0}, {"a": p, "b": 0.9}, 9, 72)
    assert sure(route) is want
