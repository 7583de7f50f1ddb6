"""Tokenised corpora: what they hold, when the cache is used, and when it is not."""

import numpy as np
import pytest

from cr_jax.data import Reading, encoding
from cr_jax.data.corpus import load_corpus
from cr_jax.data.sources import split_of
from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.errors import UserError

BYTES = ByteTokenizer()


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "texts"
    place.mkdir()
    for name, text in [("a.txt", "one ä"), ("b.txt", ""), ("c.txt", "two\n")]:
        (place / name).write_text(text)
    return place


class Counting(ByteTokenizer):
    """Counts how many documents are encoded."""

    calls = 0

    def encode(self, text):
        self.calls += 1
        return super().encode(text)


def load(folder, tokenizer=BYTES, **kwargs):
    return load_corpus([f"files:{folder}"], tokenizer, folder.parent / "cache", **kwargs)


def test_documents_and_their_ends(folder):
    corpus = load(folder)
    assert corpus.names == ["a.txt", "c.txt"]
    assert corpus.starts.tolist() == [0, 7, 12] and corpus.starts.dtype == np.int64
    assert corpus.tokens.dtype == np.uint16 and corpus.tokens.shape == (12,)
    assert corpus.tokens[[6, 11]].tolist() == [BYTES.end_id] * 2
    assert BYTES.decode(corpus.tokens) == "one ätwo\n"
    assert corpus.bytes == len("one ätwo\n".encode())
    assert not corpus.tokens.flags.writeable


def test_specs_follow_one_another(folder):
    both = load_corpus([f"files:{folder}/c.txt", f"files:{folder}/a.txt"], BYTES, folder / ".c")
    assert BYTES.decode(both.tokens) == "two\none ä"


def test_large_vocabularies_use_uint32(folder):
    tokenizer = ByteTokenizer()
    tokenizer.vocab_size = 70_000
    assert load(folder, tokenizer).tokens.dtype == np.uint32


def test_max_tokens_cuts_and_still_ends_the_document(folder):
    corpus = load(folder, max_tokens=9)
    assert corpus.starts.tolist() == [0, 7, 9] and corpus.tokens[-1] == BYTES.end_id
    assert corpus.bytes == 7
    assert load(folder, max_tokens=7).names == ["a.txt"]


def test_written_in_parts_is_the_same(folder, monkeypatch):
    whole = np.array(load(folder).tokens)
    monkeypatch.setattr(encoding, "CHUNK", 1)
    (folder / "c.txt").touch()
    parts = load_corpus([f"files:{folder}"], BYTES, folder.parent / "other")
    np.testing.assert_array_equal(parts.tokens, whole)


def test_the_cache_is_used_until_something_changes(folder):
    tokenizer = Counting()

    def encoded(**kwargs) -> int:
        before = tokenizer.calls
        load(folder, tokenizer, **kwargs)
        return tokenizer.calls - before

    assert [encoded(), encoded()] == [2, 0]
    # Both documents are one chunk, of which five tokens are taken.
    assert [encoded(max_tokens=5), encoded(max_tokens=5)] == [2, 0]
    (folder / "a.txt").write_text("neu")
    assert [encoded(), encoded()] == [2, 0]
    tokenizer.fingerprint = "another tokenizer"
    assert [encoded(), encoded()] == [2, 0]
    (folder / "a.txt").write_text("one ä")
    tokenizer.fingerprint = BYTES.fingerprint
    assert encoded() == 0  # the first entry still stands


def test_groups_by_another_key_are_another_entry(tmp_path):
    rows = [f'{{"text": "{n}", "repo": "r", "owner": "{n}"}}' for n in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    load = lambda key: load_corpus(
        [f"jsonl:{tmp_path}/a.jsonl@{split_of('r')}"],
        BYTES,
        tmp_path / "cache",
        reading=Reading(group_key=key),
    )
    assert len(load("").names) == 40 > len(load("owner").names) > 0
    assert load("").fingerprint != load("owner").fingerprint


@pytest.mark.parametrize("name", ["tokens.npy", "starts.npy", "corpus.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_entry_is_made_anew(folder, name, damage):
    tokenizer = Counting()
    good = np.array(load(folder, tokenizer).tokens)
    (entry,) = (folder.parent / "cache").iterdir()
    path = entry / name
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(data[:-1])
    elif damage == "flip":
        data[-1 if name != "corpus.json" else 9] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()
    again = load(folder, tokenizer)
    assert tokenizer.calls == 4
    np.testing.assert_array_equal(again.tokens, good)
    assert load(folder, tokenizer).fingerprint == again.fingerprint and tokenizer.calls == 4


def test_a_failure_leaves_nothing_half_written(folder):
    (folder / "d.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"d\.txt"):
        load(folder)
    assert not list((folder.parent / "cache").iterdir())


def test_bad_input_is_one_line(folder):
    with pytest.raises(UserError, match="no text") as error:
        load_corpus([f"files:{folder}/b.txt"], BYTES, folder.parent / "cache")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="max_tokens"):
        load(folder, max_tokens=0)
    with pytest.raises(UserError, match="no text"):
        load(folder, max_tokens=1)
    with pytest.raises(UserError, match="cannot write"):
        load_corpus([f"files:{folder}"], BYTES, folder / "a.txt" / "cache")
