"""The grid that ships says what the measured one does; a file without cells is refused."""

from pathlib import Path

import pytest

from cr_jax.errors import UserError
from cr_jax.studies.capacity import analysis


def test_the_grid_that_ships_is_the_measured_one():
    measured = Path(__file__).parents[3] / "results/law_gpu/ablation.jsonl"
    whole, shipped = analysis.load(measured), analysis.load(analysis.MEASURED)
    assert shipped == [{k: row[k] for k in shipped[0]} for row in whole]
    assert analysis.analyse(shipped)["laws"] == analysis.analyse(whole)["laws"]


def test_load_refuses_an_empty_file(tmp_path):
    with pytest.raises(UserError, match="no measured cells"):
        analysis.load(tmp_path / "ablation.jsonl")
