"""The loop while checkpoints are written behind its steps: what it counts, hears and waits for."""

import os
import pathlib
import signal
import threading

import pytest
import tiny_run
from gate import PATIENCE, Gate, refuse

from cr_jax.errors import UserError
from cr_jax.training import checkpoint, loop
from cr_jax.training.checkpoint import Checkpointer


def saves_at(monkeypatch, *steps):
    monkeypatch.setattr(loop, "agreed", lambda step, stop, due, look: (stop, step in steps, look))


@pytest.fixture
def texts(tmp_path):
    tiny_run.write(tmp_path)
    return tmp_path


def test_steps_run_on_and_the_loop_counts_only_what_it_waits_for(texts, monkeypatch):
    """On a clock that stands still, but for 100 s in the first commit and 7 s in the last."""
    now, hash_files = [0.0], checkpoint.hash_files
    reached, may_go, gone = threading.Event(), threading.Event(), threading.Event()

    def hashing(folder):
        if folder.name == "2":
            reached.set()
            assert may_go.wait(PATIENCE), "no step ran while a checkpoint was written"
            now[0] += 100
            gone.set()
        elif folder.name == "6":
            now[0] += 7
        return hash_files(folder)

    def on_log(step, values):
        if step == 4:
            assert reached.wait(PATIENCE)
            may_go.set()
            assert gone.wait(PATIENCE)

    monkeypatch.setattr(checkpoint, "hash_files", hashing)
    monkeypatch.setattr("cr_jax.training.phases.time.perf_counter", lambda: now[0])
    saves_at(monkeypatch, 2)
    done = tiny_run.train(tiny_run.experiment(texts, steps=6), texts, on_log=on_log)
    assert done.step == 6
    assert {k: v for k, v in done.phases.items() if v} == {"log": 100, "checkpoint": 7}


@pytest.mark.parametrize("last", [False, True], ids=["on the way", "at the end"])
def test_a_run_whose_save_failed_ends_with_one_line(texts, monkeypatch, last):
    fails, real, reached = "6.json" if last else "2.json", os.replace, []
    failed = threading.Event()

    def replace(source, to):
        if pathlib.Path(to).name == fails:
            failed.set()
            refuse()
        real(source, to)

    def on_log(step, values):
        reached.append(step)
        if step == 4 and not last:
            assert failed.wait(PATIENCE)

    monkeypatch.setattr(checkpoint.os, "replace", replace)
    saves_at(monkeypatch, 1, 2)
    e = tiny_run.experiment(texts, steps=6 if last else 10_000)
    with pytest.raises(UserError, match=f"cannot save step {fails[0]} ") as caught:
        tiny_run.train(e, texts, on_log=on_log)
    assert "\n" not in str(caught.value)
    # Not at the next save, which never comes, and long before the end.
    assert reached[-1] == 6 if last else reached[-1] < 1000
    sealed = Checkpointer(texts / "run" / "checkpoints").steps()
    assert sealed == ([1, 2] if last else [1])


@pytest.mark.parametrize("sent", [None, signal.SIGTERM], ids=["end", "SIGTERM"])
def test_the_run_does_not_end_before_its_last_save_is_sealed(texts, monkeypatch, sent):
    """`close` waits too; here it must not be needed."""
    gate, unsealed = Gate(monkeypatch, [3, 6]), []
    close = Checkpointer.close
    monkeypatch.setattr(
        Checkpointer, "close", lambda self: (unsealed.append(self._saving), close(self))
    )

    def on_log(step, values):
        if sent and step == 2:
            os.kill(os.getpid(), sent)

    ends = threading.Thread(target=lambda: gate.reached.wait(PATIENCE) and gate.open.set())
    ends.start()
    run = lambda: tiny_run.train(tiny_run.experiment(texts, steps=6), texts, on_log=on_log)
    if sent:
        with pytest.raises(loop.Interrupted):
            run()
    else:
        run()
    ends.join()
    assert gate.held == [3 if sent else 6] and unsealed == [None]
