"""Offsets are the least that make each expert the nearest in a share of its windows."""

import numpy as np
import pytest

from cr_jax.scoring.offsets import fit_offsets, least_offset


def test_the_least_by_hand():
    residuals = np.array([[1.0, 1, 1, 1], [0.5, 2, 3, 4], [9, 9, 9, 9]])
    assert least_offset(residuals, 1, 1 / 3) == 1
    assert least_offset(residuals, 1, 0.5) == 2  # the quantile is rounded up
    assert least_offset(residuals, 1, 1.0) == 3
    assert least_offset(residuals, 1, 0.0) == 0  # it is ahead there already
    assert least_offset(residuals, 2, 0.5) == 8  # behind by 8.5, 8, 8, 8
    assert least_offset(residuals[:1], 0, 1.0) == 0


def test_offsets_answer_each_other():
    """b is behind a by 1 and c behind b by 1 on their own windows: c needs what b got, too."""
    rng = np.random.default_rng(0)
    near = lambda *level: np.array(level)[:, None] + 0.01 * rng.standard_normal((3, 40))
    residuals = np.concatenate([near(1.0, 5, 9), near(2.0, 3, 9), near(9.0, 4, 5)], 1)
    winner = np.repeat([0, 1, 2], 40)
    found = fit_offsets(residuals, winner)
    assert found == pytest.approx([0, 1, 2], abs=0.02)
    alone = [least_offset(residuals[:, winner == e], e, 0.5) for e in range(3)]
    assert alone == pytest.approx([0, 1, 1], abs=0.02)
    ahead = (residuals - found[:, None]).argmin(0) == winner
    assert [ahead[winner == e].mean() for e in (1, 2)] == pytest.approx([0.5, 0.5], abs=0.03)


def test_too_few_windows_and_residuals_that_are_not_finite_do_not_count():
    residuals = np.tile([[1.0], [2.0]], 20)
    winner = np.repeat([0, 1], [13, 7])
    assert fit_offsets(residuals, winner).tolist() == [0, 0]
    assert fit_offsets(residuals, 1 - winner).tolist() == [0, 1]
    residuals[0, :6] = np.nan
    assert fit_offsets(residuals, 1 - winner).tolist() == [0, 0]


def test_two_that_lose_to_each_other_do_not_outbid_for_ever():
    residuals = np.array([[2.0] * 10 + [1.0] * 10, [1.0] * 10 + [2.0] * 10])
    found = fit_offsets(residuals, np.repeat([0, 1], 10))
    assert np.isfinite(found).all() and found[0] == found[1]
