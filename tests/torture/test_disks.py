"""A disk that refuses costs one line and nothing that was saved before."""

import contextlib
import errno
import os
import resource
import threading

import numpy as np
import pytest

from cr_jax import config
from cr_jax.errors import UserError
from cr_jax.experiment import run
from cr_jax.training.checkpoint import Checkpointer
from cr_jax.training.metric_writer import MetricWriter

# Many arrays: a failed save is told by every one that is still being written.
STATE = {
    f"w{i}": np.random.default_rng(i).normal(size=(40, 40)).astype(np.float32) for i in range(40)
}


@contextlib.contextmanager
def small_files(most: int):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def save(checkpointer, step):
    checkpointer.save(step, {k: x + step for k, x in STATE.items()}, {"next_index": step}, {})
    checkpointer.wait()


def test_a_save_that_does_not_fit_leaves_the_older_one_whole(tmp_path, capfd):
    checkpointer = Checkpointer(tmp_path)
    save(checkpointer, 1)
    with small_files(8000), pytest.raises(UserError, match="File too large") as caught:
        save(checkpointer, 2)
    assert "\n" not in str(caught.value) and "step 2" in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err
    again = Checkpointer(tmp_path)
    step, state, *_ = again.restore(STATE)
    assert step == 1 and np.array_equal(state["w7"], STATE["w7"] + 1)
    save(again, 2)
    assert again.steps() == [1, 2] and not again._damage(2)
    again.close()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_seal_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, code):
    checkpointer = Checkpointer(tmp_path)
    save(checkpointer, 1)

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched, pytest.raises(UserError, match=os.strerror(code)):
        patched.setattr("cr_jax.training.checkpoint.os.replace", refuse)
        save(checkpointer, 2)
    checkpointer.close()
    again = Checkpointer(tmp_path)
    assert again.restore(STATE)[0] == 1
    again.close()


def test_other_errors_of_saving_are_not_hidden(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    with pytest.raises(TypeError):
        checkpointer.save(1, STATE, {"next_index": object()}, {})
    checkpointer.close()


def test_events_that_do_not_fit_hold_up_nothing(tmp_path, capfd):
    """They neither end the thread that writes them, whose queue holds ten, nor exit."""
    writer = MetricWriter(tmp_path)
    add = lambda: [writer._board.add_scalar("e/nll", 1.0, step) for step in range(1000)]
    adding = threading.Thread(target=add, daemon=True)
    with small_files(3000):
        adding.start()
        adding.join(20)
        assert not adding.is_alive(), "the loop waits for a thread that has ended"
        with pytest.raises(OSError, match="File too large"):
            writer.write(1, "e", {str(n): 1.0 for n in range(1000)})
    writer.close()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "code, status", [(errno.ENOSPC, 2), (errno.EROFS, 2), (errno.ENOENT, None)]
)
def test_the_program_says_what_the_disk_said(tmp_path, monkeypatch, capsys, code, status):
    def refuse(*_):
        raise OSError(code, os.strerror(code), "metrics.jsonl")

    monkeypatch.setattr(run, "_dispatch", refuse)
    if status is None:
        with pytest.raises(OSError, match="metrics"):
            run.main(config.default(), str(tmp_path))
        return
    assert run.main(config.default(), str(tmp_path)) == status
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and os.strerror(code) in err and "metrics.jsonl" in err
