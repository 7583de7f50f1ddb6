"""Killed while a checkpoint is being written, and resumed: the weights are those of a run that was
never disturbed.  Kills at any moment: `benchmarks.torture`.
"""

import collections
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import pytest
import tiny_run

PROGRAM = pathlib.Path(tiny_run.__file__)
STEPS = 8


@pytest.fixture
def start():
    """Starts tests/fixtures/tiny_run.py as a child; at the end of a test none is left."""
    children = []

    def start(folder, pause, *held):
        environ = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "PYTHONPATH": str(PROGRAM.parents[2]),
        }
        children.append(
            subprocess.Popen(
                [sys.executable, str(PROGRAM), str(folder), str(STEPS), str(pause), *held],
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


def kill(child):
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def wait_for(child, reached):
    end = time.monotonic() + 120
    while not reached():
        assert child.poll() is None, child.stdout.read().decode()
        assert time.monotonic() < end, "not there after two minutes"
        time.sleep(0.02)


def sealed(folder):
    return sorted(int(p.stem) for p in folder.glob("run/checkpoints/[0-9]*.json"))


def logged(folder):
    path = folder / "run" / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(x) for x in lines if x.endswith("\n")]


def resume_and_compare(folder, quiet):
    resumed = tiny_run.train(tiny_run.full(folder, STEPS), folder, tiny_run.FULL_MODEL)
    quiet, whole = quiet
    assert resumed.step == whole.step == STEPS
    assert tiny_run.same(resumed.params, whole.params)
    counts = collections.Counter((x["step"], x["expert"]) for x in logged(folder))
    assert set(counts.values()) == {1} and len(counts) == 2 * STEPS
    figures = lambda folder: [
        (x["step"], x["nll"], x["tra"], x["gradient_norm"]) for x in logged(folder)
    ]
    assert figures(folder) == figures(quiet)
    assert sealed(folder) == sealed(quiet) == [STEPS - 1, STEPS]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A run that was never disturbed: its folder, what it trained."""
    folder = tmp_path_factory.mktemp("quiet")
    tiny_run.write(folder)
    return folder, tiny_run.train(tiny_run.full(folder, STEPS), folder, tiny_run.FULL_MODEL)


@pytest.fixture
def folder(tmp_path):
    tiny_run.write(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "event, name, seals, left",
    [("os.rename", "4", [2, 3], r"4\..+"), ("os.rename", "4.json", [2, 3], "4|4.partial")],
    ids=["writing", "sealing"],
)
def test_killed_while_a_checkpoint_is_written_behind_the_steps(
    folder, quiet, start, event, name, seals, left
):
    """The commit of step 4 stands still in the middle; step 5 is trained before the kill."""
    child = start(folder, 0, event, name)
    wait_for(child, lambda: (folder / "held").exists())
    wait_for(child, lambda: sum(x["step"] == 5 for x in logged(folder)) == 2)
    kill(child)
    assert sealed(folder) == seals and max(x["step"] for x in logged(folder)) == 5
    names = {p.name for p in (folder / "run" / "checkpoints").iterdir()}
    unfinished = {x for x in names if x.removesuffix(".json") not in map(str, seals)}
    assert unfinished and all(re.fullmatch(left, x) for x in unfinished)
    resume_and_compare(folder, quiet)
