"""Encoding gives the same parts for any number of processes, in order, with little read ahead."""

import itertools
import json
import os
import signal

import numpy as np
import pytest

from cr_jax.data import (
    ByteTokenizer,
    Document,
    Gpt2Tokenizer,
    encode_worker,
    encoding,
    train_sentencepiece,
)
from cr_jax.data.encode_worker import EncodeWorker
from cr_jax.data.encoding import Encoded, Encoder
from cr_jax.errors import UserError

TEXTS = [
    f"def f_{n}(x):\n\treturn x ** {n}  # ünïcödé 中文 \U0001f600\n" * (1 + n % 7)
    for n in range(60)
]


def documents(texts=TEXTS):
    return [Document(text, f"doc {n}", "group") for n, text in enumerate(texts)]


@pytest.fixture
def small(monkeypatch):
    """Chunks of a few documents; processes from the first one on."""
    monkeypatch.setattr(encoding, "CHUNK", 500)
    monkeypatch.setattr(encoding, "ALONE", 0)


@pytest.fixture(scope="module", params=["bytes", "sentencepiece", "gpt2"])
def tokenizer(request, tmp_path_factory):
    if request.param == "bytes":
        return ByteTokenizer()
    if request.param == "sentencepiece":
        return train_sentencepiece(TEXTS, 320, tmp_path_factory.mktemp("model"))
    pytest.importorskip("tiktoken")
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


def tiny_gpt2(folder) -> Gpt2Tokenizer:
    """GPT-2's form with two merges."""
    letters = [chr(b) for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    letters += [chr(256 + n) for n in range(256 - len(letters))]
    pieces = [*letters, "re", "ret", "<|endoftext|>"]
    (folder / "encoder.json").write_text(json.dumps({p: i for i, p in enumerate(pieces)}))
    (folder / "vocab.bpe").write_text("#version: 0.2\nr e\nre t\n", encoding="utf-8")
    return Gpt2Tokenizer(folder)


def test_processes_give_what_one_alone_gives(small, tokenizer):
    with Encoder(tokenizer, 1) as alone:
        expected = list(alone(documents()))
    with Encoder(tokenizer, 2) as encoder:
        found = list(encoder(documents()))
        again = list(encoder(documents()))
        assert encoder._threads and not alone._threads
    assert len(expected) > 5 and len(found) == len(again) == len(expected)
    for one, two, three in zip(expected, found, again, strict=True):
        np.testing.assert_array_equal(one.tokens, two.tokens)
        np.testing.assert_array_equal(one.lengths, two.lengths)
        np.testing.assert_array_equal(one.tokens, three.tokens)
        assert one.tokens.dtype == two.tokens.dtype == np.uint16
        assert (one.names, one.bytes) == (two.names, two.bytes)


def test_parts_are_the_documents(small):
    tokenizer = ByteTokenizer()
    with Encoder(tokenizer, 2) as encoder:
        parts = list(encoder(documents()))
    ids = np.concatenate([part.tokens for part in parts])
    ends = np.cumsum(np.concatenate([part.lengths for part in parts]))
    assert [name for part in parts for name in part.names] == [d.name for d in documents()]
    assert (ids[ends - 1] == tokenizer.end_id).all() and ends[-1] == len(ids)
    assert [
        tokenizer.decode(ids[start : end - 1]) for start, end in zip([0, *ends], ends, strict=False)
    ] == TEXTS
    assert sum(part.bytes for part in parts) == sum(len(t.encode()) for t in TEXTS)


def test_a_cut_ends_with_the_end_id_and_counts_its_own_bytes():
    tokenizer = ByteTokenizer()
    (part,) = Encoder(tokenizer, 1)(documents(["abc", "de", "f"]))
    cut = lambda most: (lambda p: (p.tokens.tolist(), p.lengths.tolist(), list(p.names), p.bytes))(
        part.cut(most, tokenizer)
    )
    end = tokenizer.end_id
    assert cut(6) == ([97, 98, 99, end, 100, end], [4, 2], ["doc 0", "doc 1"], 4)
    assert cut(4) == ([97, 98, 99, end], [4], ["doc 0"], 3)
    assert cut(2) == ([97, end], [2], ["doc 0"], 1)
    assert part.cut(9, tokenizer) is part and isinstance(part, Encoded)


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_comes_before_a_bad_document_comes_out(small, jobs):
    def reading():
        yield from documents()[:10]
        raise UserError("document 10 is bad")

    names = []
    with Encoder(ByteTokenizer(), jobs) as encoder:
        with pytest.raises(UserError, match="document 10 is bad"):
            for part in encoder(reading()):
                names += part.names
        assert names == [f"doc {n}" for n in range(10)]
        # Whoever stops before it never hears of it.
        assert next(encoder(reading())).names[0] == "doc 0"


def test_little_is_read_ahead(small):
    drawn = itertools.count()
    endless = (Document("x" * 600, f"doc {next(drawn)}", "") for _ in itertools.repeat(None))
    with Encoder(ByteTokenizer(), 2) as encoder:
        parts = encoder(endless)
        next(parts)
        assert next(drawn) <= encoding._AHEAD * 2 + 1
        parts.close()
        assert next(encoder(documents())).names[0] == "doc 0"  # the processes still answer


def test_a_tokenizer_of_another_kind_stays_in_this_process(small):
    class Own(ByteTokenizer):
        pass

    with Encoder(Own(), 2) as encoder:
        assert len(list(encoder(documents()))) > 5
        assert encoder.jobs == 1 and not encoder._threads


def test_a_killed_process_is_one_line(small):
    with Encoder(ByteTokenizer(), 2) as encoder:
        parts = encoder(documents())
        next(parts)
        for _ in range(2):
            worker = encoder._idle.get()
            os.kill(worker._process.pid, signal.SIGKILL)
            encoder._idle.put(worker)
        with pytest.raises(
            UserError, match=r"was stopped \(exit status -9\).*run the same command"
        ) as caught:
            list(encoder(documents()))
    assert "\n" not in str(caught.value)


def test_a_failure_in_a_process_is_one_line(small, monkeypatch):
    def save_nothing(self, folder):
        (folder / "tokenizer.json").write_text("{}")

    monkeypatch.setattr(ByteTokenizer, "save", save_nothing)
    with Encoder(ByteTokenizer(), 2) as encoder, pytest.raises(UserError, match="is damaged"):
        list(encoder(documents()))


def test_a_process_that_failed_before_it_was_asked_still_says_why(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with EncodeWorker(tmp_path, np.dtype(np.uint16)) as worker:
        worker._process.wait(60)
        with pytest.raises(UserError, match="is damaged"):
            worker.encode(["x" * (1 << 20)])
        with pytest.raises(UserError, match=r"was stopped \(exit status 0\)"):
            worker.encode(["x"])


def test_no_process_outlives_the_encoder(small):
    with Encoder(ByteTokenizer(), 2) as encoder:
        next(encoder(documents()))
        workers = [encoder._idle.get() for _ in range(2)]
    assert all(worker._process.poll() is not None for worker in workers)
    with pytest.raises(UserError, match="1 or more"):
        Encoder(ByteTokenizer(), -1)


@pytest.mark.parametrize("line", ["word " * 7 + "\n", "naïve 中文 \U0001f600"])
def test_a_long_text_is_encoded_in_pieces_that_lose_nothing(tokenizer, monkeypatch, line):
    """The tokenizer never sees more than `LONG` characters, so its memory has a bound."""
    text, seen = line * 40, []
    whole = tokenizer.encode(text)
    plain = tokenizer.encode
    monkeypatch.setattr(tokenizer, "encode", lambda part: (seen.append(len(part)), plain(part))[1])
    monkeypatch.setattr(encode_worker, "LONG", 100)
    ids, lengths, size = encode_worker.encode(tokenizer, ["a", text, ""])
    assert max(seen) <= 100 and len(seen) > len(text) / 100
    assert lengths[0] == 2 and lengths[2] == 1
    own = ids[lengths[0] : lengths[0] + lengths[1] - 1]
    assert tokenizer.decode(own) == text and size == len(("a" + text).encode())
    if tokenizer.kind == "bytes" or (tokenizer.kind == "sentencepiece" and "\n" in line):
        assert own.tolist() == whole.tolist()  # a cut behind a line end changes no id
