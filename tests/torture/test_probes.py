"""A probe's answer is compared with what is right; the watcher notices every other end."""

import pickle
import time

import pytest

from benchmarks.torture import watch
from benchmarks.torture.probes import Probe, differences, some
from cr_jax.errors import UserError


def refuse(folder):
    raise UserError("no")


def watched(call, folder, refused=None):
    watch.install()
    return watch.probe(Probe("kind", "what", call, refused), folder, ())


def test_refusals_and_answers_are_compared_with_what_is_right(tmp_path):
    assert watched(refuse, tmp_path) == watched(refuse, tmp_path, True) == (2, [])
    assert watched(lambda folder: (), tmp_path) == watched(lambda f: (), tmp_path, False) == (0, [])
    assert watched(refuse, tmp_path, False)[1] and watched(lambda folder: (), tmp_path, True)[1]
    assert watched(lambda folder: ["lost"], tmp_path) == (0, ["lost"])


def test_what_is_lost_or_changed_is_told():
    assert differences(["a", "b"], ["a", "b"]) == []
    for said in (["a"], ["b", "a"], ["a", "b", "c"], [], ["a", "b "]):
        assert differences(said, ["a", "b"])


class Harmless:
    """What `pickle` must not be asked for."""


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda folder: [][0], "IndexError"),
        (lambda folder: (folder / ".." / "x").write_text("y") and (), "outside"),
        (lambda folder: pickle.loads(pickle.dumps(Harmless())) and (), "unpickled"),
        (lambda folder: time.sleep(5), "no answer"),
    ],
)
def test_another_end_is_noticed(tmp_path, monkeypatch, call, says):
    monkeypatch.setattr(watch, "SECONDS", 0.2)
    (tmp_path / "probe").mkdir()
    assert says in str(watched(call, tmp_path / "probe")[1])


def test_a_command_inside_a_probe_is_watched_on_its_own(tmp_path):
    def call(folder):
        (folder / "in").write_text("x")
        return watch.call(lambda argv: (folder / "out").write_text("y") and 0, [], b"", (), False)[
            1
        ]

    assert "out" in str(watched(call, tmp_path)[1])
    (tmp_path / "in").unlink()
    assert watch._events is None


def test_some_inputs_are_other_ones_for_another_number():
    assert some(range(5), 9, 0) != list(range(5)) and sorted(some(range(5), 9, 0)) == [*range(5)]
    assert len(set(some(range(100), 10, 1))) == 10 and some(range(100), 10, 1) != some(
        range(100), 10, 2
    )
