"""The p-value of residual and margin: valid on own documents, small where either is odd."""

import json
import math

import numpy as np
import pytest
from tiny_bank import refuses

from cr_jax.errors import UserError
from cr_jax.scoring.own_documents import OwnDocuments, margins_of


def drawn(n, seed, k=(1, 4)):
    draw = np.random.default_rng(seed)
    hard = draw.normal(size=n)  # a hard document costs everybody more
    residual = 3 + 0.3 * hard + 0.1 * draw.normal(size=n)
    margin = 1.5 + 0.2 * draw.normal(size=n)
    return OwnDocuments(("b", "c"), dict.fromkeys(k, residual), dict.fromkeys(k, margin))


def test_own_documents_are_refused_as_often_as_alpha_says():
    rates = []
    for seed in range(20):
        own, new = drawn(200, seed), drawn(100, 1000 + seed)
        p = [
            own.high_p(r, m, 4, math.nan)
            for r, m in zip(new.residuals[4], new.margins[4], strict=True)
        ]
        rates.append(np.mean(np.array(p) <= 0.05))
    assert 0.03 < np.mean(rates) < 0.06


def test_either_number_alone_refuses():
    own = drawn(200, 0)
    usual = own.high_p(3.0, 1.5, 4, math.nan)
    assert usual > 0.3
    assert own.high_p(3.0, 0.5, 4, math.nan) == 1 / 201  # a small lead
    assert own.high_p(4.8, 1.5, 4, math.nan) == 1 / 201  # a high residual
    assert own.high_p(3.0, 2.5, 4, math.nan) > usual  # far ahead of the others


def test_below_the_finest_rank_the_other_p_value_decides():
    own = drawn(50, 0)
    assert own.high_p(9.0, 0.0, 4, 1e-4) == 1e-4
    assert own.high_p(9.0, 0.0, 4, 0.5) == 1 / 51
    assert own.high_p(3.0, 1.5, 4, 1e-4) > 0.3  # own documents are as strange: the rank decides


def test_nothing_is_said_of_what_is_too_short_or_has_no_rival():
    own = drawn(50, 0, k=(2, 4))
    assert math.isnan(own.high_p(3.0, 1.5, 1, 0.5))
    assert math.isnan(own.high_p(3.0, math.nan, 4, 0.5))
    assert not math.isnan(own.high_p(3.0, 1.5, 99, 0.5))


def test_the_lead_counts_only_those_it_was_measured_against():
    residuals = np.array([2.0, 2.1, 3.0, np.inf])  # of a, a later one, b, and c, which is silent
    against = np.array([[0, 0, 1, 1], [0, 0, 0, 1], [1, 0, 0, 0], [1, 1, 1, 0]], bool)
    np.testing.assert_array_equal(margins_of(residuals, against), [1.0, np.nan, -1.0, np.nan])


def test_json_gives_the_same_back_and_nonsense_is_refused():
    own = drawn(30, 0)
    again = OwnDocuments.from_json(json.loads(json.dumps(own.to_json())))
    assert again.against == own.against
    assert all((again.residuals[k] == own.residuals[k]).all() for k in (1, 4))
    with pytest.raises(ValueError):
        own.margins[1][0] = 0.0  # frozen
    short = {1: np.ones(19)}
    refuses(lambda: OwnDocuments(("b",), short, short), "measure")
    refuses(lambda: OwnDocuments((), {}, {}), "measure")
    refuses(lambda: OwnDocuments(("b",), {}, {}), "measure")
    huge = {10**400: np.ones(30)}
    refuses(lambda: OwnDocuments(("b",), huge, huge), "measure")
    odd = own.to_json() | {"margins": {"1": [1.0] * 30}}
    refuses(lambda: OwnDocuments.from_json(odd), "measure")
    for raw in ({}, None, {"against": ["b"], "residuals": 3, "margins": 3}):
        with pytest.raises(UserError):
            OwnDocuments.from_json(raw)
