"""`cr-jax modular partition`: parts on disk, whole or not at all."""

import hashlib
import json
import os

import pytest
import tiny_corpora
import tiny_tokens
from tiny_corpora import NAMES

from cr_jax.cli import main
from cr_jax.data import documents
from cr_jax.host.files import read_sealed
from cr_jax.modular import part_files

DOCUMENTS = 40  # of each kind


@pytest.fixture
def source(tmp_path):
    """JSON lines of three kinds of text, in turn, with Windows' line ends and odd characters."""
    path = tmp_path / "all.jsonl"
    with open(path, "w") as file:
        for i in range(DOCUMENTS):
            for kind in NAMES:
                text = tiny_corpora.words(kind, i, count=40) + (" ü\r\nend" if i % 2 else "")
                file.write(json.dumps({"body": text, "repo": f"{kind}/{i // 4}"}) + "\n")
    return f"jsonl:{path}#body"


@pytest.fixture
def call(tmp_path, capsys):
    def run(*argv, out="parts", parts=3):
        argv = ["--parts", parts, "--out", tmp_path / out, *argv]
        status = main(["modular", "partition", *map(str, argv)])
        return status, *capsys.readouterr()

    return run


def refused(result, *words, says=""):
    status, out, err = result
    assert (
        status == 2
        and out.startswith(says)
        and bool(out) == bool(says)
        and err.startswith("cr-jax: ")
        and err.count("\n") == 1
    ), err
    for word in words:
        assert word in err


def records(path):
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def kinds(path):
    """Documents of each kind in one part, by their groups."""
    groups = [record["group"].partition("/")[0] for record in records(path)]
    return {kind: groups.count(kind) for kind in NAMES}


def test_parts_are_sources_and_the_note_says_what_they_are(call, source, tmp_path):
    status, out, err = call(source, "--tokenizer", "bytes", "--slack", "0.3")
    assert (status, err) == (0, "")
    folder = tmp_path / "parts"
    names = [f"part-{k:02d}.jsonl" for k in range(3)]
    assert sorted(os.listdir(folder)) == [*names, "parts.json"]
    note = read_sealed(folder / "parts.json")
    lines = out.splitlines()
    assert lines[0].startswith("round 0: ") and "bits/byte, dealt at random" in lines[0]
    assert [line.partition(":")[0] for line in lines[-3:]] == [f"{folder}/{n}" for n in names]
    assert note["rounds"][0]["bits_per_byte"] > note["rounds"][note["kept_round"]]["bits_per_byte"]

    whole = [d.text for d in documents(source)]
    given = []
    for part in note["parts"]:
        path = folder / part["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == part["sha256"]
        found = [d.text for d in documents(f"jsonl:{path}")]
        assert len(found) == part["documents"]
        assert sum(len(text.encode()) for text in found) == part["bytes"]
        given += found
        assert max(kinds(path).values()) > 0.9 * part["documents"]
    # As tokens are made of them: with line feeds.
    assert sorted(given) == sorted(text.replace("\r\n", "\n") for text in whole)
    # A split keeps groups, which came along.
    parts = [{d.group for d in documents(f"jsonl:{path}@{s}")} for s in ("train", "test")]
    assert not parts[0] & parts[1]


def test_the_same_seed_gives_the_same_bytes(call, source, tmp_path):
    for out in ("a", "b"):
        assert call(source, "--tokenizer", "bytes", "--rounds", "2", out=out)[0] == 0
    a, b = (tiny_tokens.contents(tmp_path / out) for out in ("a", "b"))
    assert a == b


def test_json_is_the_note_and_an_empty_folder_gives_way(call, source, tmp_path):
    (tmp_path / "parts").mkdir()
    status, out, err = call(source, "--tokenizer", "bytes", "--json", "--rounds", "1", parts=2)
    assert (status, err) == (0, "")
    note = read_sealed(tmp_path / "parts" / "parts.json")
    assert json.loads(out) == {k: v for k, v in note.items() if k != "sha256"}


def test_a_token_folder_is_split_without_its_text(call, tmp_path):
    tiny_tokens.write_text(tmp_path)
    tokens = tiny_tokens.write_tokens(tmp_path)
    status, _, err = call("--tokens", tokens, "--rounds", "1", parts=2)
    assert (status, err) == (0, ""), err
    found = [r for k in (0, 1) for r in records(tmp_path / f"parts/part-0{k}.jsonl")]
    texts = {path.read_text() for path in (tmp_path / "text").glob("*-train.txt")}
    assert {record["text"] for record in found} == texts - {
        (tmp_path / "text/marks-train.txt").read_text()  # of no domain
    }
    assert {record["origin"].partition(":")[0] for record in found} == {"digits", "letters"}


def test_bad_input_is_one_line_and_leaves_nothing(call, source, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    cases = [
        ((source,), dict(parts=1), ("parts=1", "2 parts or more")),
        ((source,), dict(parts="x"), ("--parts=x must be a whole number",)),
        ((source, "--slack", "-1"), {}, ("--slack=-1 must be a number",)),
        ((source, "--slack", "nan"), {}, ("--slack=nan",)),
        ((source, "--rounds", "0"), {}, ("1 round or more",)),
        ((source,), dict(out="full"), ("full is not empty",)),
        ((source,), dict(out="all.jsonl"), ("cannot be used: Not a directory",)),
        ((source, "--tokenizer", "bytes"), dict(parts=1000), ("120 documents cannot make 1000",)),
        ((), {}, ("give source specs or --tokens",)),
        ((source, "--tokens", "t"), {}, ("and not both",)),
        (("--tokens", "t", "--tokenizer", "bytes"), {}, ("has its own tokenizer",)),
        (("--tokens", str(tmp_path)), {}, ("is no token folder",)),
        (("files:/nowhere/at/all",), {}, ("matches no file",)),
        ((f"jsonl:{empty}",), {}, ("no text in",)),
        ((source, "--tokenizer", str(tmp_path)), {}, ("no tokenizer in",)),
    ]
    before = tiny_tokens.contents(tmp_path)
    for argv, options, words in cases:
        refused(call(*argv, **options), *words)
    assert tiny_tokens.contents(tmp_path) == before
    assert not (tmp_path / "parts").exists()


def test_what_fails_while_it_is_written_leaves_nothing(call, source, tmp_path, monkeypatch):
    listed = sorted(os.listdir(tmp_path))
    monkeypatch.setattr(
        part_files, "_line", lambda document: (_ for _ in ()).throw(OSError(28, "x"))
    )
    refused(call(source, "--tokenizer", "bytes"), "cannot write", "make room", says="round 0")
    assert sorted(os.listdir(tmp_path)) == listed

    monkeypatch.undo()
    monkeypatch.setattr(part_files, "documents", lambda spec: [*documents(spec)][:-1])
    refused(call(source, "--tokenizer", "bytes"), "changed while it was read", says="round 0")
    assert sorted(os.listdir(tmp_path)) == listed
