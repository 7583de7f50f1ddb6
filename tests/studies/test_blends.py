"""Blends: exact shares, kept places, and curves of a world whose flip is known."""

import numpy as np
import pytest

from cr_jax.data import Windows
from cr_jax.errors import UserError
from cr_jax.studies import blends
from cr_jax.studies.sums import measure

L = 40


def full(value, count=6, window=L):
    return Windows(
        np.full((count, window), value, np.int32),
        np.ones((count, window), bool),
        np.arange(count, dtype=np.int64),
    )


@pytest.mark.parametrize("layout", blends.LAYOUTS)
@pytest.mark.parametrize("window", [1, 7, 64])
def test_the_share_is_exact_in_every_window(layout, window):
    for chunk in (1, 3, 100):
        for percent in range(0, 101, 7):
            chosen = blends.select(5, window, percent, layout, chunk, 0)
            assert (chosen.sum(-1) == round(window * percent / 100)).all()


def runs(row):
    return int((np.diff(row.astype(int), prepend=0) == 1).sum())


def test_layouts_differ_in_the_number_of_runs():
    one = blends.select(50, 64, 50, "contiguous", 4, 0)
    many = blends.select(50, 64, 50, "chunks", 4, 0)
    assert all(runs(row) == 1 for row in one)
    assert all(8 <= runs(row) <= 9 for row in many)  # 9 where one is cut by the window's ends
    starts = one.argmax(1)
    assert starts.min() < 8 and starts.max() > 24  # at random places
    longest = max(len(run) for row in many for run in "".join("ab"[int(x)] for x in row).split("a"))
    assert longest <= 4
    assert np.array_equal(one, blends.select(50, 64, 50, "contiguous", 4, 0))
    assert not np.array_equal(one, blends.select(50, 64, 50, "contiguous", 4, 1))


def test_tokens_keep_their_places_and_the_ends_are_the_originals():
    rng = np.random.default_rng(0)
    a, b = (
        Windows(
            rng.integers(lo, lo + 500, (6, L), np.int32),
            np.ones((6, L), bool),
            np.arange(6, dtype=np.int64),
        )
        for lo in (0, 500)
    )
    for layout in blends.LAYOUTS:
        made = blends.windows(a, b, (0, 30, 100), layout, 8)
        assert np.array_equal(made[0].tokens, b.tokens)
        assert np.array_equal(made[100].tokens, a.tokens)
        from_a = made[30].tokens < 500
        assert (from_a.sum(-1) == 12).all()
        assert np.array_equal(made[30].tokens, np.where(from_a, a.tokens, b.tokens))


def test_only_full_windows_are_blended():
    a = full(1)
    a.mask[0, -1] = False
    assert len(blends.windows(a, full(2), (50,))[50]) == 5
    a.mask[:, -1] = False
    for x, y in ((a, full(2)), (full(1), full(2, window=8))):
        with pytest.raises(UserError, match="full windows of the same length"):
            blends.windows(x, y)


def score(costs):
    """Expert e pays costs[e][0] nats for a token 1 of A, costs[e][1] for a 2 of B."""

    def of(windows):
        ones = (windows.tokens == 1).sum(-1)
        nll = np.array([[x * n + y * (L - n) for n in ones] for x, y in costs], float)
        return nll, np.zeros(nll.shape, int)

    return of


def curves(costs, layout="contiguous"):
    made = blends.windows(full(1), full(2), range(0, 101, 10), layout)
    found = blends.run(("a", "b", "c"), "a", "b", {layout: measure(score(costs), made)})
    assert found["a"] == "a" and list(found["layouts"]) == [layout]
    return found["layouts"][layout]


@pytest.mark.parametrize("layout", blends.LAYOUTS)
def test_equal_experts_flip_in_the_middle(layout):
    found = curves([(1, 3), (3.0001, 1), (9, 9)], layout)
    assert found["won_a"] == [0.0] * 5 + [1.0] * 6  # b's 3.0001 settles the tie at 50
    assert found["flip_residual"] == pytest.approx(50, abs=0.1)
    assert found["flip"] == pytest.approx(45) and found["width"] == pytest.approx(8)
    assert found["won_other"] == [0.0] * 11 and found["windows"] == 6
    np.testing.assert_allclose(found["residual_a"], 3 - 2 * np.arange(11) / 10)
    # The best of both is worst in the middle: the grey zone.
    assert np.argmax(found["residual_least"]) == 5


def test_a_generous_expert_flips_early_and_a_third_can_win_between():
    # a pays 1.5 for b's tokens: 1 s + 1.5 (1 - s) = 3 s + 1 (1 - s) at s = 0.2
    assert curves([(1, 1.5), (3, 1), (9, 9)])["flip_residual"] == pytest.approx(20)
    between = curves([(1, 3), (3, 1), (1.5, 1.5)])
    assert between["won_other"][5] == 1.0 and between["won_other"][0] == 0.0
    assert between["flip"] == pytest.approx(50)  # of the windows that a or b win: 20 b, 80 a


def test_clones_never_flip():
    found = curves([(1, 3), (1, 3), (1, 3)])
    assert found["flip"] is None and found["flip_residual"] is None and found["width"] is None


@pytest.mark.parametrize(
    ("y", "where"),
    [
        ([0.0, 0.4, 0.6, 0.9], 15),
        ([0.6, 0.9, 0.1, 0.7], None),
        ([0.1, 0.2, 0.3, 0.4], None),
        ([0.0, 1.0, 0.0, 1.0], 5),
        ([0.0, 0.0, 0.0, 0.5], 30),
    ],
)
def test_crossing_by_hand(y, where):
    found = blends.crossing(np.array([0, 10, 20, 30]), np.array(y), 0.5)
    assert found == (where if where is None else pytest.approx(where))


def test_bad_input_is_one_clear_line():
    for bad in ((-1, "chunks", 4), (101, "chunks", 4), (5, "lines", 4), (5, "chunks", 0)):
        with pytest.raises(UserError, match="a blend needs a percentage"):
            blends.select(1, L, *bad, 0)
    for pair in (("a", "a"), ("a", "z")):
        with pytest.raises(UserError, match="two experts"):
            blends.run(("a", "b"), *pair, {})
