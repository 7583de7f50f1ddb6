"""Two real processes: one is killed, the other ends by itself, and both go on bit for bit."""

import pathlib
import types

import jax
import pytest

from benchmarks.torture import processes, runs
from cr_jax import distributed

# Less to compile than in the long version, most of whose time goes there.
SETTINGS = {"train.steps": 16, "optimizer.name": "adamw", "model.encoder_blocks": 0,
            "train.ema": 0.0, "train.nested": 0.0, "train.hidden": 0.0}


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    compiled = pathlib.Path(jax.config.jax_compilation_cache_dir)
    return runs.Place(tmp_path_factory.mktemp("processes"), compiled)


def test_without_process_0_the_other_ends_and_both_go_on_bit_for_bit(where):
    quiet, workdir = where.workdir("quiet"), where.workdir("killed")
    assert processes.Group(where, quiet, SETTINGS).wait() == [0, 0]
    group = processes.Group(where, workdir, SETTINGS)
    assert group.until(8)
    group.children[0].kill()
    left = processes.outlived(group.children[1])
    assert left["ended"] and left["one_line"], group.last_lines()
    assert left["status"] == processes.LOST == distributed.LOST
    assert runs.newest(workdir) == 8
    again = processes.Group(where, workdir, SETTINGS)
    assert again.wait() == [0, 0], again.last_lines()
    assert again.went_on_from() == again.newest == 8
    assert runs.same(workdir, quiet)


def test_the_flags_make_one_run():
    assert runs.joined(1) == [[]]
    a, b = runs.joined(2)
    assert a[:2] == b[:2] and [a[2], b[2]] == ["--process=0", "--process=1"]


def child(status, *lines):
    """A process that has ended so, having said this."""
    return types.SimpleNamespace(child=types.SimpleNamespace(wait=lambda seconds: status),
                                 wait=lambda: status, lines=lambda: list(lines), kill=lambda: None)


@pytest.mark.parametrize("status, lines, good", [
    (75, ["F1122 JAX", "    @ 0x7f", "error: gone"], True), (2, ["error: not all joined"], True),
    (0, ["report: x"], True), (0, ["error: gone"], False), (75, ["F1122 JAX"], False),
    (75, ["error: a", "error: b"], False), (1, ["error: gone"], False),
    (75, ["Traceback (most recent call last):", "error: gone"], False), (-6, [], False)])
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
