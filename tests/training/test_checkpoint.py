"""Checkpoints that notice damage: every byte counts, the newest good step is found."""

import json
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cr_jax.errors import UserError
from cr_jax.training.checkpoint import Checkpointer, hash_files
from cr_jax.training.step import TrainState


def state(step: int) -> TrainState:
    params = {"w": jnp.arange(6.0).reshape(2, 3) + step, "b": jnp.full(2, 0.1 * step)}
    return TrainState(
        step=jnp.full(2, step, jnp.int32),
        params=params,
        opt_state=optax.adam(1.0).init(params),
        key=jnp.asarray([[0, 1], [0, 2]], jnp.uint32),
    )


def fill(folder, steps, keep=5):
    checkpointer = Checkpointer(folder, keep)
    for step in steps:
        checkpointer.save(step, state(step), {"next_index": step}, {"elapsed": step / 2})
    checkpointer.wait()
    checkpointer.close()


def found(folder, like=None):
    checkpointer = Checkpointer(folder)
    try:
        return checkpointer.restore(state(0) if like is None else like)
    finally:
        checkpointer.close()


def same(a: TrainState, b: TrainState) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) and x.dtype == y.dtype
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
    )


@pytest.fixture
def warnings(monkeypatch):
    """The lines that the package, not Orbax, warns with."""
    lines = []

    def warning(text, *args):
        if sys._getframe(1).f_globals["__name__"] == "cr_jax.training.checkpoint":
            lines.append(text % args)

    monkeypatch.setattr("absl.logging.warning", warning)
    return lines


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    fill(folder, [10, 20])
    return folder


@pytest.fixture
def copied(two_steps, tmp_path):
    return shutil.copytree(two_steps, tmp_path / "checkpoints")


def test_what_is_saved_comes_back_whole(two_steps):
    step, values, iterator, record = found(two_steps)
    assert (step, iterator, record) == (20, {"next_index": 20}, {"elapsed": 10.0})
    assert same(values, state(20))
    assert not same(values, state(10))


def test_an_empty_folder_holds_nothing(tmp_path):
    assert found(tmp_path / "new") is None


def test_one_flipped_bit_in_any_file_is_noticed(copied, warnings):
    """Each file of the newest step in turn; the step before is restored, with one warning."""
    files = sorted(p for p in (copied / "20").rglob("*") if p.is_file())
    assert len(files) > 5
    checkpointer = Checkpointer(copied)
    for path in files:
        good = path.read_bytes()
        if not good:
            continue
        for place in {0, len(good) // 2, len(good) - 1}:
            path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            assert str(path.relative_to(copied / "20")) in checkpointer._damage(20)
        path.write_bytes(good)
        assert not checkpointer._damage(20)
    checkpointer.close()
    path = max(files, key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    step, values, iterator, _ = found(copied)
    assert (step, iterator) == (10, {"next_index": 10}) and same(values, state(10))
    assert len(warnings) == 1 and "checkpoint 20 is damaged" in warnings[0]


@pytest.mark.parametrize("damage", ["truncated", "missing", "added", "folder", "seal"])
def test_other_damage_is_noticed_too(copied, warnings, damage):
    path = max(
        (p for p in (copied / "20").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "missing":
        path.unlink()
    elif damage == "added":
        path.with_name("extra").write_text("x")
    elif damage == "folder":
        (copied / "20").rename(copied.parent / "away")
    else:
        (copied / "20.json").write_text("{")
    assert found(copied)[0] == 10
    assert len(warnings) == 1 and "damaged" in warnings[0]


@pytest.mark.parametrize("seal", ["{}", "[]", "3", '"x"', "null"])
def test_an_empty_or_strange_seal_seals_nothing(copied, warnings, seal):
    (copied / "20.json").write_text(seal)
    assert found(copied)[0] == 10
    assert len(warnings) == 1


def test_a_step_without_a_seal_was_never_finished(copied, warnings):
    (copied / "20.json").unlink()
    assert found(copied)[0] == 10
    assert not warnings


def test_when_all_are_damaged_the_user_hears_of_it(copied, warnings):
    for step in (10, 20):
        next(p for p in (copied / str(step)).rglob("*") if p.is_file()).unlink()
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
        found(copied)
    assert len(warnings) == 2


def test_only_the_newest_are_kept(tmp_path):
    fill(tmp_path, [1, 2, 3, 4], keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3", "3.json", "4", "4.json"]
    assert json.loads((tmp_path / "4.json").read_text()) == hash_files(tmp_path / "4")


@pytest.mark.parametrize("ruin", ["damage", "no seal", "no folder"])
@pytest.mark.parametrize("again", [15, 20])
def test_a_run_goes_on_over_a_step_that_was_lost(copied, warnings, ruin, again):
    """The steps behind the restored one are written anew and never crowd out good ones."""
    if ruin == "damage":
        path = max((copied / "20").rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
        path.write_bytes(path.read_bytes()[:-1])
    elif ruin == "no seal":
        (copied / "20.json").unlink()
    else:
        shutil.rmtree(copied / "20")
    checkpointer = Checkpointer(copied, keep=1)
    assert checkpointer.restore(state(0))[0] == 10
    checkpointer.save(again, state(7), {"next_index": 7}, {})
    checkpointer.wait()
    checkpointer.close()
    step, values, iterator, _ = found(copied)
    assert (step, iterator) == (again, {"next_index": 7}) and same(values, state(7))
    assert Checkpointer(copied).steps() == [again]


def test_saving_the_same_step_again_is_harmless(copied):
    checkpointer = Checkpointer(copied)
    before = checkpointer.restore(state(0))[0]
    checkpointer.save(before, state(before), {"next_index": 20}, {})
    assert checkpointer.steps() == [10, 20]
    assert not checkpointer._damage(20)
    checkpointer.close()


@pytest.mark.parametrize("change", ["shape", "fewer", "more"])
def test_another_models_state_is_refused(copied, change):
    like = state(0)
    if change == "shape":
        like = like.replace(params={**like.params, "w": jnp.zeros((2, 4))})
    elif change == "more":
        like = like.replace(key=(like.key, like.params))
    else:
        like = like.replace(opt_state=None)
    with pytest.raises(UserError, match="another model") as caught:
        found(copied, like)
    assert "\n" not in str(caught.value)


def test_a_process_that_is_lost_while_restoring_is_not_another_model(tmp_path, monkeypatch):
    fill(tmp_path, [1])
    checkpointer = Checkpointer(tmp_path)
    restore = checkpointer._orbax.restore

    def lose(path, args):
        if args.get("state"):
            raise ValueError("UNKNOWN: Gloo AllGather failed: Connection reset by peer")
        return restore(path, args=args)

    monkeypatch.setattr(checkpointer._orbax, "restore", lose)
    with pytest.raises(ValueError, match="Gloo"):
        checkpointer.restore(state(0))
    checkpointer.close()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write checkpoints"):
        Checkpointer(tmp_path / "file" / "checkpoints")


def test_the_best_step_is_not_rotated_away_until_another_is_better(tmp_path):
    checkpointer = Checkpointer(tmp_path, 2)
    kept = {}
    for step, best in ((1, 1), (2, 1), (3, 1), (4, 4), (5, 4), (6, 4), (7, 4), (8, None)):
        checkpointer.save(step, state(step), {"next_index": step}, {"elapsed": 0.0}, best)
        checkpointer.wait()
        kept[step] = checkpointer.steps()
    checkpointer.close()
    assert kept == {
        1: [1],
        2: [1, 2],
        3: [1, 2, 3],
        4: [3, 4],
        5: [4, 5],
        6: [4, 5, 6],
        7: [4, 6, 7],
        8: [7, 8],
    }
    assert found(tmp_path)[0] == 8  # the newest is what a run goes on from


@pytest.mark.parametrize("times", [1, 2])
def test_folders_that_a_failed_save_made_late_are_no_obstacle(tmp_path, monkeypatch, times):
    """Once: saved at the second try.  Each time: one line, and the step before is whole."""
    fill(tmp_path, [3])
    monkeypatch.setattr("cr_jax.training.checkpoint.time.sleep", lambda seconds: None)
    checkpointer, left = Checkpointer(tmp_path, 5), [times]
    real = checkpointer._orbax.save

    def save(place, **more):
        if left[0]:
            left[0] -= 1
            (tmp_path / "8.orbax-checkpoint-tmp").mkdir()
            raise FileExistsError(17, "File exists")
        return real(place, **more)

    monkeypatch.setattr(checkpointer._orbax, "save", save)
    checkpointer.restore(state(0))
    checkpointer.save(8, state(8), {"next_index": 8}, {"elapsed": 4})
    if times == 1:
        checkpointer.wait()
        assert not list(tmp_path.glob("*tmp*"))
    else:
        with pytest.raises(UserError, match="cannot save step 8"):
            checkpointer.wait()
    checkpointer.close()
    step, held, *_ = found(tmp_path)
    assert step == (8 if times == 1 else 3) and same(held, jax.tree.map(np.asarray, state(step)))


@pytest.mark.parametrize("part", ["stored_shapes", "record"])
def test_a_step_that_the_disk_does_not_give_is_passed_over(tmp_path, monkeypatch, warnings, part):
    fill(tmp_path, [3, 8])
    checkpointer = Checkpointer(tmp_path, 5)
    room, failed = "cr_jax.training.checkpoint.stored_shapes", []

    def refused(real, place_of):
        def call(*args, **more):
            if place_of(*args) == "8":
                failed.append(args)
                raise ValueError("UNKNOWN: Failed to open: Input/output error")
            return real(*args, **more)

        return call

    if part == "record":
        monkeypatch.setattr(checkpointer, "_read", refused(checkpointer._read, str))
    else:
        from cr_jax.training import checkpoint

        monkeypatch.setattr(room, refused(checkpoint.stored_shapes, lambda place: place.name))
    step, held, *_ = checkpointer.restore(state(0))
    checkpointer.close()
    assert step == 3 and same(held, jax.tree.map(np.asarray, state(3))) and failed
    assert any("checkpoint 8 is damaged" in line and "Input/output" in line for line in warnings)
