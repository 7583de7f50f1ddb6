"""Documents are kept whole, once, and given back as they were."""

import pytest
import tiny_grow
from tiny_bank import contents, refuses

from cr_jax.bank.files import BankFolder
from cr_jax.continual import buffer as buffers
from cr_jax.continual.buffer import key_of, opened
from cr_jax.host.files import sha256
from cr_jax.host.inside import Inside


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return BankFolder(tiny_grow.bank(tmp_path_factory.mktemp("buffers")))


def test_documents_are_kept_once_by_the_hash_of_their_text(files, tmp_path):
    text = "ein Maß\n" * 3
    with opened(tmp_path / "b", files) as buffer:
        for _ in range(2):
            buffer.put(key_of(text), text)
        assert buffer.text(key_of(text)) == text
        (path,) = (tmp_path / "b" / "documents").iterdir()
        assert path.stem == key_of(text) == sha256(path)
        path.write_text("changed", encoding="utf-8")
        refuses(lambda: buffer.text(key_of(text)), "was changed since it was written")
        buffer.drop([key_of(text), key_of("never there")])
        refuses(lambda: buffer.text(key_of(text)), "is missing")
    refuses(lambda: key_of("\ud800"), "lone surrogate")


def test_what_a_killed_grower_left_is_swept(files, tmp_path):
    with opened(tmp_path / "b", files) as buffer:
        for text in ("kept", "let go"):
            buffer.put(key_of(text), text)
        for name in ("a.b", "new-2"):
            buffer.write_found(name, ["some text"])
            (tmp_path / "b" / "training" / name).mkdir(parents=True)
        (tmp_path / "b" / "documents" / ".x.txt.0123456789abcdef").write_text("a draft")
        (tmp_path / "b" / "documents" / "mine.txt").write_text("not the buffer's")
        buffer.sweep([key_of("kept")], "new-2")
        left = {str(path.relative_to(tmp_path / "b")) for path in (tmp_path / "b").rglob("*.*")}
    documents = {f"documents/{key_of('kept')}.txt", "documents/mine.txt"}
    assert left == {"buffer.json", ".lock", *documents, "found/new-2.train.jsonl"}
    assert [p.name for p in (tmp_path / "b" / "training").iterdir()] == ["new-2"]


@pytest.mark.parametrize(
    "stray", ["a.jsonl", "...x.jsonl", "....train.jsonl", "...train.jsonl", "train.jsonl", "b.txt"]
)
def test_a_stray_file_among_the_found_costs_no_training(files, tmp_path, stray):
    with opened(tmp_path / "b", files) as buffer:
        buffer.put(key_of("kept"), "kept")
        buffer.write_found("new-2", ["some text"])
        (tmp_path / "b" / "training" / "new-2" / "checkpoints").mkdir(parents=True)
        (tmp_path / "b" / "training" / "new-2" / "checkpoints" / "1.json").write_text("{}")
        (tmp_path / "b" / "found" / stray).write_text("somebody's own")
        before = contents(tmp_path)
        buffer.sweep([key_of("kept")], "new-2")
        assert contents(tmp_path) == before
        buffer.sweep([key_of("kept")], "")  # with nothing pending, its own alone
        gone = {path for path in before if "new-2" in str(path)}
        assert len(gone) == 2 and contents(tmp_path) == {
            path: data for path, data in before.items() if path not in gone
        }


def test_nothing_is_deleted_through_a_link(files, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "new-1"
    elsewhere.mkdir(parents=True)
    (elsewhere / "mine").write_text("somebody's own")
    with opened(tmp_path / "b", files) as buffer:
        buffer.write_found("new-1", ["some text"])
        (tmp_path / "b" / "training").symlink_to(elsewhere.parent)
        refuses(lambda: buffer.sweep([], ""), "training is a link")
        refuses(lambda: buffer.drop_found("new-1"), "training is a link")
        (tmp_path / "b" / "training").unlink()
        (tmp_path / "b" / "training" / "new-1").mkdir(parents=True)
        (tmp_path / "b" / "training" / "new-1" / "checkpoints").symlink_to(elsewhere)
        buffer.sweep([], "")
    assert [p.name for p in (tmp_path / "b" / "training").iterdir()] == []
    assert (elsewhere / "mine").read_text() == "somebody's own"


def test_a_dry_buffer_reads_what_is_there_and_writes_nothing(files, tmp_path):
    with opened(tmp_path / "b", files) as buffer:
        buffer.put(key_of("old"), "old")
    before = contents(tmp_path)
    with opened(tmp_path / "b", files, dry=True) as buffer:
        buffer.put(key_of("new"), "new")
        assert (buffer.text(key_of("old")), buffer.text(key_of("new"))) == ("old", "new")
        buffer.drop([key_of("old")])
        buffer.sweep([], "")
    with opened(tmp_path / "none", files, dry=True) as buffer:
        buffer.put(key_of("new"), "new")
    assert contents(tmp_path) == before and not (tmp_path / "none").exists()


@pytest.mark.parametrize("lacks", [{"tokenizer": 1}, {"experts": ["digits"]}, {"experts": None}])
def test_a_damaged_note_is_one_line(files, tmp_path, lacks):
    with opened(tmp_path / "b", files) as buffer:
        note = Inside.at(buffer.path).read_sealed("buffer.json")
    note = {k: v for k, v in {**note, **lacks}.items() if v is not None}
    Inside.at(tmp_path / "b").write_sealed("buffer.json", note)
    refuses(lambda: opened(tmp_path / "b", files).__enter__(), "buffer.json is damaged")


def test_a_full_disk_is_one_line_and_leaves_nothing(files, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with opened(tmp_path / "b", files) as buffer:
        buffer.put(key_of("old"), "old")
        before = contents(tmp_path)
        monkeypatch.setattr(buffers.Inside, "rename", full)
        refuses(lambda: buffer.put(key_of("new"), "new"), "cannot write", "No space left")
        refuses(lambda: buffer.write_found("new-1", ["text"]), "cannot write", "No space left")
        monkeypatch.undo()
        assert contents(tmp_path) == before
    (tmp_path / "file").write_text("")
    refuses(lambda: opened(tmp_path / "file", files).__enter__(), "cannot write")
