"""A step is sealed only if it can be restored, under any name of the workdir; several processes
restore the step that process 0 chose."""

import json
import os

import jax
import numpy as np
import pytest
from etils import epath

from cr_jax.errors import UserError
from cr_jax.parallel import processes
from cr_jax.training import checkpoint
from cr_jax.training.checkpoint import Checkpointer
from cr_jax.training.step_files import PARTS, hash_files, incomplete, numbers, stored_shapes

STATE = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.int32(7)}
NAMES = [
    "run[1]",
    "all*",
    "what?",
    "C#",
    "two words",
    " ",
    "größe 中文",
    "x" * 255,
    "dots...",
    "50%20",
    "two\nlines",
    os.fsdecode(b"not-utf8-\xff"),
    "~",
    "-rf",
    "a'b\"c",
    "{x}",
    "$HOME",
    "a\\b",
]


def fill(folder, *steps):
    checkpointer = Checkpointer(folder)
    for step in steps:
        checkpointer.save(step, {k: x + step for k, x in STATE.items()}, {"next": step}, {})
    checkpointer.close()


def found(folder, like=None):
    checkpointer = Checkpointer(folder)
    try:
        return checkpointer.restore(STATE if like is None else like)
    finally:
        checkpointer.close()


@pytest.fixture
def warnings(monkeypatch):
    lines = []
    monkeypatch.setattr(checkpoint.logging, "warning", lambda text, *a: lines.append(text % a))
    return lines


@pytest.fixture
def two_steps(tmp_path):
    fill(tmp_path, 1, 2)
    return tmp_path


def reseal(folder, step):
    """The seal of what lies there now."""
    (folder / f"{step}.json").write_text(json.dumps(hash_files(folder / str(step))))


@pytest.mark.parametrize("name", NAMES)
def test_a_workdir_of_any_name_gives_back_what_was_saved(tmp_path, name):
    folder = tmp_path / name / "checkpoints"
    fill(folder, 3)
    step, state, iterator, _ = found(folder)
    assert (step, iterator) == (3, {"next": 3})
    assert np.array_equal(state["w"], STATE["w"] + 3) and state["n"] == 10
    # Nothing is left that only this name could read.
    (tmp_path / name).rename(tmp_path / "plain")
    assert found(tmp_path / "plain" / "checkpoints")[0] == 3


def test_without_a_plain_path_the_folder_of_brackets_is_refused_at_its_first_save(
    tmp_path, monkeypatch
):
    """Negative control: Orbax itself finds nothing to merge there."""
    monkeypatch.setattr(checkpoint, "plain_place", lambda folder, owner: folder)
    checkpointer = Checkpointer(tmp_path / "run[1]")
    checkpointer.save(1, STATE, {}, {})
    with pytest.raises(UserError, match=r"step 1 .*state/manifest\.ocdbt is missing"):
        checkpointer.wait()
    assert checkpointer.steps() == []
    checkpointer.close()


def test_no_place_for_a_link_is_one_line_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(UserError, match="set TMPDIR") as caught:
        Checkpointer(tmp_path / "run[1]")
    assert "\n" not in str(caught.value)


def test_a_listing_that_fails_inside_the_library_costs_no_good_step(tmp_path, monkeypatch):
    """The step before stays, sealed and whole, although only one is kept."""
    checkpointer = Checkpointer(tmp_path, keep=1)
    checkpointer.save(1, STATE, {"next": 1}, {})
    checkpointer.wait()
    glob = type(epath.Path()).glob
    with monkeypatch.context() as patched:
        patched.setattr(
            type(epath.Path()),
            "glob",
            lambda self, pattern: iter(() if "ocdbt" in pattern else glob(self, pattern)),
        )
        checkpointer.save(2, STATE, {}, {})
        with pytest.raises(UserError, match=r"cannot save step 2 .*older checkpoints are whole"):
            checkpointer.wait()
    assert checkpointer.steps() == [1]
    checkpointer.close()
    assert found(tmp_path)[0] == 1
    again = Checkpointer(tmp_path, keep=1)
    again.restore(STATE)
    again.save(2, STATE, {}, {})
    again.close()
    assert found(tmp_path)[0] == 2 and Checkpointer(tmp_path).steps() == [2]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_needed_part_that_is_gone_is_damage_also_under_a_seal(two_steps, warnings, part, how):
    path = two_steps / "2" / part
    path.unlink() if how == "missing" else path.write_bytes(b"")
    reseal(two_steps, 2)
    assert found(two_steps)[0] == 1
    assert len(warnings) == 1 and "checkpoint 2 is damaged" in warnings[0]


def test_arrays_of_a_process_that_were_not_merged_are_noticed(two_steps):
    step = two_steps / "2"
    assert incomplete(step) == ""
    other = two_steps / "1" / "state" / "ocdbt.process_0"
    fill(two_steps / "more", 5)  # an array more than the merged ones of step 2
    bigger = Checkpointer(two_steps / "more")
    bigger.save(6, {**STATE, "z": np.ones(3)}, {}, {})
    bigger.close()
    os.rename(
        two_steps / "more" / "6" / "state" / "ocdbt.process_0", step / "state" / "ocdbt.process_1"
    )
    assert "ocdbt.process_1" in incomplete(step) and other.is_dir()


def test_another_model_is_said_only_of_shapes_that_were_read(two_steps, warnings, monkeypatch):
    assert stored_shapes(two_steps / "2") == {"00000": (), "00001": (2, 3)}
    with pytest.raises(UserError, match="another model"):
        found(two_steps, {**STATE, "w": np.zeros((3, 2), np.float32)})
    restore = checkpoint.ocp.Checkpointer.restore

    def fail(self, path, args):
        if args.get("state") and path.name == "2":
            raise ValueError("NOT_FOUND: Error opening\n a chunk")
        return restore(self, path, args=args)

    monkeypatch.setattr(checkpoint.ocp.Checkpointer, "restore", fail)
    assert found(two_steps)[0] == 1
    assert warnings == [
        "checkpoint 2 is damaged (NOT_FOUND: Error opening a chunk); trying the one before"
    ]


@pytest.mark.parametrize("name", ["²", "٣", "1.5", "-2", "03x", ""])
def test_names_that_only_look_like_steps_are_ignored(two_steps, name):
    (two_steps / f"{name}.json").write_text("{}")
    (two_steps / f"{name or 'x'}").mkdir()
    assert Checkpointer(two_steps).steps() == [1, 2] and found(two_steps)[0] == 2


def test_step_numbers_are_ascii_digits():
    assert numbers(["10", "2", "²", "x", "1" * 30, "3.partial"]) == [2, 10]


def as_process(monkeypatch, number, sent):
    """This process is one of two; process 0's decisions come from the list `sent`."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: number)
    monkeypatch.setattr(
        processes, "from_first", lambda make: make() if number == 0 else sent.pop(0)
    )
    monkeypatch.setattr(processes, "all_true", lambda good: good)


def test_a_process_that_lags_restores_the_step_that_process_0_chose(two_steps, monkeypatch):
    """Its own listing has a step more; what counts is the seal that it was told."""
    digest = checkpoint.sha256(two_steps / "1.json")
    checkpointer = Checkpointer(two_steps)
    monkeypatch.setattr(
        checkpointer,
        "_read",
        lambda step, **parts: {
            "record": {},
            "iterator": {"next": step},
            "state": {f"{i:05d}": x for i, x in enumerate(jax.tree.leaves(STATE))},
        },
    )
    as_process(monkeypatch, 1, [(1, digest)])
    assert checkpointer.restore(STATE)[0] == 1
    checkpointer.close()


@pytest.mark.parametrize("other", ["another seal", "no seal"])
def test_a_process_that_sees_another_seal_restores_nothing(two_steps, monkeypatch, other):
    checkpointer = Checkpointer(two_steps)
    digest = checkpoint.sha256(two_steps / "2.json")
    if other == "no seal":
        (two_steps / "2.json").unlink()
    else:
        (two_steps / "2.json").write_text("{}")
    monkeypatch.setattr(checkpoint, "SEEN_WITHIN", 0.0)
    monkeypatch.setattr(checkpointer, "_read", lambda *_, **__: pytest.fail("it was read"))
    as_process(monkeypatch, 1, [(2, digest)])
    with pytest.raises(UserError, match="process 1 does not see checkpoint 2") as caught:
        checkpointer.restore(STATE)
    assert "\n" not in str(caught.value)
    checkpointer.close()


def test_a_seal_that_comes_late_is_waited_for(two_steps, monkeypatch):
    checkpointer, seal = Checkpointer(two_steps), two_steps / "2.json"
    digest, kept = checkpoint.sha256(seal), seal.read_bytes()
    seal.unlink()
    monkeypatch.setattr(checkpoint.time, "sleep", lambda seconds: seal.write_bytes(kept))
    as_process(monkeypatch, 1, [])
    checkpointer._compare(2, digest)
    checkpointer.close()
