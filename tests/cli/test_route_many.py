"""`cr-jax route` of folders, lists and streams."""

import csv
import io
import json
import os
import sys
import types

import pytest
import tiny_bank

from cr_jax.cli import documents, main, route_many
from cr_jax.data import records

TEXT = "def route(text):\n    return min(experts)\n"


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "bank"
    tiny_bank.stored(folder, tiny_bank.trained_bank())
    return folder


@pytest.fixture
def folder(tmp_path):
    """Two texts of e0's letters, one of e1's, one of no expert's, an image and an empty file."""
    files = {
        "a.txt": "abcdefghij" * 9,
        "b/c.txt": "jihgfedcba" * 9,
        "b/d.md": "qrstuvwxyz" * 9,
        "e.txt": "0123456789" * 9,
    }
    for name, text in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(text)
    (tmp_path / "in/image.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    return tmp_path / "in"


@pytest.fixture
def run(capsys, bank):
    def call(*argv):
        status = main(["route", "--bank", str(bank), *map(str, argv)])
        return status, *capsys.readouterr()

    return call


def test_a_folder_is_read_in_order_and_summed_up(run, folder):
    status, out, err = run(folder)
    names = [line.split(": ")[0] for line in out.splitlines()]
    assert names == [str(folder / n) for n in ("a.txt", "b/c.txt", "b/d.md", "e.txt")]
    assert [": e0 " in x or "nearest e0" in x for x in out.splitlines()][:3] == [True, True, False]
    assert status == 0 and err.startswith("4 texts in ") and "passed over 1 file that is" in err
    assert run("--include", "*.md", folder)[1].count("\n") == 1
    assert run("--exclude", "b", folder)[1].count("\n") == 2
    (folder / ".gitignore").write_text("b/\n")
    assert run("--gitignore", folder)[1].count("\n") == 2


def test_unknown_texts_can_be_filtered_and_fail(run, folder):
    status, out, _ = run("--only-unknown", "--fail-on-unknown", folder)
    assert status == 1 and str(folder / "e.txt") in out and "unknown" in out
    assert str(folder / "a.txt") not in out
    assert run("--only-unknown", "--alpha", 0, "--fail-on-unknown", folder)[:2] == (0, "")


def test_bad_members_cost_one_line_each_and_the_rest_is_routed(run, folder, tmp_path):
    (folder / "empty.txt").write_text("")
    (folder / "latin.txt").write_bytes(b"caf\xe9 au lait " * 9)
    (folder / "new\nline.txt").write_text(TEXT * 3)
    status, out, err = run(folder, tmp_path / "nowhere")
    assert status == 2 and out.count("\n") == 5
    lines = err.splitlines()
    assert [word in line for word, line in zip(("empty", "latin", "nowhere"), lines)] == [True] * 3
    assert "3 could not be read" in lines[-1] and len(lines) == 4
    (tmp_path / "bare").mkdir()
    status, out, err = run(tmp_path / "bare")
    assert (status, out) == (2, "") and "holds no such file" in err
    (tmp_path / "bare/x.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    status, out, err = run(tmp_path / "bare")
    assert (status, out) == (2, "") and "holds no text" in err and err.count("\n") == 1
    assert run(tmp_path / "bare/x.png")[0] == 2  # named by itself it is no accident


def test_tables_and_json_have_the_same_answers(run, folder):
    rows = list(csv.DictReader(io.StringIO(run("--csv", folder)[1])))
    said = [json.loads(line) for line in run("--json", folder)[1].splitlines()]
    assert [r["file"] for r in rows] == [s["file"] for s in said] and len(rows) == 4
    for row, one in zip(rows, said, strict=True):
        assert row["nearest"] == one["nearest"] and row["expert"] == (one["expert"] or "")
        assert float(row["margin"]) == pytest.approx(one["margin"])
        assert one["decided_by"] == row["decided_by"] == "experts"


def test_a_table_holds_no_formula_and_no_control_character(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["=1+1,a", "+b", "@c", "new\nline\x1b[2J", 'say "x"']
    for name in names:
        (tmp_path / name).write_text("abcdefghij" * 9)
    (tmp_path / "in").write_text("qrstuvwxyz" * 9)
    with (tmp_path / "in").open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        out = run("--csv", "-", *names)[1]
    rows = list(csv.DictReader(io.StringIO(out)))
    cells = ["'-", "'=1+1,a", "'+b", "'@c", "new\\nline\\x1b[2J", 'say "x"']
    assert [row["file"] for row in rows] == cells and out.count("\n") == 7
    assert "".join(out.split("\n")).isprintable()
    row = route_many._row(["a\nb", "a,b", -1.5, None, True])
    assert row == 'a\\nb,"a,b",-1.5,,True'


def test_records_come_back_with_their_route(run, tmp_path, monkeypatch):
    lines = [
        {"id": 1, "body": "abcdefghij" * 9},
        {"id": 2, "body": 3},
        {"id": 3, "body": "qrstuvwxyz" * 9, "more": ["é"]},
    ]
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    status, out, err = run("--jsonl", "--field", "body", file)
    found = [json.loads(line) for line in out.splitlines()]
    assert status == 2 and f"{file}:2" in err and [f["id"] for f in found] == [1, 3]
    assert [f["route"]["nearest"] for f in found] == ["e0", "e1"]
    assert {k: v for k, v in found[1].items() if k != "route"} == lines[2]
    status, _, err = run("--jsonl", file)
    assert status == 2 and "'text'" in err


def test_records_come_back_as_they_were(run, tmp_path):
    head = '{"text": "' + "abcdefghij" * 9 + '", "id": 123456789012345678901234567890, "x": 1e400'
    file = tmp_path / "in.jsonl"
    own, nan = head + ', "route": "A1"}\n', head + ', "y": NaN}\n'
    file.write_text(own + head + ', "s": "\\ud800é"}\n' + nan)
    status, out, err = run("--jsonl", file)
    assert status == 2 and out.startswith(head + ', "s": "\\ud800é","route":{"expert"')
    assert out.count("\n") == 1 and json.loads(out)["route"]["nearest"] == "e0"
    told = err.splitlines()
    assert f"{file}:1 has a field 'route' already" in told[0] and f"{file}:3 " in told[1]


def test_a_bad_line_does_not_end_a_stream(run, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MOST_BYTES", 300)
    good = json.dumps({"text": "abcdefghij" * 9})
    bad = ["{", "[1]", json.dumps({"text": "a" * 900}), '{"text": "a", "text": "b"}']
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join([good, *bad, "", good]))
    status, out, err = run("--jsonl", file)
    assert status == 2 and out.count("\n") == 2
    places = [f"{file}:{n}" for n in (2, 3, 4, 5)]
    lines = err.splitlines()
    assert [line.count(place) for line, place in zip(lines, places)] == [1] * 4 and len(lines) == 5
    assert lines[-1].startswith("2 texts in ") and "4 could not be read" in lines[-1]


def test_documents_between_nuls_and_a_stream(run, tmp_path, monkeypatch):
    documents = ["abcdefghij" * 9, "qrstuvwxyz" * 9]
    data = "\0".join(documents).encode() + b"\0caf\xe9"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))
    status, out, err = run("--null", "-")
    assert [line.split(" ")[:2] for line in out.splitlines()] == [["-:1:", "e0"], ["-:2:", "e1"]]
    assert status == 2 and "not UTF-8" in err
    (tmp_path / "two").write_bytes("\0".join(documents).encode())
    assert run("--null", tmp_path / "two")[1].count("\n") == 2
    read, write = os.pipe()
    os.write(write, documents[0].encode())
    os.close(write)
    with os.fdopen(read) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert run("-")[1].startswith("-: e0 ")


def test_a_document_between_nuls_has_a_bound_and_costs_its_length(run, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "NULL_MOST", 500)
    monkeypatch.setattr(documents, "PIECE", 100)
    good = b"abcdefghij" * 50
    (tmp_path / "in").write_bytes(b"\0".join([good, b"a" * 501, good, b"a" * 5000]))
    status, out, err = run("--null", tmp_path / "in")
    assert [line.split(":")[1] for line in out.splitlines()] == ["1", "3"]
    told = err.splitlines()
    assert status == 2 and ":2: a document is longer than 500 bytes" in told[0] and ":4" in told[1]
    lengths = []
    monkeypatch.setattr(documents, "NULL_MOST", 1 << 27)

    class Block(bytes):
        def split(self, by):
            lengths.append(len(self))
            return bytes.split(self, by)

        def __radd__(self, other):
            return Block(bytes(other) + bytes(self))

    blocks = iter([Block(b"a" * 100)] * 50 + [b""])
    file = types.SimpleNamespace(buffer=types.SimpleNamespace(read1=lambda most: next(blocks)))
    monkeypatch.setattr(sys, "stdin", file)
    assert list(documents._between_nuls("-")) == ["a" * 5000] and lengths == [100] * 50


@pytest.mark.parametrize(
    "flags",
    [
        ["--csv", "--json"],
        ["--jsonl", "--null"],
        ["--include", "*.py"],
        ["--exclude", "*.py"],
        ["--gitignore"],
        ["--field", "text"],
    ],
)
def test_flags_that_contradict_or_do_nothing_are_refused(run, folder, flags):
    status, out, err = run(*flags, folder / "a.txt")
    assert (status, out) == (2, "") and err.count("\n") == 1 and flags[0] in err
    status, out, err = run("--jsonl", "--include", "*.txt", folder)
    assert (status, out) == (2, "") and "--include" in err


def test_texts_too_short_to_judge_are_no_known_ones(run, folder):
    (folder / "short.txt").write_text("a")
    status, out, err = run("--only-unknown", "--fail-on-unknown", folder)
    assert str(folder / "short.txt") in out and "too short to judge" in out
    assert str(folder / "a.txt") not in out and err.startswith("5 texts in ")
    assert "; 1 too short to judge; " in err and status == 1


@pytest.mark.parametrize("one", ["--explain", "--cascade"])
def test_what_is_about_one_text_is_no_way_to_many(run, folder, one):
    status, out, err = run(one, "--csv", folder / "a.txt")
    assert (status, out) == (2, "") and one in err and "--csv" in err
