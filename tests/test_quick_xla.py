"""The tests' XLA flags are those that the installed jaxlib knows."""

import os
import subprocess
import sys

import pytest
import quick_xla

ASK = "from jaxlib import xla_client; xla_client.make_cpu_client()"


@pytest.mark.parametrize(
    "jaxlib,older",
    [
        ("0.7.1", True),
        ("0.10.2", True),
        ("0.11", True),
        ("0.11.0", True),
        ("0.11.0.dev20260101", True),
        ("0.11.1", False),
        ("0.11.2", False),
        ("0.12.0.1", False),
        ("1.0", False),
    ],
)
def test_the_older_emitters_are_asked_for_where_jaxlib_has_them(jaxlib, older):
    assert quick_xla.has_older_emitters(jaxlib) is older
    assert ("--xla_cpu_use_fusion_emitters=false" in quick_xla.flags(jaxlib).split()) is older
    assert "--xla_cpu_parallel_codegen_split_count=1" in quick_xla.flags(jaxlib).split()


def test_the_installed_jaxlib_takes_the_flags_and_no_others():
    run = lambda flags: subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
    )
    taken, unknown = run(quick_xla.FLAGS), run("--xla_cpu_of_no_version=1")
    assert taken.returncode == 0, taken.stderr
    assert unknown.returncode != 0 and "--xla_cpu_of_no_version=1" in unknown.stderr
