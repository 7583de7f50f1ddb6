"""Interpolated n-gram models: probabilities by hand, sums of one, windows that do not touch."""

import itertools

import numpy as np
import pytest

from cr_jax.errors import UserError
from cr_jax.studies.baselines.backoff import Asked, Backoff, log_probabilities


def model(text, order=3, place=None, **options):
    text = np.array(text)
    place = np.arange(len(text)) if place is None else np.array(place)
    return Backoff(text, place, order=order, bits=2, alphabet=4, **options)


def ask(m, text):
    """P(last | before) of one sequence."""
    text = np.array(text)
    return float(np.exp(log_probabilities([m], text, np.arange(len(text)))[0, -1]))


def test_witten_bell_by_hand():
    m = model([0, 1, 0, 1, 0, 2])
    unigram = lambda n: (n + 3 / 4) / (6 + 3)  # three of four symbols seen, six symbols
    assert ask(m, [1]) == pytest.approx(unigram(2))
    assert ask(m, [3]) == pytest.approx(unigram(0))
    after_0 = lambda n, s: (n + 2 * unigram(s)) / (3 + 2)  # 1 twice and 2 once after 0
    assert ask(m, [0, 1]) == pytest.approx(after_0(2, 2))
    after_10 = (1 + 2 * after_0(2, 2)) / (2 + 2)  # 1 and 2 once each
    assert ask(m, [1, 0, 1]) == pytest.approx(after_10)
    # A context that was never seen leaves the shorter one's answer.
    assert ask(m, [3, 0, 1]) == pytest.approx(after_0(2, 2))


def test_absolute_discount_by_hand():
    m = model([0, 1, 0, 1, 0, 2], order=2, discount=0.5)
    unigram = lambda n: (max(n - 0.5, 0) + 0.5 * 3 / 4) / 6
    assert ask(m, [3]) == pytest.approx(unigram(0))
    assert ask(m, [0, 1]) == pytest.approx((2 - 0.5 + 0.5 * 2 * unigram(2)) / 3)


@pytest.mark.parametrize("discount", [0.0, 0.75])
def test_probabilities_sum_to_one_after_every_context(discount):
    text = np.random.default_rng(0).integers(0, 4, 60)
    m = model(text, discount=discount)
    for before in itertools.product(range(4), repeat=2):
        assert sum(ask(m, [*before, s]) for s in range(4)) == pytest.approx(1)


def test_an_ngram_lies_within_one_window():
    apart = model([0, 1, 2, 3], place=[0, 1, 0, 1])
    joined = model([0, 1, 2, 3])
    assert ask(joined, [1, 2]) > ask(apart, [1, 2]) == pytest.approx(ask(apart, [2]))
    text, place = np.array([0, 1, 2, 3]), np.array([0, 1, 0, 1])
    split = log_probabilities([joined], text, place)[0]
    assert np.exp(split[2]) == pytest.approx(ask(joined, [2]))
    assert np.exp(split[3]) == pytest.approx(ask(joined, [2, 3]))


def test_the_text_itself_is_likelier_than_another():
    rng = np.random.default_rng(1)
    a, b = (np.tile(rng.integers(0, 4, 7), 9) for _ in range(2))
    both = log_probabilities([model(a), model(b)], a, np.arange(len(a))).sum(1)
    assert both[0] > both[1] + 10


def test_symbols_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="from 1 to 4"):
        Asked(np.array([1]), np.array([0]), 5, 15)
