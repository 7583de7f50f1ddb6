"""Flipped bits, cut and missing files of checkpoints and banks are noticed; so is a blind check."""

import random

import jax
import pytest

from benchmarks.torture import flips, fuzz
from cr_jax.training.checkpoint import Checkpointer


@pytest.fixture
def checkpoints(tmp_path):
    checkpointer, state = Checkpointer(tmp_path), flips._like()
    for step in (1, 2):
        checkpointer.save(
            step,
            jax.tree.map(lambda x, s=step: x + x.dtype.type(s), state),
            {"next_index": step},
            {},
        )
    checkpointer.wait()
    checkpointer.close()
    return tmp_path


def test_damage_of_a_checkpoint_is_noticed(checkpoints):
    found = flips._checkpoint(checkpoints, 10, random.Random(0))
    assert found["detected"] == found["flips"] == 10 and found["missed"] == []
    assert found["cut"] == found["cut_detected"] > 5
    assert found["missing"] == found["missing_detected"] > 5


def test_damage_of_a_bank_is_noticed(tmp_path):
    fuzz.make_bank(tmp_path / "bank", 2)
    found = flips._bank(tmp_path / "bank", 20, random.Random(0))
    assert found["detected"] == found["flips"] == 20 and found["files"] == 16
    assert found["cut_detected"] == found["missing_detected"] == 16


def test_a_check_that_sees_nothing_is_shown(checkpoints, monkeypatch):
    monkeypatch.setattr(Checkpointer, "_damage", lambda self, step: "")
    files = flips._files(checkpoints / "2")
    before = [p.read_bytes() for p in files]
    found = flips._flip_all(
        files,
        6,
        random.Random(0),
        lambda: bool((checker := Checkpointer(checkpoints))._damage(2) or checker.close()),
    )
    assert found["detected"] == 0 and len(found["missed"]) == 6
    assert [p.read_bytes() for p in files] == before  # every flip was taken back
