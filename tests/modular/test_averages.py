"""A branch and the mean of branches: what valid chooses between them, and that it is kept."""

import numpy as np
import pytest

from cr_jax.config import LmConfig
from cr_jax.data import Windows
from cr_jax.host.files import read_sealed
from cr_jax.modular import averages
from cr_jax.modular.training_stage import Finished

TINY = LmConfig(d_model=16, heads=2, d_ff=32, blocks=1, dtype="float32")
# One weight of each branch; a domain's loss is the distance of the weight from its best one.
WEIGHTS = {"a": 0.0, "b": 8.0, "c": 9.0, "d": 10.0, "e": 11.0, "f": 30.0}
PARAMS = {n: {"w": np.full((2,), w, np.float32)} for n, w in WEIGHTS.items()}
MEAN = sum(WEIGHTS.values()) / 6


def averaged(folder, score=None, shares=(0.25, 1.0), windows=1, **best):
    best = list({**WEIGHTS, **best}.values())
    one = np.zeros((windows, 1), np.int32)
    document = np.zeros(windows, np.int64)
    valid = {n: Windows(one + i, one == 0, document) for i, n in enumerate(WEIGHTS)}

    def distance(models, windows):
        return [abs(float(m["w"][0]) - best[windows.tokens[0, 0]]) for m in models]

    branches = Finished(TINY, PARAMS, {"steps": 3})
    return averages.averaged(branches, valid, shares, folder, score or distance)


def test_valid_chooses_between_a_branch_and_the_means(tmp_path):
    # b, c and d are best as they are; a wants the mean of all; f a quarter of its nearest four.
    near_f = (30 + 8 + 9 + 10 + 11) / 5
    found = averaged(tmp_path, a=MEAN, f=0.75 * 30 + 0.25 * near_f)
    choices = found.note["averages"]
    assert [(c["of"], c["share"]) for c in choices.values()] == [
        ("all", 1.0),
        *[("", 0.0)] * 4,
        ("near", 0.25),
    ]
    weights = {n: float(p["w"][0]) for n, p in found.params.items()}
    assert weights["b"] == 8.0 and weights["a"] == pytest.approx(MEAN)
    assert weights["f"] == pytest.approx(0.75 * 30 + 0.25 * near_f)
    assert sorted(choices["f"]["near"]) == ["b", "c", "d", "e"] and found.note["steps"] == 3
    assert choices["a"]["own_nll"] == pytest.approx(MEAN)
    assert choices["a"]["valid_nll"] == pytest.approx(0, abs=1e-6)


def test_the_choice_is_kept_for_the_same_branches_and_shares_alone(tmp_path):
    first = averaged(tmp_path, a=MEAN)
    kept = averaged(tmp_path, lambda *_: pytest.fail("it was measured again"), a=0.0)
    assert kept.note == first.note
    assert read_sealed(tmp_path / averages.FILE)["made_of"]["shares"] == [0.25, 1.0]
    assert averaged(tmp_path, shares=(0.5,), a=MEAN).note != first.note
    # Other windows choose anew.
    assert not averaged(tmp_path, shares=(0.5,), windows=2).note["averages"]["a"]["share"]
