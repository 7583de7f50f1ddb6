"""ACC, BWT, FWT and forgetting of matrices whose answers are known."""

import numpy as np
import pytest

from cr_jax.studies.continual import figures

R = np.array([[0.9, 0.3, 0.1], [0.8, 0.7, 0.2], [0.6, 0.75, 1.0]])


def test_a_matrix_by_hand():
    assert figures.acc(R) == pytest.approx((0.6 + 0.75 + 1.0) / 3)
    assert figures.bwt(R) == pytest.approx(((0.6 - 0.9) + (0.75 - 0.7)) / 2)
    assert figures.fwt(R, np.array([0.5, 0.1, 0.1])) == pytest.approx(((0.3 - 0.1) + 0.1) / 2)
    assert figures.forgetting(R) == pytest.approx(((0.9 - 0.6) + (0.7 - 0.75)) / 2)
    assert figures.all_of(R)["fwt"] is None


def test_what_is_never_changed_is_not_forgotten():
    still = np.tile([0.2, 0.5, 0.9], (3, 1))
    assert figures.bwt(still) == figures.forgetting(still) == 0


def test_a_dip_that_heals_is_forgotten_by_no_figure_but_the_largest_is_remembered():
    dip = np.array([[0.5, 0, 0], [0.9, 0.5, 0], [0.5, 0.5, 0.5]])
    assert figures.bwt(dip) == 0 and figures.forgetting(dip) == pytest.approx(0.2)
