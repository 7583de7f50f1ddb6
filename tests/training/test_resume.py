"""Killed and resumed: the weights are those of a run that was never disturbed."""

import collections
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import tiny_run

PROGRAM = pathlib.Path(tiny_run.__file__)


def start(folder, steps, pause):
    environ = {
        **os.environ, "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "PYTHONPATH": str(PROGRAM.parents[1])}
    return subprocess.Popen([sys.executable, str(PROGRAM), str(folder), str(steps), str(pause)],
                            env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for(child, folder, step):
    """Until the run has sealed that step's checkpoint."""
    end = time.monotonic() + 120
    while not any(int(p.stem) >= step for p in folder.glob("run/checkpoints/[0-9]*.json")):
        assert child.poll() is None, child.stdout.read().decode()
        assert time.monotonic() < end, "no checkpoint after two minutes"
        time.sleep(0.02)


def test_killed_and_resumed_equals_never_disturbed(tmp_path):
    steps = 8
    disturbed, quiet = tmp_path / "disturbed", tmp_path / "quiet"
    for folder in (disturbed, quiet):
        folder.mkdir()
        tiny_run.write(folder)
    whole = tiny_run.train(tiny_run.full(quiet, steps), quiet, tiny_run.FULL_MODEL)

    child = start(disturbed, steps, pause=0.3)
    wait_for(child, disturbed, 3)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()

    assert not (disturbed / "run" / "checkpoints" / f"{steps}.json").exists()
    resumed = tiny_run.train(tiny_run.full(disturbed, steps), disturbed, tiny_run.FULL_MODEL)
    assert resumed.step == whole.step == steps
    assert tiny_run.same(resumed.params, whole.params)

    read = lambda folder: [json.loads(x) for x in
                           (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    counts = collections.Counter((x["step"], x["expert"]) for x in read(disturbed))
    assert set(counts.values()) == {1} and len(counts) == 2 * steps
    figures = lambda folder: [(x["step"], x["nll"], x["tra"], x["gradient_norm"])
                              for x in read(folder)]
    assert figures(disturbed) == figures(quiet)
