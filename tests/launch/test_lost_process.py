"""A process of several that loses another one ends by itself: one line, status 75, no hang."""

import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest
import quick_xla

from cr_jax.errors import lost_peer
from cr_jax.parallel import ending

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Joins, says so, then waits: in Python, or in a collective that the other one never enters.
PROGRAM = """
import sys, time
import numpy as np
from jax.experimental import multihost_utils
from cr_jax.parallel import cluster
place, process, waits = sys.argv[1:]
cluster.start(cluster.Cluster(place, 2, int(process), 60))
multihost_utils.process_allgather(np.ones(1))
print("joined", flush=True)
if waits == "here":
    time.sleep(100)
multihost_utils.process_allgather(np.ones(1))
"""


@pytest.fixture
def two():
    """two(waits of 0, waits of 1): both processes, joined."""
    children = []

    def start(*waits):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            place = f"localhost:{probe.getsockname()[1]}"
        environ = os.environ | {
            "XLA_FLAGS": quick_xla.FLAGS,  # and one device a process
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(ROOT),
        }
        for i, wait in enumerate(waits):
            children.append(
                subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, place, str(i), wait],
                    env=environ,
                    text=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            )
        for child in children:
            while (line := child.stdout.readline()) != "joined\n":  # after gloo's own lines
                assert line, child.stderr.read()
        return children

    yield start
    for child in children:
        child.kill()
        child.communicate()


def test_without_process_0_the_other_ends_with_one_line(two):
    first, other = two("here", "here")
    first.kill()
    said = other.communicate(timeout=60)[1].splitlines()
    assert other.returncode == ending.LOST, said
    # Its heartbeat noticed: JAX's own stack stands above, Python's does not.
    assert [x for x in said if x.startswith(("error: ", "Traceback"))] == said[-1:]
    assert "start all processes again with the same command" in said[-1]


def test_process_0_ends_too_when_the_other_is_terminated(two):
    first, other = two("collective", "here")
    # No training yet that could save itself; JAX's preemption service would swallow the signal.
    other.terminate()
    assert other.wait(20) == -signal.SIGTERM
    said = first.communicate(timeout=60)[1].splitlines()
    assert first.returncode == ending.LOST, said
    assert len(said) == 1 and said[0].startswith("error: another process of this run is gone (")


GLOO = (
    "UNKNOWN: Gloo AllGather failed: [external/gloo/gloo/transport/tcp/pair.cc:538] Read error "
    "[127.0.0.1]:38024: Connection reset by peer"
)


@pytest.mark.parametrize(
    "text",
    [
        GLOO,
        GLOO.replace("Connection reset by peer", "Connection closed by peer [127.0.0.1]:36226"),
        "INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited or there was a "
        "network error",
        "UNAVAILABLE: Failed to send RPC to coordination service: Socket closed",
    ],
)
def test_the_words_of_a_lost_process_are_known(text):
    assert lost_peer(ValueError(text)) == text
    outer = RuntimeError("while saving")
    outer.__context__ = ValueError(text + "\nsecond line")
    assert lost_peer(outer).startswith(text[:100]) and "\n" not in lost_peer(outer)


@pytest.mark.parametrize(
    "error",
    [
        None,
        ValueError("shapes (2, 3) and (4,) differ"),
        ConnectionResetError(104, "reset by peer"),
        RuntimeError("INTERNAL: NCCL operation failed: invalid argument"),
        TimeoutError("timed out"),
    ],
)
def test_other_errors_keep_their_traceback(error):
    assert lost_peer(error) is None
