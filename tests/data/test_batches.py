"""Training batches: pure functions of (seed, step), whole epochs, processes, mixtures, resume."""

import numpy as np
import pytest

from cr_jax.data.batches import (
    ALL,
    Mixture,
    Share,
    WindowBatches,
    Windowing,
    sample,
    train_iterator,
)
from cr_jax.data.corpus import Corpus
from cr_jax.data.permutation import mix, permute
from cr_jax.errors import UserError


def corpus_of(total: int, first: int = 0, document: int = 50) -> Corpus:
    """Tokens first, first + 1, ...: a token tells where it stands."""
    tokens = np.arange(first, first + total, dtype=np.uint32)
    starts = np.append(np.arange(0, total, document), total)
    return Corpus(tokens, starts, total, "x", ["d"] * (len(starts) - 1))


def named(corpora):
    return {f"e{i}": corpus for i, corpus in enumerate(corpora)}


def batches(corpora, steps, **kwargs):
    """share, batch, and fields of `Windowing`."""
    batch, share = kwargs.pop("batch", 8), kwargs.pop("share", ALL)
    windowing = Windowing(**({"window": 16, "seed": 3, "pad_id": 9999} | kwargs))
    source = WindowBatches(named(corpora), batch, windowing, share)
    return [source[step] for step in steps]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 1000, 4097])
def test_permute_is_a_permutation_that_follows_its_key(size):
    index = np.arange(size)
    first, again, other = (permute(index, size, mix(key)) for key in (1, 1, 2))
    assert np.array_equal(np.sort(first), index) and np.array_equal(first, again)
    if size >= 64:
        assert not np.array_equal(first, other)
        assert (first == index).mean() < 0.1
        # Not a shift: neighbours go to places that do not follow one another.
        assert (np.diff(first) == 1).mean() < 0.1


def test_permute_takes_a_key_for_each_index():
    keys = mix(5, np.repeat([0, 1], 100))
    both = permute(np.tile(np.arange(100), 2), 100, keys)
    for i in (0, 1):
        np.testing.assert_array_equal(
            both[i * 100 : (i + 1) * 100], permute(np.arange(100), 100, mix(5, i))
        )


def test_permutations_are_spread_evenly():
    counts = np.zeros((6, 6))
    for key in range(3000):
        counts[np.arange(6), permute(np.arange(6), 6, mix(key))] += 1
    assert abs(counts / 500 - 1).max() < 0.2  # about four standard deviations


def test_a_batch_is_a_pure_function_of_seed_and_step():
    corpora = [corpus_of(1000), corpus_of(777, 5000)]
    forward = batches(corpora, range(40))
    backward = batches(corpora, reversed(range(40)))[::-1]
    for one, two in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(one["tokens"], two["tokens"])
    assert forward[0]["tokens"].dtype == np.int32 and forward[0]["tokens"].shape == (2, 8, 16)
    other = batches(corpora, range(40), seed=4)
    assert not np.array_equal(forward[0]["tokens"], other[0]["tokens"])


def test_an_expert_sees_its_own_corpus_only():
    for batch in batches([corpus_of(300), corpus_of(300, 1000)], range(30)):
        assert batch["tokens"][0].max() < 300 and batch["tokens"][1].min() >= 1000


@pytest.mark.parametrize("total", [160, 161, 175, 1000])
def test_a_packed_epoch_has_each_token_at_most_once_and_nearly_all(total):
    count = total // 16
    rows = np.concatenate(
        [b["tokens"][0] for b in batches([corpus_of(total)], range(3 * count), batch=1)]
    )
    first_tokens = []
    for epoch in rows.reshape(3, count, 16):
        tokens, times = np.unique(epoch, return_counts=True)
        assert (times == 1).all() and len(tokens) == count * 16
        first_tokens.append(epoch[:, 0])
    steps = np.diff(rows, axis=1)
    assert ((steps == 1) | (steps == 1 - total)).all()  # consecutive tokens, around the ring
    assert not np.array_equal(first_tokens[0], first_tokens[1])  # another order
    phases = {tuple(np.sort(first % 16)) for first in first_tokens}
    assert len(phases) > 1 or total % 16 == 0


def test_a_corpus_shorter_than_a_window_goes_round():
    (batch,) = batches([corpus_of(5)], [0])
    assert set(np.diff(batch["tokens"][0], axis=1).ravel()) == {1, -4}


def test_a_padded_epoch_has_each_window_once():
    corpus = Corpus(np.arange(40, dtype=np.uint16), np.array([0, 1, 18, 40]), 40, "x", ["a"] * 3)
    # Documents of 0, 16 and 21 tokens, their ends aside: windows of 10 + 6 and 10 + 10 + 1.
    found = batches([corpus], range(10), batch=1, window=10, mode="padded")
    for epoch in (found[:5], found[5:]):
        rows = sorted(tuple(b["tokens"][0, 0][b["mask"][0, 0]]) for b in epoch)
        assert rows == [
            tuple(range(a, b)) for a, b in [(1, 11), (11, 17), (18, 28), (28, 38), (38, 39)]
        ]
        assert all((b["tokens"][~b["mask"]] == 9999).all() for b in epoch)
        assert all(b["tokens"].shape == b["mask"].shape == (1, 1, 10) for b in epoch)
    assert [b["mask"].sum() for b in found[:5]] != [b["mask"].sum() for b in found[5:]]


@pytest.mark.parametrize("mode", ["packed", "padded"])
def test_the_global_order_does_not_depend_on_the_process_count(mode):
    corpora = [corpus_of(1000), Mixture([corpus_of(500, 2000), corpus_of(300, 4000)], [1, 3])]
    for step in (0, 1, 37):
        (whole,) = batches(corpora, [step], mode=mode)
        for count in (2, 4, 8):
            shares = [
                batches(corpora, [step], mode=mode, share=Share(block=i, blocks=count))[0]
                for i in range(count)
            ]
            for key, value in whole.items():
                joined = np.concatenate([share[key] for share in shares], axis=1)
                np.testing.assert_array_equal(joined, value)


def test_mixture_shares_and_epochs():
    small, large = corpus_of(160), corpus_of(1600, 1000)
    found = batches([Mixture([small, large], [3, 1])], range(512))
    rows = np.concatenate([b["tokens"][0] for b in found])
    from_small = rows[rows[:, 0] < 1000]
    assert len(from_small) / len(rows) == pytest.approx(0.75, abs=0.001)
    # 3,072 rows are 307 epochs of the small corpus (10 windows) and two windows more.
    tokens, times = np.unique(from_small, return_counts=True)
    assert len(tokens) == 160 and times.max() - times.min() <= 1
    by_size = batches([Mixture([small, large])], range(512))
    share = np.mean([b["tokens"][0, :, 0] < 1000 for b in by_size])
    assert share == pytest.approx(160 / 1760, abs=0.001)


def test_an_expert_reads_the_same_alone_or_beside_others():
    a, b = corpus_of(1000), corpus_of(777, 5000)
    same = (8, Windowing(16, 3))
    both, alone, again = (
        WindowBatches(c, *same) for c in ({"a": a, "b": b}, {"b": b}, {"renamed": b})
    )
    for step in (0, 7, 300):
        np.testing.assert_array_equal(both[step]["tokens"][1:], alone[step]["tokens"])
        assert not np.array_equal(alone[step]["tokens"], again[step]["tokens"])


def test_the_iterator_goes_on_from_its_state_exactly_also_on_another_process_count():
    corpora = named([corpus_of(1000)])
    same = (8, Windowing(16, 3))
    iterator = train_iterator(WindowBatches(corpora, *same))
    seen = [next(iterator)["tokens"] for _ in range(9)]
    expected = WindowBatches(corpora, *same)
    for step, tokens in enumerate(seen):
        np.testing.assert_array_equal(tokens, expected[step]["tokens"])
    state = iterator.get_state()
    following = [next(iterator)["tokens"] for _ in range(5)]
    again = train_iterator(WindowBatches(corpora, *same))
    again.set_state(state)
    other = train_iterator(WindowBatches(corpora, *same, Share(block=1, blocks=2)))
    other.set_state(state)
    late = train_iterator(WindowBatches(corpora, *same), 9)
    for tokens in following:
        np.testing.assert_array_equal(next(again)["tokens"], tokens)
        np.testing.assert_array_equal(next(late)["tokens"], tokens)
        np.testing.assert_array_equal(next(other)["tokens"], tokens[:, 4:])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mode": "paced"}, "paced"),
        ({"window": 0}, "1 or more"),
        ({"batch": 0}, "1 or more"),
        ({"share": Share(blocks=3)}, "multiple"),
        ({"share": Share(block=1)}, "process 1"),
    ],
)
def test_bad_sizes_are_one_line(change, says):
    with pytest.raises(UserError, match=says) as error:
        batches([corpus_of(100)], [0], **change)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no corpus"):
        batches([], [0])
    for weights, word in (([1, 2], "weights"), ([], "weights"), ([0], "positive")):
        with pytest.raises(UserError, match=word):
            batches([Mixture([corpus_of(100)], weights)], [0])


def test_a_process_that_holds_some_experts_reads_their_rows_of_the_same_batch():
    corpora = [corpus_of(1000), corpus_of(500), corpus_of(700)]
    whole, part = batches(corpora, range(3)), batches(corpora, range(3), share=Share(slice(1, 3)))
    for all_rows, rows in zip(whole, part):
        np.testing.assert_array_equal(rows["tokens"], all_rows["tokens"][1:3])
        assert not np.array_equal(rows["tokens"][0], all_rows["tokens"][0])


@pytest.mark.parametrize("mode", ["packed", "padded"])
def test_a_sample_is_an_epoch_of_the_experts_own_windows(mode):
    corpus = corpus_of(500, document=17)
    tokens, mask = sample("e0", corpus, Windowing(16, 3, mode, 9999))
    seen = np.sort(tokens[mask])
    assert len(np.unique(seen)) == len(seen)
    if mode == "packed":
        assert len(seen) == 496
    else:  # all but the ends of documents
        assert len(seen) == 500 - len(corpus.starts) + 1
    first = batches([corpus], [0], mode=mode, batch=8)[0]["tokens"][0]
    np.testing.assert_array_equal(tokens[:8], first)
    few, _ = sample("e0", corpus, Windowing(16, 3, mode, 9999), tokens=50)
    np.testing.assert_array_equal(few, tokens[:3])
    mixture = Mixture([corpus, corpus_of(300, first=1000)], [1, 3])  # shares repeat in training
    both, mask = sample("e0", mixture, Windowing(16, mode=mode, pad_id=9999))
    found, counts = np.unique(both[mask], return_counts=True)
    assert (counts == 1).all() and abs((found < 1000).mean() - 500 / 800) < 0.02
    half, _ = sample("e0", mixture, Windowing(16, mode=mode, pad_id=9999), tokens=400)
    assert abs(len(half) - 25) <= 2
