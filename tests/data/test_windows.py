"""Windows for evaluation and routing."""

import numpy as np
import pytest

from cr_jax.data.corpus import Corpus
from cr_jax.data.windows import Tail, document_windows, eval_windows, random_windows, windows_of
from cr_jax.errors import UserError

CORPUS = Corpus(
    np.arange(100, 147, dtype=np.uint16), np.array([0, 3, 13, 13 + 34]), 47, "x", ["a", "b", "c"]
)


def test_packed_windows_are_the_concatenation():
    windows = eval_windows(CORPUS, 5)
    np.testing.assert_array_equal(windows.tokens.ravel(), np.arange(100, 145))
    assert windows.tokens.shape == (9, 5) and windows.tokens.dtype == np.int32
    assert windows.mask.all() and windows.mask.dtype == bool
    assert windows.document.tolist() == [0, 1, 1] + [2] * 6 and len(windows) == 9


def test_padded_windows_are_the_documents_without_their_ends():
    windows = eval_windows(CORPUS, 20, mode="padded", pad_id=7)
    assert windows.document.tolist() == [0, 1, 2, 2]
    assert windows.mask.sum(1).tolist() == [2, 9, 20, 13]
    assert (windows.tokens[~windows.mask] == 7).all()
    assert windows.tokens[windows.mask].tolist() == [
        *range(100, 102),
        *range(103, 112),
        *range(113, 146),
    ]


def test_whole_documents_are_cut_each_on_its_own():
    of = lambda **more: document_windows(CORPUS, 8, 7, **{"limit": 9, "most_tokens": 16, **more})
    found = of()
    assert found.document.tolist() == [0, 1, 1, 2, 2]
    assert found.mask.sum(1).tolist() == [2, 8, 1, 8, 8]  # the third is cut after 16 of its 33
    assert found.tokens[found.mask].tolist() == [
        *range(100, 102),
        *range(103, 112),
        *range(113, 129),
    ]
    assert of(least_tokens=3).document.tolist() == [1, 1, 2, 2]
    assert of(limit=2).document.tolist() == [0, 2, 2]
    none = of(least_tokens=34)
    assert len(none) == 0 and none.tokens.shape == (0, 8)


def test_a_short_corpus_is_one_padded_window():
    windows = eval_windows(CORPUS, 64, pad_id=1)
    assert windows.mask.sum() == 47 and windows.tokens.shape == (1, 64)


def test_limit_is_an_even_subset_that_follows_the_seed():
    tokens = np.arange(10_000, dtype=np.uint16)
    corpus = Corpus(tokens, np.array([0, 10_000]), 10_000, "x", ["a"])
    whole = {tuple(row) for row in eval_windows(corpus, 10).tokens}
    some = eval_windows(corpus, 10, limit=100)
    starts = some.tokens[:, 0]
    assert len(some) == 100 and {tuple(row) for row in some.tokens} <= whole
    assert set(np.diff(starts)) == {100}
    np.testing.assert_array_equal(starts, eval_windows(corpus, 10, limit=100).tokens[:, 0])
    seeds = {eval_windows(corpus, 10, limit=100, seed=s).tokens[0, 0] for s in range(9)}
    assert len(seeds) > 3
    assert len(np.unique(eval_windows(corpus, 10, limit=999).tokens[:, 0])) == 999
    assert len(eval_windows(corpus, 10, limit=10**9)) == 1000


@pytest.mark.parametrize("length", [1, 7, 8, 9, 24])
def test_windows_of_one_document(length):
    ids = np.arange(1, length + 1, dtype=np.uint32)
    windows = windows_of(ids, 8, pad_id=0)
    assert windows.tokens[windows.mask].tolist() == ids.tolist()
    assert (windows.tokens[~windows.mask] == 0).all() and not windows.document.any()
    assert windows.tokens.shape == (-(-length // 8), 8)


def test_random_windows_are_uniform():
    windows = random_windows(2000, 50, 20, seed=1)
    counts = np.bincount(windows.tokens.ravel(), minlength=20)
    assert windows.tokens.shape == (2000, 50) and windows.mask.all() and len(counts) == 20
    assert abs(counts / 5000 - 1).max() < 0.08
    np.testing.assert_array_equal(windows.tokens, random_windows(2000, 50, 20, seed=1).tokens)
    assert not np.array_equal(windows.tokens, random_windows(2000, 50, 20, seed=2).tokens)


def test_bad_input_is_one_line():
    for call in (
        lambda: eval_windows(CORPUS, 0),
        lambda: eval_windows(CORPUS, 5, mode="x"),
        lambda: eval_windows(CORPUS, 5, limit=0),
        lambda: random_windows(0, 5, 9, 0),
        lambda: windows_of(np.zeros(0, np.uint32), 5, 0),
    ):
        with pytest.raises(UserError) as error:
            call()
        assert "\n" not in str(error.value)


def test_some_windows_keep_what_belongs_to_them():
    many = random_windows(10, 4, 99, seed=0)
    for some, places in (
        (many.take(slice(2, 5)), [2, 3, 4]),
        (many.take(np.array([7, 1])), [7, 1]),
        (many.spread(4), [0, 3, 6, 9]),
        (many.spread(11), range(10)),
    ):
        assert some.document.tolist() == list(places)
        np.testing.assert_array_equal(some.tokens, many.tokens[list(places)])
        np.testing.assert_array_equal(some.mask, many.mask[list(places)])


def test_a_tail_is_the_end_of_what_passed_by_and_holds_no_more_than_a_block_beside():
    ids = np.arange(50, dtype=np.int32)
    for most in (1, 7, 8, 30, 50, 1000):
        tail = Tail(most)
        assert tail.ids.size == 0
        for start, size in ((0, 13), (13, 1), (14, 9), (23, 27)):
            part = ids[start : start + size]
            tail.add(windows_of(part, 4, pad_id=99))
            assert tail.count == start + size
            assert tail.ids.tolist() == ids[: start + size][-most:].tolist()
            assert sum(map(len, tail._parts)) < most + 27
