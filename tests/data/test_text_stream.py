"""Text becomes blocks of windows in bounded memory, however it arrives."""

import numpy as np
import pytest
from tiny_bank import BYTES, TINY

from cr_jax.data import text_stream
from cr_jax.errors import UserError


def test_pieces_are_a_function_of_the_text(monkeypatch):
    monkeypatch.setattr(text_stream, "PIECE", 10)
    random = np.random.default_rng(0)
    for _ in range(50):
        text = "".join(random.choice(list("ab\n"), random.integers(60), p=[0.45, 0.45, 0.1]))
        whole = list(text_stream.pieces(text))
        assert "".join(whole) == text and all(0 < len(p) <= 10 for p in whole)
        cuts = np.sort(random.integers(0, len(text) + 1, 5))
        assert (
            list(text_stream.pieces(text[a:b] for a, b in zip([0, *cuts], [*cuts, None]))) == whole
        )


def test_memory_is_bounded_by_the_block_not_by_the_text():
    """A text of 20 MB: blocks come out while it is read."""
    read = []

    def parts():
        for i in range(20):
            read.append(i)
            yield "line of text\n" * 80_000

    blocks = text_stream.windows_of_text(BYTES, parts(), 16, 64)
    first = next(blocks)
    assert first.tokens.shape == (64, 16) and read == [0]
    assert 64 + sum(len(b.tokens) for b in blocks) == -(-20 * 80_000 * 13 // 16)


@pytest.mark.parametrize("text", [b"abc", bytearray(b"abc"), 123, None, [b"abc"], ["a", 3]])
def test_what_is_no_text_is_one_line(text):
    # Not `route` itself: under test its annotation refuses them first.
    with pytest.raises(UserError, match="str"):
        list(text_stream.windows_of_text(BYTES, text, TINY.window, 4))
