"""`cr-jax` answers hostile input with one line; the watcher of that claim notices a breach."""

import json
import pickle
import sys
import time

import pytest

from benchmarks.torture import fuzz, hostile, watch
from cr_jax import cli
from cr_jax.bank import files


def test_generated_inputs_are_answered_or_refused():
    found = fuzz.run(60)
    assert found["fuzz_inputs"] >= 50
    assert found["failures"] == [] and found["fuzz_failures"] == 0
    for kind, figures in found["kinds"].items():
        assert (figures["refused"] and figures["answered"]) or figures["inputs"] < 10, kind
    assert {k.partition(",")[0] for k in found["kinds"]} == set(fuzz.SHARES)
    assert sum(fuzz.SHARES.values()) == pytest.approx(1)


@pytest.fixture
def bank(tmp_path):
    fuzz.make_bank(tmp_path / "bank", 1)
    (tmp_path / "text.txt").write_text("a few words")
    return tmp_path / "bank"


def refused(bank, capsys, *argv):
    """`cr-jax ARGV` -> its one line; {bank} and {text} are filled in."""
    names = {"bank": bank, "text": bank.parent / "text.txt"}
    status = cli.main([word.format(**names) for word in argv])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "") and len(err.splitlines()) == 1, err
    assert all(c.isprintable() for c in err[:-1])
    return err


ROUTE = ("route", "--bank", "{bank}", "{text}")


@pytest.mark.parametrize(
    "field, value",
    [
        ("window", 10**30),
        ("window", 2**40),
        ("vocab_size", 0),
        ("vocab_size", 2**40),
        ("d_ff", 2**50),
        ("encoder_blocks", 10**6),
    ],
)
def test_sealed_sizes_that_nobody_means(bank, capsys, field, value):
    for name in hostile.JSON_FILES[:2]:
        raw = json.loads((bank / name).read_bytes())
        raw["model"][field] = value
        (bank / name).write_bytes(hostile.dumps(raw))
    hostile.reseal(bank, set())
    assert "changed" not in refused(bank, capsys, *ROUTE)  # the seals are right


@pytest.mark.parametrize("file", hostile.JSON_FILES)
@pytest.mark.parametrize("data", [b"[" * 100_000, b"[" * 900 + b"]" * 900, b"9" * 5000, b"\xff"])
def test_sealed_json_that_breaks_readers(bank, capsys, file, data):
    (bank / file).write_bytes(data)
    hostile.reseal(bank, {file})
    # Routing reads no language models.
    reading = ("bank", "verify", "--bank", "{bank}") if file in hostile.SPOKEN else ROUTE
    refused(bank, capsys, *reading)


@pytest.mark.parametrize("number", [10**400, -1, None, "x"])
def test_sealed_calibrations_of_no_numbers(bank, capsys, number):
    file = bank / hostile.INSIDE / "calibration.json"
    raw = json.loads(file.read_bytes())
    raw["residuals"]["8"] = [1.0, number]
    file.write_bytes(hostile.dumps(raw))
    hostile.reseal(bank, set())
    assert "calibration" in refused(bank, capsys, *ROUTE)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "../../x", "..", "x" * 300, "a\x1b[2Jb\nc"])
def test_names_inside_a_sealed_bank(bank, capsys, name):
    index = json.loads((bank / "bank.json").read_bytes())
    for group in ("tokenizer_files", "experts"):
        entry = next(iter(index[group].values()))
        changed = {**index, group: {name: entry}}
        changed.pop("sha256")
        files.write_sealed(bank / "bank.json", changed)
        refused(bank, capsys, *ROUTE)


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000, "a\x1b[31m\nb", "\udcff\x9b"])
def test_names_on_the_command_line(bank, capsys, name):
    for argv in (
        ("route", "--bank", name, "{text}"),
        ("route", "--bank", "{bank}", name),
        ("bank", "remove", "--bank", "{bank}", name),
        ("bank", name),
        ("bank", "add", "--bank", "{bank}", name, "--name", "new"),
        ("bank", "verify", "--bank", "{bank}", name),
    ):
        refused(bank, capsys, *argv)


# The watcher


class Harmless:
    """What `pickle` must not be asked for."""


def fails(folder, main, reports=False):
    watch.install()
    return watch.call(main, [], b"", (folder,), reports)[1]


def complain(text, status=2):
    def main(argv):
        sys.stderr.write(text)
        return status

    return main


def test_a_clean_refusal_and_a_clean_answer_pass(tmp_path):
    assert fails(tmp_path, complain("cr-jax: no\n")) == []
    assert fails(tmp_path, lambda argv: 0) == []
    assert fails(tmp_path, complain("cr-jax: a\ncr-jax: b\n"), reports=True) == []


@pytest.mark.parametrize(
    "main",
    [
        complain("cr-jax: a\ncr-jax: b\n"),
        complain("no\n"),
        complain("cr-jax: \x1b[2J\n"),
        complain(""),
        complain("cr-jax: no\n", 0),
        complain("cr-jax: no\n", 1),
        lambda argv: [][0],
        lambda argv: pickle.loads(pickle.dumps(Harmless())) and 0,
    ],
)
def test_what_is_no_clean_refusal_is_noticed(tmp_path, main):
    assert fails(tmp_path, main)


def test_writes_outside_the_folder_are_noticed(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    assert fails(inside, lambda argv: (inside / "x").write_text("y") and 0) == []
    for act in (
        lambda: (inside / ".." / "out" / "x").write_text("y"),
        lambda: (inside / "link" / "z").write_text("y"),
        lambda: outside.chmod(0o700),
        lambda: (outside / "new").mkdir(),
        lambda: (outside / "x").unlink(),
    ):
        assert "outside" in str(fails(inside, lambda argv, act=act: act() and 0))


def test_a_hang_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "SECONDS", 0.2)
    assert "no answer" in str(fails(tmp_path, lambda argv: time.sleep(5)))


def test_memory_is_limited_and_given_back():
    with watch.limited_memory(1), pytest.raises(MemoryError):
        bytearray(1 << 33)
    assert len(bytearray(1 << 20)) == 1 << 20
