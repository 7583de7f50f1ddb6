"""What counts as a good end of a process that lost another one.

Real kills of two processes take half a minute each and are the long version's (`make torture`);
tests/launch/test_lost_process.py has one process end because of another.
"""

import types

import pytest

from benchmarks.torture import processes, runs
from cr_jax.parallel import ending


def test_the_status_is_the_one_that_launch_scripts_know():
    assert processes.LOST == ending.LOST == 75


def test_the_flags_make_one_run():
    assert runs.joined(1) == [[]]
    a, b = runs.joined(2)
    assert a[:2] == b[:2] and [a[2], b[2]] == ["--process=0", "--process=1"]


def child(status, *lines):
    """A process that has ended so, having said this."""
    return types.SimpleNamespace(
        child=types.SimpleNamespace(wait=lambda seconds: status),
        wait=lambda: status,
        lines=lambda: list(lines),
        kill=lambda: None,
    )


@pytest.mark.parametrize(
    "status, lines, good",
    [
        (75, ["F1122 JAX", "    @ 0x7f", "error: gone"], True),
        (2, ["error: not all joined"], True),
        (0, ["report: x"], True),
        (0, ["error: gone"], False),
        (75, ["F1122 JAX"], False),
        (75, ["error: a", "error: b"], False),
        (1, ["error: gone"], False),
        (75, ["Traceback (most recent call last):", "error: gone"], False),
        (-6, [], False),
    ],
)
def test_only_one_line_and_its_status_are_enough(status, lines, good):
    assert processes.outlived(child(status, *lines))["one_line"] is good


def test_a_process_that_hangs_has_not_ended():
    hangs, killed = child(0), []

    def wait(seconds):
        raise processes.subprocess.TimeoutExpired("main.py", seconds)

    hangs.child.wait, hangs.kill = wait, lambda: killed.append(True)
    left = processes.outlived(hangs)
    assert (left["ended"], left["one_line"], killed) == (False, False, [True])


def test_where_a_start_goes_on_is_what_process_0_says():
    group = processes.Group.__new__(processes.Group)
    group.children = [child(0, "2 experts", "240 steps, at step 32: 7 min left"), child(0)]
    assert group.went_on_from() == 32
    group.children.reverse()
    assert group.went_on_from() is None
