"""The paper's table from made-up scores, by hand."""

import dataclasses
import math

import numpy as np
import pytest

from cr_jax.studies import fingerprint
from cr_jax.studies.evaluation import DomainScores

SCORES = {
    "home": DomainScores(
        *2 * [np.array([[0.0, 4.0], [8.0, 8.0]])],
        np.array([[4, 2], [1, 0]]),
        np.array([4, 4]),
        np.array([8, 8]),
        0.25,
    ),
    "away": DomainScores(
        *2 * [np.array([[20.0], [2.0]])], np.array([[0], [1]]), np.array([2]), np.array([4]), 0.5
    ),
}


def test_cells_by_hand():
    table = fingerprint.run(["a", "b"], SCORES)["fingerprint"]
    assert table["a"]["home"] == pytest.approx(
        {
            "tra": 6 / 8,
            "nll": 4 / 8,
            "window_exact": 0.5,
            "tokens": 8,
            "windows": 2,
            "bits_per_byte": 4 / math.log(2) / 16,
            "majority_tra": 0.25,
            "residual": 4 / 8,
        }
    )
    assert table["b"]["away"]["nll"] == 1.0 and table["b"]["away"]["tra"] == 0.5
    assert [list(row) for row in table.values()] == [["home", "away"]] * 2


def test_a_cell_has_the_residual_of_the_rule_beside_the_nll_of_seen_tokens():
    home = dataclasses.replace(SCORES["home"], residual_nll=np.array([[2.0, 4.0], [0.0, 0.0]]))
    cell = home.metrics(0)
    assert (cell["nll"], cell["residual"]) == (4 / 8, 6 / 8)


def test_histograms_hold_every_window_and_share_their_edges():
    found = fingerprint.run(["a", "b"], SCORES)["residuals"]
    edges = {tuple(cell["edges"]) for row in found.values() for cell in row.values()}
    assert len(edges) == 1
    for row in found.values():
        assert {d: sum(cell["counts"]) for d, cell in row.items()} == {"home": 2, "away": 1}
    counts = found["a"]["home"]["counts"]
    assert counts[0] == 1  # the window without residual
    assert found["a"]["away"]["counts"][-1] == 1  # beyond the last edge: in the last bin
