"""A run's folder is made where it may be, and one run holds it."""

import os
import subprocess

import numpy as np
import pytest
import tiny_run

from cr_jax.errors import UserError
from cr_jax.experiment import run
from cr_jax.training.checkpoint import Checkpointer
from cr_jax.training.workdir import commit_of, locked

STATE = {"w": np.arange(6, dtype=np.float32)}


def test_an_empty_name_is_not_the_folder_that_we_are_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="empty"), locked(""):
        pass
    assert not os.listdir(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line_that_says_so():
    with pytest.raises(UserError, match="cannot be made") as caught, locked("/proc/nowhere"):
        pass
    assert "\n" not in str(caught.value) and "own" not in str(caught.value)


@pytest.mark.parametrize("another", [False, True])
def test_a_run_whose_folder_was_moved_writes_into_no_other_one(tmp_path, another):
    checkpointer = Checkpointer(tmp_path / "run" / "checkpoints")
    checkpointer.save(1, STATE, {}, {})
    checkpointer.wait()
    (tmp_path / "run").rename(tmp_path / "moved")
    if another:
        (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    checkpointer.save(2, STATE, {}, {})
    with pytest.raises(UserError, match=r"was moved or replaced .* that folder's new name"):
        checkpointer.wait()
    checkpointer.close()
    assert not (tmp_path / "run").exists() or os.listdir(tmp_path / "run/checkpoints") == []
    again = Checkpointer(tmp_path / "moved" / "checkpoints")
    assert again.steps() == [1] and again.restore(STATE)[0] == 1
    again.close()


def test_a_folder_that_was_moved_and_brought_back_is_the_same(tmp_path):
    """Negative control."""
    checkpointer = Checkpointer(tmp_path / "run" / "checkpoints")
    (tmp_path / "run").rename(tmp_path / "moved")
    (tmp_path / "moved").rename(tmp_path / "run")
    checkpointer.save(1, STATE, {}, {})
    checkpointer.close()
    assert Checkpointer(tmp_path / "run" / "checkpoints").steps() == [1]


def test_no_second_run_starts_in_a_folder_that_was_moved(tmp_path):
    with locked(tmp_path / "run"):
        (tmp_path / "run").rename(tmp_path / "moved")
        with pytest.raises(UserError, match="another run is using"), locked(tmp_path / "moved"):
            pass
    with locked(tmp_path / "moved"):
        assert ".lock" in os.listdir(tmp_path / "moved")
    assert os.listdir(tmp_path / "moved") == []


@pytest.mark.slow
def test_a_run_that_is_moved_ends_with_one_line_and_goes_on_from_there(tmp_path, monkeypatch):
    tiny_run.write(tmp_path)
    e = tiny_run.experiment(tmp_path, steps=2, evaluation={"windows": 8, "calibration_windows": 16})
    train = run.train_compressors

    def move(*arguments, **more):
        found = train(*arguments, **more)
        (tmp_path / "run").rename(tmp_path / "moved")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(run, "train_compressors", move)
        with pytest.raises(UserError, match="was moved or replaced"):
            run.run(e, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert run.run(e, tmp_path / "moved")["provenance"]["steps"] == 2


def test_the_commit_is_of_the_checkout_and_of_no_repository_around_it(tmp_path, monkeypatch):
    git = lambda *words, at=tmp_path: subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
        cwd=at,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    inner = tmp_path / "venv" / "site-packages"
    inner.mkdir(parents=True)
    (tmp_path / "a").write_text("1")
    git("init", "-q")
    git("add", "a")
    git("commit", "-q", "-m", "a")
    assert commit_of(tmp_path) == git("rev-parse", "HEAD")
    assert commit_of(inner) == ""
    ran = tmp_path / "ran"  # what a repository's settings can make `git status` run
    git("config", "core.fsmonitor", f"touch {ran};:")
    assert commit_of(inner) == "" and not ran.exists()
    git("config", "--unset", "core.fsmonitor")
    (tmp_path / "a").write_text("2")
    assert commit_of(tmp_path) == git("rev-parse", "HEAD") + "-dirty"
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    assert commit_of(inner) == ""
    monkeypatch.setenv("PATH", "")
    assert commit_of(tmp_path) == ""
