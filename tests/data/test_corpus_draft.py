"""A corpus in the making goes on after its last whole chunk."""

import fcntl
import os
import threading

import numpy as np
import pytest

from cr_jax.data import ByteTokenizer, encoding, load_corpus
from cr_jax.data import corpus as corpus_module
from cr_jax.data.corpus_draft import FILES, Draft, locked_folder
from cr_jax.data.encoding import Encoded, Encoder
from cr_jax.errors import UserError

BYTES = ByteTokenizer()
TEXTS = [f"document {n} ä\n" * (n + 1) for n in range(12)]


class Counting(ByteTokenizer):
    """Notes what is encoded."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def encode(self, text):
        self.seen.append(text)
        return super().encode(text)


class Stop(BaseException):
    """What no handler of the project expects: like a kill, it is not cleaned up after."""


@pytest.fixture
def texts(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "CHUNK", 1)
    (tmp_path / "texts").mkdir()
    for n, text in enumerate(TEXTS):
        (tmp_path / "texts" / f"{n:02}.txt").write_text(text)
    return tmp_path / "texts"


def load(texts, cache, tokenizer=BYTES, **more):
    return load_corpus([f"files:{texts}"], tokenizer, texts.parent / cache, **more)


def stopped(texts, after: int, **more):
    """Stops `load` after so many chunks; -> the folder of what is finished."""
    count = 0

    def stop(new, total):
        nonlocal count
        count += 1
        if count == after:
            raise Stop

    with pytest.raises(Stop):
        load(texts, "cache", on_tokens=stop, **more)
    (draft,) = (texts.parent / "cache").iterdir()
    return draft


def entry(texts, cache) -> dict[str, bytes]:
    (folder,) = (texts.parent / cache).iterdir()
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("after", [1, 5, 12])
def test_a_stop_loses_no_finished_chunk_and_changes_no_byte(texts, after):
    load(texts, "whole")
    draft = stopped(texts, after)
    assert draft.name.startswith(".making-") and not (draft / "corpus.json").exists()
    tokenizer = Counting()
    corpus = load(texts, "cache", tokenizer)
    assert tokenizer.seen == TEXTS[after:]
    assert entry(texts, "cache") == entry(texts, "whole")
    assert BYTES.decode(corpus.tokens) == "".join(TEXTS)


def torn(path, by: int):
    os.truncate(path, path.stat().st_size - by)


def longer(path, by: bytes):
    path.write_bytes(path.read_bytes() + by)


def flipped(path, at: int):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def last_line(path) -> int:
    return path.read_bytes()[:-1].rfind(b"\n") + 1


def test_a_process_that_is_killed_loses_no_finished_chunk(texts, monkeypatch):
    monkeypatch.setattr(encoding, "ALONE", 0)
    load(texts, "whole")
    with Encoder(BYTES, 2) as encoder:

        def kill(new, total):
            for worker in [encoder._idle.get() for _ in range(2)]:
                worker._process.kill()
                encoder._idle.put(worker)

        with pytest.raises(UserError, match="run the same command to go on"):
            load(texts, "cache", encoder, on_tokens=kill)
    tokenizer = Counting()
    load(texts, "cache", tokenizer)
    assert 0 < len(tokenizer.seen) < len(TEXTS)
    assert entry(texts, "cache") == entry(texts, "whole")


@pytest.mark.parametrize(
    "damage, redone",
    [
        (lambda d: torn(d / "journal.jsonl", 1), 1),
        (lambda d: torn(d / "journal.jsonl", 70), 1),
        (lambda d: torn(d / "tokens.npy", 1), 1),
        (lambda d: flipped(d / "tokens.npy", -1), 1),
        (lambda d: flipped(d / "journal.jsonl", last_line(d / "journal.jsonl") + 80), 1),
        (lambda d: flipped(d / "tokens.npy", 130), 5),
        (lambda d: (d / "tokens.npy").unlink(), 5),
        (lambda d: (d / "journal.jsonl").unlink(), 5),
        (lambda d: flipped(d / "tokens.npy", 3), 0),  # the header is written anew
        (lambda d: longer(d / "tokens.npy", b"more"), 0),
        (lambda d: longer(d / "journal.jsonl", b"\0\xff"), 0),
    ],
    ids=range(11),
)
def test_a_torn_chunk_and_all_after_it_are_redone(texts, damage, redone):
    load(texts, "whole")
    damage(stopped(texts, 5))
    tokenizer = Counting()
    load(texts, "cache", tokenizer)
    assert tokenizer.seen == TEXTS[5 - redone :]
    assert entry(texts, "cache") == entry(texts, "whole")


@pytest.mark.parametrize("after", [2, 5])  # the fifth chunk is cut and reaches the limit
def test_a_stop_within_the_limit_and_at_it(texts, after):
    total = sum(len(t.encode()) + 1 for t in TEXTS[:4]) + 5
    load(texts, "whole", max_tokens=total)
    stopped(texts, after, max_tokens=total)
    tokenizer = Counting()
    found = load(texts, "cache", tokenizer, max_tokens=total)
    assert tokenizer.seen == TEXTS[after:5] and len(found.tokens) == total
    assert entry(texts, "cache") == entry(texts, "whole")


def not_text(texts, *names):
    for name in names:
        (texts / name).write_bytes(b"\x89PNG\r\n\x1a\n\0")


@pytest.mark.parametrize("after", [1, 3, 12])
def test_what_was_left_out_is_counted_once_however_often_it_was_stopped(texts, after):
    not_text(texts, "00.png", "02.png", "99.png")
    whole = load(texts, "whole")
    assert whole.left_out == "left out 3 files that are not text (00.png, 02.png, 99.png)"
    stopped(texts, after)
    assert load(texts, "cache").left_out == whole.left_out
    assert entry(texts, "cache") == entry(texts, "whole")
    assert load(texts, "cache").left_out == whole.left_out  # from the cache


@pytest.mark.parametrize("jobs", [1, 2])
def test_at_a_limit_only_what_was_reached_is_left_out(texts, monkeypatch, jobs):
    not_text(texts, "00.png", "09.png")
    monkeypatch.setattr(encoding, "ALONE", 0)  # processes read ahead
    limit = sum(len(t.encode()) + 1 for t in TEXTS[:4])
    with Encoder(BYTES, jobs) as encoder:
        found = load(texts, "cache", encoder, max_tokens=limit)
    assert found.left_out == "left out 1 file that is not text (00.png)"
    with Encoder(BYTES, jobs) as encoder:
        assert load(texts, "cache2", encoder).left_out.startswith("left out 2 files")


def test_at_a_limit_a_stop_forgets_nothing_that_was_left_out(texts):
    not_text(texts, "00.png")
    limit = sum(len(t.encode()) + 1 for t in TEXTS[:4])
    stopped(texts, 4, max_tokens=limit)
    assert load(texts, "cache", max_tokens=limit).left_out.endswith("(00.png)")


def test_other_text_does_not_go_on_with_what_was_begun(texts):
    stopped(texts, 5)
    (texts / "00.txt").write_text("new")
    assert BYTES.decode(load(texts, "cache").tokens) == "new" + "".join(TEXTS[1:])


def test_bad_text_leaves_nothing_and_a_full_disk_what_is_finished(texts, monkeypatch):
    (texts / "99.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"99\.txt"):
        load(texts, "cache")
    assert not list((texts.parent / "cache").iterdir())
    (texts / "99.txt").unlink()

    add, count = Draft.add, 0

    def full(self, part):
        nonlocal count
        count += 1
        if count == 4:
            self._tokens.write(b"half")
            raise OSError(28, "No space left on device")
        add(self, part)

    monkeypatch.setattr(Draft, "add", full)
    with pytest.raises(UserError, match=r"cannot write .* No space left on device"):
        load(texts, "cache")
    monkeypatch.undo()
    monkeypatch.setattr(encoding, "CHUNK", 1)
    tokenizer = Counting()
    load(texts, "cache", tokenizer)
    assert tokenizer.seen == TEXTS[3:]
    load(texts, "whole")
    assert entry(texts, "cache") == entry(texts, "whole")


def test_two_at_a_time_make_it_once(texts, monkeypatch):
    begun, go, tokenizer = threading.Event(), threading.Event(), Counting()
    write = corpus_module._write

    def slow(*args):
        begun.set()
        assert go.wait(30)
        write(*args)

    monkeypatch.setattr(corpus_module, "_write", slow)
    first, second = (
        threading.Thread(target=load, args=(texts, "cache", t)) for t in (BYTES, tokenizer)
    )
    first.start()
    assert begun.wait(30)
    second.start()
    second.join(0.2)
    assert second.is_alive()  # it waits for the lock
    go.set()
    first.join()
    second.join()
    assert not tokenizer.seen
    assert len(entry(texts, "cache")) == 3


def test_a_lock_is_held_by_one_and_not_by_a_name(tmp_path):
    place = tmp_path / "draft"
    with locked_folder(place) as one:
        assert one == place
        with pytest.raises(BlockingIOError), locked_folder(place, wait=False):
            pass
    with locked_folder(place, wait=False), pytest.raises(FileNotFoundError):
        (place / "missing").read_text()  # what the block raises is not swallowed


def test_without_locks_a_folder_of_its_own(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with locked_folder(tmp_path / "draft") as one, locked_folder(tmp_path / "draft") as other:
        assert one != other and one.parent == other.parent == tmp_path
        # It is renamed to what others read: not for its owner alone.
        assert one.stat().st_mode == tmp_path.stat().st_mode | 0o055
    assert not list(tmp_path.iterdir())


def test_a_link_is_not_followed(texts):
    draft = stopped(texts, 5)
    elsewhere = texts.parent / "elsewhere"
    elsewhere.write_text("keep")
    (draft / "tokens.npy").unlink()
    (draft / "tokens.npy").symlink_to(elsewhere)
    with pytest.raises(UserError, match="cannot write"):
        load(texts, "cache")
    assert elsewhere.read_text() == "keep"


def test_the_header_fits_any_length(tmp_path):
    part = Encoded(np.arange(1000, dtype=np.uint32), np.array([600, 400]), ["a", "b"], 7)
    with Draft(tmp_path, np.dtype(np.uint32)) as draft:
        draft.add(part)
        draft.add(part)
        draft.finish("key")
    found = np.load(tmp_path / "tokens.npy")
    assert found.dtype == np.uint32 and found.tolist() == [*range(1000), *range(1000)]
    assert np.load(tmp_path / "starts.npy").tolist() == [0, 600, 1000, 1600, 2000]
