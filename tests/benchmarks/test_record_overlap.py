"""How much held-out text stands in the training text: against plain search, with both controls."""

import json

import numpy as np
import pytest

from benchmarks.record import overlap

WINDOW = 16


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def plain(rows, run, tokens):
    """The same question, by the bytes of every run of the array."""
    there = {tokens[i : i + run].tobytes() for i in range(len(tokens) - run + 1)}
    return [
        [row[p : p + run].tobytes() in there for p in range(len(row) - run + 1)] for row in rows
    ]


def save(folder, **arrays):
    for name, row in arrays.items():
        np.save(folder / f"{name}.npy", np.asarray(row, np.uint16))


def measure(folder, *more):
    out = folder / "overlap.json"
    status = overlap.main(
        ["--tokens", str(folder), "--out", str(out), "--window", str(WINDOW), *more]
    )
    return json.loads(out.read_text()) if status == 0 else status


@pytest.mark.parametrize("run", [1, 2, 3, 4, 7, 8, 16])
def test_runs_are_those_that_plain_search_finds(rng, run, monkeypatch):
    monkeypatch.setattr(overlap, "CHUNK", 50)  # runs across the borders of chunks count
    monkeypatch.setattr(overlap, "COMPARED", 40)
    tokens = rng.integers(0, 3, 300).astype(np.uint16)
    rows = rng.integers(0, 3, (20, WINDOW)).astype(np.uint16)
    rows[0], rows[1, :9] = tokens[284:300], tokens[45:54]
    expected = plain(rows, run, tokens)
    assert overlap.occurring(rows, run, tokens).tolist() == expected
    assert any(map(any, expected)) and (run < 4 or not all(map(all, expected)))


def test_a_hash_that_tells_nothing_apart_changes_no_answer(rng, monkeypatch):
    tokens = rng.integers(0, 2, 60).astype(np.uint16)
    rows = rng.integers(0, 2, (12, WINDOW)).astype(np.uint16)
    honest = overlap.keys
    monkeypatch.setattr(overlap, "keys", lambda t, run: honest(t, run) * np.uint64(0))
    found = overlap.occurring(rows, 6, tokens)
    assert found.tolist() == plain(rows, 6, tokens)
    assert found.any() and not found.all()


def test_a_text_in_itself_is_all_and_random_ids_in_it_are_nothing(tmp_path, rng):
    text = rng.integers(0, 50257, 4000)
    save(tmp_path, train0=text, valid=text, test=rng.integers(0, 50257, 4000))
    found = measure(tmp_path, "--sets", "valid,test", "--run", "4", "16")
    for row in found["rows"]:
        share = 1.0 if row["set"] == "valid" else 0.0
        assert row["runs_found"] == row["tokens_covered"] == row["windows_half"] == share
    assert [(r["set"], r["run"]) for r in found["rows"]] == [
        ("valid", 4),
        ("test", 4),
        ("valid", 16),
        ("test", 16),
    ]


def test_half_a_window_counts_and_less_does_not(tmp_path):
    # Four windows: 8, 7 and 0 tokens of the training text in one piece; two pieces of 4.
    train = np.arange(100, 140)
    test = np.arange(1000, 1000 + 4 * WINDOW).reshape(4, WINDOW)
    test[0, 3:11], test[1, 9:16] = train[5:13], train[:7]
    test[3, :4], test[3, 7:11] = train[20:24], train[30:34]
    save(tmp_path, train0=train, test=test.ravel())
    four, eight = measure(tmp_path, "--sets", "test", "--run", "4", "8")["rows"]
    assert four["windows_half"] == 2 / 4 and four["tokens_covered"] == (8 + 7 + 0 + 8) / 64
    assert four["runs"] == 4 * 13 and four["runs_found"] == (5 + 4 + 0 + 2) / 52
    assert eight["windows_half"] == 1 / 4 and eight["tokens_covered"] == 8 / 64
    assert eight["runs_found"] == 1 / 36


def test_arrays_are_added_one_by_one_and_runs_do_not_cross_them(tmp_path):
    text = np.arange(3 * WINDOW)
    save(tmp_path, train0=text[:WINDOW], train1=text[WINDOW : 2 * WINDOW], test=text)
    one, two = measure(tmp_path, "--sets", "test", "--run", "16")["rows"]
    assert one["train"] == ["train0.npy"] and one["train_tokens"] == WINDOW
    assert two["train"] == ["train0.npy", "train1.npy"] and two["train_tokens"] == 2 * WINDOW
    assert (one["windows_half"], two["windows_half"]) == (1 / 3, 2 / 3)
    save(tmp_path, test=text[8:24])
    assert [
        r["runs_found"] for r in measure(tmp_path, "--sets", "test", "--run", "16")["rows"]
    ] == [0, 0]


def test_the_command_stands_in_the_file_without_its_folders(tmp_path):
    save(tmp_path, train0=range(40), test=range(40))
    found = measure(tmp_path, "--sets", "test", "--run", "4", "--commit", "abc")
    assert found["commit"] == "abc" and str(tmp_path) not in found["command"]
    assert found["command"].startswith("python -m benchmarks.record.overlap --tokens TOKENS ")
    assert "--run 4 " in found["command"] and "--sets test " in found["command"]


@pytest.mark.parametrize(
    "more, said",
    [
        (["--run", "17"], "--run must be between 1 and --window=16"),
        (["--run", "0"], "--run must be"),
        (["--windows", "-1"], "--windows not negative"),
        (["--train", "text*.npy"], "has no text*.npy"),
        (["--sets", "code"], "cannot read"),
        (["--sets", "short"], "short.npy is shorter than --window=16"),
        (["--sets", "table"], "must be one row of token ids"),
    ],
)
def test_bad_input_is_one_line_and_no_file(tmp_path, capsys, more, said):
    save(tmp_path, train0=range(40), test=range(40), short=range(9), table=np.zeros((4, 20)))
    assert measure(tmp_path, "--sets", "test", "--run", "4", *more) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "overlap.json").exists()
