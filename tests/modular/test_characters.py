"""Streamed tokens are the text that they decode to: no torn characters, no lost spaces."""

import numpy as np
import pytest
from tiny_bank import BYTES

from cr_jax.data.tokenizers import train_sentencepiece
from cr_jax.errors import UserError
from cr_jax.modular.characters import Characters, checked_stops

TEXT = "  größe 中文\t\U0001f600\n naïve ▁ e\u0301 end"


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """SentencePiece that knows Latin letters only: all else falls to its byte pieces."""
    folder = tmp_path_factory.mktemp("pieces")
    return train_sentencepiece(["the end of the naive text is here " * 200], 290, folder)


def streamed(tokenizer, ids, stops=()):
    out = Characters(tokenizer, stops)
    parts = [out.add(int(i)) for i in ids]
    return [*parts, out.end()], out.stopped


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_pieces_joined_are_the_text_and_each_is_whole(kind, pieces):
    tokenizer = BYTES if kind == "bytes" else pieces
    ids = tokenizer.encode(TEXT)
    parts, _ = streamed(tokenizer, ids)
    assert "".join(parts) == TEXT and "\ufffd" not in TEXT
    assert parts[0] != ""  # a leading space comes at once
    assert any(part == "" for part in parts)  # a part of a character waits


def test_bytes_that_are_no_text_become_what_decoding_makes_of_them():
    draw = np.random.default_rng(0)
    for _ in range(200):
        ids = draw.integers(0, 258, draw.integers(1, 12))
        assert "".join(streamed(BYTES, ids)[0]) == BYTES.decode(ids)


@pytest.mark.parametrize(
    ("text", "stops", "want"),
    [
        ("one\n\ntwo", ["\n\n"], "one"),
        ("ab ababc x", ["ababc"], "ab "),
        ("aabab", ["abc"], "aabab"),
        ("x中文y", ["文"], "x中"),
        ("stop", ["stop"], ""),
        ("first second", ["second", "st s"], "fir"),
        ("nothing", ["x", "nothingness"], "nothing"),
    ],
)
def test_nothing_of_a_stop_is_shown_and_what_only_began_like_one_is(text, stops, want):
    parts, stopped = streamed(BYTES, BYTES.encode(text), stops)
    assert "".join(parts) == want and stopped == (want != text)


def test_text_that_begins_no_stop_comes_at_once():
    parts, _ = streamed(BYTES, BYTES.encode("abXcX-Y"), ["X-Z"])
    assert parts == ["a", "b", "", "Xc", "", "", "X-Y", ""]


def test_stops_are_texts():
    assert checked_stops("ab") == ("ab",) and checked_stops(["a", "b"]) == ("a", "b")
    for bad in ("", ["a", ""]):
        with pytest.raises(UserError, match="a stop is a text"):
            checked_stops(bad)
