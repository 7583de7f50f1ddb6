"""What a window says of itself."""

import numpy as np
import pytest

from cr_jax.data import ByteTokenizer, Windows, windows_of
from cr_jax.errors import UserError
from cr_jax.studies.capacity.text_statistics import complexity, repetition


@pytest.mark.parametrize("compressor", ["zlib", "lzma"])
def test_complexity_orders_texts_and_ignores_padding(compressor):
    tokenizer, rng = ByteTokenizer(), np.random.default_rng(0)
    cut = lambda text: windows_of(tokenizer.encode(text), 256, tokenizer.pad_id)
    same, noise = cut("a" * 256), cut("".join(map(chr, rng.integers(33, 127, 256))))
    easy, hard = (complexity(tokenizer, w, compressor)[0] for w in (same, noise))
    assert easy < 0.5 < 4 < hard < 6  # nats per byte; 94 characters alike carry 4.54
    half = cut("ab" * 64)
    assert half.mask.sum() == 128
    assert complexity(tokenizer, half, compressor)[0] < 1


def test_an_unknown_compressor_is_named():
    with pytest.raises(UserError, match="zlib or lzma"):
        complexity(ByteTokenizer(), windows_of(np.array([1]), 4, 0), "zip")


def test_repetition_counts_real_tokens_only():
    tokens = np.array([[5, 5, 5, 5, 0, 0], [1, 2, 3, 4, 5, 6], [1, 2, 1, 2, 9, 9]], np.int32)
    mask = np.arange(6)[None] < np.array([[4], [6], [4]])
    found = repetition(Windows(tokens, mask, np.zeros(3, int)))
    np.testing.assert_allclose(np.exp(found[:, 0]), [1 / 4, 1, 2 / 4])
    np.testing.assert_allclose(found[:, 1], [3 / 4, 0, 2 / 4])


def test_repetition_looks_eight_tokens_back():
    far = np.r_[np.arange(9), 0][None].astype(np.int32)  # the first token again, nine later
    near = np.r_[np.arange(8), 0][None].astype(np.int32)
    at = lambda tokens: repetition(Windows(tokens, np.ones_like(tokens, bool), np.zeros(1, int)))[
        0, 1
    ]
    assert at(far) == 0 and at(near) == pytest.approx(1 / 9)
