"""Each torture that can be run alone says how, or what it lacks, in words."""

import os
import subprocess
import sys

import pytest

from benchmarks.torture import runs

LACKING = (
    "import runpy, sys; sys.modules['hypothesis'] = None; "
    "runpy.run_module('benchmarks.torture.fuzz', run_name='__main__')"
)


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["-m", "benchmarks.torture.disks", "--help"], 0, "empty folder on a file system"),
        (["-m", "benchmarks.torture.disks"], 2, "required: disk, quiet"),
        (["-c", LACKING], 1, "pip install '.[test]'"),
    ],
    ids=["help", "nothing", "no hypothesis"],
)
def test_one_alone(argv, status, words):
    done = subprocess.run(
        [sys.executable, *argv],
        capture_output=True,
        text=True,
        cwd=runs.ROOT,
        env=os.environ | {"PYTHONPATH": str(runs.ROOT)},
    )
    assert done.returncode == status and words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
