"""A run that changes its devices draws every window once; a lost or doubled window is counted."""

import os
import signal
import types

import jax
import numpy as np
import pytest
import tiny_run

from benchmarks.torture import elastic
from cr_jax.data import ByteTokenizer, Share, WindowBatches, Windowing, load_corpus
from cr_jax.training.loop import Interrupted

STEPS = 9


def live(folder, monkeypatch, devices, mode, stop):
    """One life of the run -> what it drew: {step: rows}."""
    drawn, make = {}, tiny_run.train_iterator

    class Drawn:
        def __init__(self, iterator):
            self.iterator = iterator

        def __next__(self):
            step = self.iterator.get_state()["next_index"]
            drawn[step] = next(self.iterator)["tokens"]
            if step + 1 == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            return {"tokens": drawn[step]}

        def __getattr__(self, name):
            return getattr(self.iterator, name)

    with monkeypatch.context() as patched:
        patched.setattr(tiny_run, "train_iterator", lambda *a, **k: Drawn(make(*a, **k)))
        run = lambda: tiny_run.train(
            tiny_run.experiment(folder, STEPS), folder, mode=mode, devices=jax.devices()[:devices]
        )
        if not stop:
            run()
            return drawn
        with pytest.raises(Interrupted, match=f"step {stop}"):
            run()
    return drawn


def test_devices_change_and_no_window_is_lost(tmp_path, monkeypatch):
    tiny_run.write(tmp_path)
    first = live(tmp_path, monkeypatch, 8, "pmap", 4)
    drawn = first | live(tmp_path, monkeypatch, 2, "jit", 0)
    assert sorted(first) == [0, 1, 2, 3] and sorted(drawn) == list(range(STEPS))
    e, tokenizer = tiny_run.experiment(tmp_path, STEPS), ByteTokenizer()
    corpora = {
        n: load_corpus(e.data.domains[n].train, tokenizer, tmp_path / "cache")
        for n in tiny_run.NAMES
    }
    for processes in (1, 2, 4):
        shares = [
            WindowBatches(
                corpora,
                tiny_run.BATCH,
                Windowing(tiny_run.MODEL.window, e.seed, pad_id=tokenizer.pad_id),
                Share(block=i, blocks=processes),
            )
            for i in range(processes)
        ]
        for step, tokens in drawn.items():
            rows = np.concatenate([share[step]["tokens"] for share in shares], axis=1)
            assert np.array_equal(rows, tokens)


def chain(steps, digests=("x", "x")):
    """What a chain of two lives noted; steps: {step: draws}."""
    lives = (elastic.Life(8), elastic.Life(1))
    return types.SimpleNamespace(
        lives=lives,
        steps=4,
        statuses=[0, 0],
        workdir=None,
        run=lambda: None,
        draws=steps,
        states=[(2, "saved", digests[0]), (2, "restored", digests[1])],
    )


ALL = {step: [[f"{step}a", f"{step}b"]] for step in range(4)}


@pytest.mark.parametrize(
    "change, digests, word, count",
    [
        ({}, ("x", "x"), None, 0),
        ({2: [["2a", "2b"], ["2a", "2b"]]}, ("x", "x"), "repeated", 1),
        ({2: [["1a", "2b"]]}, ("x", "x"), "repeated", 1),
        ({2: [["1a", "2b"]]}, ("x", "x"), "skipped", 1),
        ({2: [["2b", "2a"]]}, ("x", "x"), "windows_equal", False),
        ({}, ("x", "y"), "restored_exactly", False),
    ],
)
def test_what_is_lost_is_counted(monkeypatch, change, digests, word, count):
    monkeypatch.setattr(elastic.runs, "curve", lambda workdir: [(1, "e", 2.0, 1.0)])
    monkeypatch.setattr(elastic, "_furthest", lambda one, other: 0.0)
    found = elastic._compare(chain({**ALL, **change}, digests), chain(ALL))
    if word:
        assert found[word] == count
    else:
        assert (found["repeated"], found["skipped"]) == (0, 0)
        assert found["windows_equal"] and found["restored_exactly"] and found["windows"] == 8
