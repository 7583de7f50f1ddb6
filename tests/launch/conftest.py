"""The cluster scripts as a user calls them, with stand-ins for the tools that reach a cluster."""

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def tools(tmp_path):
    """tools(name, bash body) puts a stand-in on the PATH; tools.calls() is what was called."""
    folder = tmp_path / "tools"
    folder.mkdir()
    log = tmp_path / "calls"

    def add(name, body):
        (folder / name).write_text(
            f'#!/bin/bash\nprintf "%s\\0" {name} "$@" $\'\\1\' >> {log}\n{body}\n'
        )
        (folder / name).chmod(0o755)

    add.path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    add.calls = lambda: (
        [x.split("\0")[:-1] for x in log.read_text().split("\1\0")[:-1]] if log.exists() else []
    )
    return add


@pytest.fixture
def run(tmp_path):
    def call(script, *argv, path=os.environ["PATH"], cwd=None, python="true"):
        """python: what answers `main.py --check`; `true` is content with all."""
        return subprocess.run(
            ["bash", str(ROOT / "launch" / script), *argv],
            capture_output=True,
            text=True,
            cwd=cwd or tmp_path,
            timeout=60,
            check=False,
            env={**os.environ, "PATH": path, "CR_JAX_PYTHON": python, "PYTHONPATH": str(ROOT)},
        )

    return call
