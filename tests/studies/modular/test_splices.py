"""Splices say which domain each of their tokens is of."""

import numpy as np
import pytest

from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.studies.modular.splices import splices

L = 64


def windows(value, count=4, full=True):
    """Windows whose tokens say their domain and their place."""
    tokens = np.tile(1000 * value + np.arange(L), (count, 1)).astype(np.int32)
    mask = np.ones(tokens.shape, bool)
    mask[:, -1] = full
    return Windows(tokens, mask, np.arange(count))


def test_tokens_keep_their_places_and_pieces_their_length():
    domains = {"a": windows(0), "code_b": windows(1), "c": windows(2), "code_d": windows(3)}
    made, label = splices(domains, 50, shortest=8)
    assert np.array_equal(made.tokens // 1000, label)
    assert np.array_equal(made.tokens % 1000, np.tile(np.arange(L), (50, 1)))
    assert made.mask.all()
    for row in label:
        kinds = {name.startswith("code") for e, name in enumerate(domains) if e in row}
        assert kinds == {True, False}
        ends = np.flatnonzero(np.diff(row)) + 1
        lengths = np.diff([0, *ends])
        assert lengths.min() >= 8 and lengths.max() <= 32
    again, _ = splices(domains, 50, shortest=8)
    assert np.array_equal(again.tokens, made.tokens)
    assert not np.array_equal(splices(domains, 50, seed=1, shortest=8)[0].tokens, made.tokens)


def test_without_code_any_two_domains_take_turns():
    _, label = splices({"a": windows(0), "b": windows(1), "c": windows(2)}, 40)
    assert {frozenset(np.unique(row).tolist()) for row in label} == {
        *map(frozenset, ({0, 1}, {0, 2}, {1, 2}))
    }


def test_one_domain_makes_no_splices():
    with pytest.raises(UserError, match="two domains or more"):
        splices({"a": windows(0), "b": windows(1, full=False)}, 3)
