"""Shares of strange trigrams against a set of all trigrams."""

import numpy as np
import pytest

from cr_jax.data.batches import Mixture
from cr_jax.data.corpus import Corpus
from cr_jax.data.windows import Windows
from cr_jax.studies.unknown import own_text


def corpus(tokens):
    return Corpus(np.asarray(tokens, np.uint16), np.array([0, len(tokens)]), len(tokens), "", [""])


def trigrams(tokens):
    return set(zip(tokens, tokens[1:], tokens[2:]))


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 12, 700).tolist(), rng.integers(4, 16, 500).tolist(), [1, 2]]


def test_shares_are_those_of_sets(texts, monkeypatch):
    monkeypatch.setattr(own_text, "BLOCK", 64)  # n-grams that lie across blocks count too
    first = Mixture([corpus(texts[0][:300]), corpus(texts[0][300:])])
    train = {"a": first, "b": corpus(texts[1]), "c": corpus(texts[2])}
    known = own_text.OwnText(("a", "b", "c"), train)
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 16, (40, 20)).astype(np.int32)
    lengths = rng.integers(1, 21, 40)
    mask = np.arange(20) < lengths[:, None]
    found = known.novel(Windows(tokens, mask, np.arange(40)))
    of_a = trigrams(texts[0][:300]) | trigrams(texts[0][300:])
    for e, own in enumerate((of_a, trigrams(texts[1]), set())):
        for n, length in enumerate(lengths):
            here = tokens[n, :length].tolist()
            grams = list(zip(here, here[1:], here[2:]))
            wanted = np.mean([g not in own for g in grams]) if grams else 0.0
            assert found[e, n] == pytest.approx(wanted), (e, n)
    assert found[0].max() > 0.2  # some are strange


def test_own_text_has_nothing_strange_and_order_counts(texts):
    known = own_text.OwnText(("a",), {"a": corpus(texts[0])})
    own = np.array(texts[0][:40], np.int32).reshape(2, 20)
    mask = np.ones(own.shape, bool)
    assert not known.novel(Windows(own, mask, np.arange(2))).any()
    assert known.novel(Windows(own[:, ::-1].copy(), mask, np.arange(2))).min() > 0.1


def test_windows_shorter_than_a_trigram_say_nothing(texts):
    known = own_text.OwnText(("a",), {"a": corpus(texts[0])})
    two = Windows(np.array([[99, 98]], np.int32), np.ones((1, 2), bool), np.arange(1))
    assert known.novel(two).tolist() == [[0.0]]


def test_a_window_is_held_where_half_of_its_runs_of_tokens_stand_in_one_text():
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 60_000, 400) for _ in range(2)]
    known = own_text.OwnText(
        ("a", "b"), {n: corpus(t) for n, t in zip("ab", texts, strict=True)}, own_text.COPIED
    )
    one, two = texts[0][:40], texts[1][:40]
    strange = rng.integers(0, 60_000, 40)
    rows = {
        "copied": (one, 40, True),
        "most of it": (np.r_[one[:26], strange[:14]], 40, True),  # 19 of 33 runs
        "less than half": (np.r_[one[:22], strange[:18]], 40, False),  # 15
        "a third of each text": (np.r_[one[:20], two[:20]], 40, False),  # 13 and 13
        "the same tokens in another order": (rng.permutation(one), 40, False),
        "strange": (strange, 40, False),
        "as long as a run": (one, 8, True),
        "shorter than a run": (one, 7, False),
    }
    tokens = np.array([row for row, _, _ in rows.values()], np.int32)
    mask = np.arange(40) < np.array([n for _, n, _ in rows.values()])[:, None]
    held = known.holds(Windows(tokens, mask, np.arange(len(rows))))
    assert dict(zip(rows, held.tolist(), strict=True)) == {n: r[2] for n, r in rows.items()}
