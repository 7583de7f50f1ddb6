"""Held-out text that stands in training text is found, all of it and nothing else."""

import numpy as np
import pytest

from cr_jax.data import overlap as module
from cr_jax.data.corpus import Corpus
from cr_jax.data.overlap import WINDOW, lines, overlap

END = 999


def corpus(*documents, dtype=np.uint16):
    tokens = np.concatenate([np.append(d, END) for d in documents]).astype(dtype)
    starts = np.cumsum([0, *(len(d) + 1 for d in documents)])
    return Corpus(tokens, starts, len(tokens), "", [""] * len(documents))


def text(seed, size=500, kinds=900):
    return np.random.default_rng(seed).integers(0, kinds, size)


def counts(train, test, **options):
    found = overlap(
        {"a": [train] if isinstance(train, Corpus) else train}, {"a": {"test": test}}, **options
    )["a"]["test"]
    return tuple(found[k] for k in ("documents", "of_documents", "windows", "of_windows"))


def test_nothing_is_found_in_other_text():
    assert counts(corpus(*map(text, range(40))), corpus(*map(text, range(40, 60)))) == (
        0,
        20,
        0,
        20 * (500 // WINDOW),
    )


def test_whole_documents_are_found_wherever_they_stand():
    train = [corpus(*map(text, range(30))), corpus(text(50, 40), text(51))]
    held = corpus(text(7), text(100), text(50, 40), text(51), text(7))
    assert counts(train, held) == (4, 5, 21, 28)  # 40 tokens have no window of 64


def test_a_window_is_found_at_any_place_but_not_across_documents():
    """A copied part of a document of 10 windows, put at every distance from a window's start."""
    held = text(1, 10 * WINDOW)
    for start in (0, 1, 63, 64, 100):
        for before in (0, 1, 17, 64):
            train = corpus(
                text(2), np.concatenate([text(3, before), held[start : start + 200], text(4, 30)])
            )
            first = -(-start // WINDOW)
            whole = (start + 200) // WINDOW - first
            assert counts(train, corpus(held)) == (0, 1, whole, 10), (start, before)
    halves = corpus(held[: WINDOW // 2], held[WINDOW // 2 : WINDOW])
    assert counts(halves, corpus(held)) == (0, 1, 0, 10)


def test_one_changed_token_is_enough():
    held = text(1, WINDOW)
    for at in range(WINDOW):
        for change in (1, 256):
            other = held.copy()
            other[at] += change
            assert counts(corpus(other), corpus(held)) == (0, 1, 0, 1)
    swapped = held.copy()
    swapped[[3, 9]] = held[[9, 3]]
    assert counts(corpus(swapped), corpus(held)) == (0, 1, 0, 1)
    assert counts(corpus(held, dtype=np.uint32), corpus(held, dtype=np.uint32)) == (1, 1, 1, 1)


@pytest.mark.parametrize("block", [1, 64, 100, 127, 128])
def test_blocks_do_not_matter(monkeypatch, block):
    train = [corpus(*map(text, range(3))), corpus(text(5, 3), text(6, 700))]
    held = corpus(text(6, 700), np.concatenate([text(9, 11), text(1)]))
    whole = counts(train, held)
    assert whole[0] == 1 and 10 <= whole[2] < whole[3]
    monkeypatch.setattr(module, "_BLOCK", block)
    assert counts(train, held) == whole


def test_hashes_of_runs_are_those_of_rows_and_spread():
    tokens = text(0, 5000, 3)
    runs = module._hash_runs(tokens)
    rows = module._hash_rows(np.lib.stride_tricks.sliding_window_view(tokens, WINDOW))
    assert np.array_equal(runs, rows) and len(np.unique(runs)) == len(runs)
    for shift in (0, 20, 56):
        share = np.bincount((runs >> np.uint64(shift)).astype(np.int64) & 7, minlength=8)
        assert share.min() > 0.8 * len(runs) / 8
    assert len(module._hash_runs(tokens[: WINDOW - 1])) == 0


def test_text_that_is_too_much_is_sampled_and_that_is_said(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 1000)
    train = corpus(text(1, 40_000))
    found = overlap({"a": [train]}, {"a": {"test": train}}, most=10_000)
    share = found["a"]["test"]["windows"] / found["a"]["test"]["of_windows"]
    assert found["a"]["test"]["documents"] == 1 and share == pytest.approx(0.2, abs=0.02)
    (line,) = lines(found, ["a"])
    assert "of which 20% was looked at" in line  # 40,001 tokens with the document's end


def test_a_domain_without_training_text_is_looked_for_in_all_others():
    held = {
        "a": {"valid": corpus(text(2)), "test": corpus(text(20))},
        "new": {"test": corpus(text(1), text(2), text(30))},
    }
    train = {"a": [corpus(text(1))], "b": [corpus(text(2), text(20))]}
    found = overlap(train, held)
    assert found["a"]["valid"]["documents"] == found["a"]["test"]["documents"] == 0
    assert found["new"]["test"]["documents"] == 2
    (line,) = lines(found, train)
    assert line == (
        "note: new: 2 of 3 test documents (66.7 % of their windows of 64 tokens) are "
        "also in the training text; figures on them are not those of new text"
    )


def test_one_line_per_domain_with_any_overlap():
    leak = corpus(text(1), text(2, 30))
    held = {
        "a": {"valid": leak, "test": corpus(text(1), text(9), text(10), text(11))},
        "b": {"valid": corpus(text(4)), "test": corpus(text(5, 30))},
    }
    found = overlap({"a": [leak], "b": [corpus(text(3))]}, held)
    assert list(lines(found, ["a", "b"])) == [
        "note: a: 2 of 2 valid documents (100 % of their windows of 64 tokens) and 1 of 4 test "
        "documents (25 % of their windows of 64 tokens) are also in its training text; figures "
        "on them are not those of new text"
    ]
    assert found["b"]["test"] == {
        "documents": 0,
        "of_documents": 1,
        "windows": 0,
        "of_windows": 0,
        "share_read": 1.0,
    }
