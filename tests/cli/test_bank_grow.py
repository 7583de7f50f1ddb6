"""`cr-jax bank grow`: a folder or a stream in, a line for each event out."""

import io
import json
import shutil
import sys

import pytest
import tiny_grow
from tiny_bank import contents

from cr_jax.cli import main
from cr_jax.continual import grow
from cr_jax.continual.options import GrowOptions


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return tiny_grow.bank(tmp_path_factory.mktemp("stored"))


@pytest.fixture
def bank(stored, tmp_path):
    return shutil.copytree(stored, tmp_path / "bank")


def run(bank, *words):
    return main(["bank", "grow", "--bank", str(bank), *map(str, words)])


def test_a_folder_is_read_and_every_event_is_a_line(bank, tmp_path, capsys):
    inbox = tiny_grow.inbox(tmp_path / "inbox", ["digits", "marks", "letters"], 10_002)
    (inbox / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    assert run(bank, "--inbox", inbox, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert not (tmp_path / "bank.buffer").exists() and len(lines) == 5
    assert lines[0].endswith("picture.png: passed over, it is no text")
    assert "000-digits.txt: digits  p 0." in lines[1] and "unknown (nearest" in lines[2]
    assert lines[4] == (
        "3 documents: 2 known, 1 unknown, 1 passed over, 0 experts mounted; 1 are kept"
    )
    assert run(bank, "--inbox", inbox, "--json", "--buffer", tmp_path / "own") == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["event"] for e in told] == ["skipped", *["document"] * 3, "end"]
    stored = (tmp_path / "own" / "journal.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["id"] for line in stored] == [e["id"] for e in told[:4]]


def test_standard_input_is_a_stream_of_json_lines_or_of_documents(bank, capsys, monkeypatch):
    texts = [tiny_grow.text(kind, 1) for kind in ("digits", "letters")]
    data = "\0".join(texts).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert run(bank, "--inbox", "-", "--null", "--json") == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e.get("nearest") for e in told[:2]] == ["digits", "letters"]
    path = bank.parent / "stream.jsonl"
    path.write_text("".join(json.dumps({"body": t}) + "\n" for t in texts) + "nonsense\n")
    assert run(bank, "--inbox", path, "--jsonl", "--field", "body") == 0
    out = capsys.readouterr().out.splitlines()
    assert ":3: passed over" in out[0] and "JSON" in out[0]
    assert [line.split(": ")[1] for line in out[1:3]] == ["seen before, passed over"] * 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--inbox", "nowhere"], "nowhere"),
        (["--inbox", ".", "--run-length", "0"], "run length"),
        (["--inbox", ".", "--tokens", "0"], "tokens"),
        (["--inbox", ".", "--steps", "-1"], "steps"),
        (["--inbox", ".", "--name", "a b"], "a b"),
        (["--inbox", ".", "--start", "far"], "--start"),
        ([], "--inbox"),
    ],
)
def test_bad_words_are_one_line(bank, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path / "bank" / "tokenizer")
    before = contents(bank)
    status = run(bank, *words)
    out, err = capsys.readouterr()
    if words[1:2] == ["nowhere"]:
        assert status == 0 and out.startswith("nowhere: ")
    else:
        assert status == 2 and out == "" and err.count("\n") == 1 and said in err
    assert contents(bank) == before


def test_its_words_are_handed_over_and_a_stop_is_status_130(bank, capsys, monkeypatch):
    heard = []

    def stopped(*given):
        heard.append(given)
        raise KeyboardInterrupt

    monkeypatch.setattr(grow, "grow", stopped)
    words = ["--run-length", 50, "--tokens", 7, "--start", "noise", "--steps", 9]
    assert run(bank, "--inbox", "-", *words, "--name", "law", "--buffer", "b") == 130
    assert "run the same command" in capsys.readouterr().err
    ((path, _, options, _, place),) = heard
    assert (path, place) == (str(bank), "b")
    assert options == GrowOptions(50.0, 7, "noise", 9, "law")
