"""The p-value of several witnesses: valid on own documents, small where one of them is odd."""

import json
import math

import numpy as np
import pytest
from tiny_bank import refuses

from cr_jax.errors import UserError
from cr_jax.scoring import own_documents
from cr_jax.scoring.own_documents import OwnDocuments, Witnesses, margins_of


def drawn(n, seed, k=(1, 4), surprise=True):
    draw = np.random.default_rng(seed)
    hard = draw.normal(size=n)  # a hard document costs everybody more, and its expert expects it
    numbers = [
        3 + 0.3 * hard + 0.1 * draw.normal(size=n),
        1.5 + 0.2 * draw.normal(size=n),
        0.2 + 0.05 * draw.normal(size=n),
    ]
    return OwnDocuments(("b", "c"), *(dict.fromkeys(k, x) for x in numbers[: 2 + surprise]))


def of(residual=3.0, margin=1.5, surprise=0.2):
    return Witnesses(residual, margin, surprise)


def rate(k, surprise=True):
    """Share of new documents of the same kind with p <= 0.05."""
    rates = []
    for seed in range(12):
        own, new = drawn(200, seed, surprise=surprise), drawn(60, 1000 + seed)
        numbers = (new.residuals[4], new.margins[4], new.surprises[4])
        p = [own.high_p(Witnesses(*x), k, math.nan) for x in zip(*numbers, strict=True)]
        rates.append(np.mean(np.array(p) <= 0.05))
    return np.mean(rates)


def test_own_documents_are_refused_as_often_as_alpha_says():
    assert 0.03 < rate(1) < 0.06 and 0.03 < rate(4) < 0.06
    assert 0.03 < rate(4, surprise=False) < 0.06


def test_each_number_alone_refuses():
    own, p = drawn(200, 0), lambda **x: drawn(200, 0).high_p(of(**x), 4, math.nan)
    usual = p()
    assert usual > 0.3
    assert p(margin=0.3) == 1 / 201  # a small lead
    assert p(surprise=0.6) == 1 / 201
    assert p(margin=2.5) > usual  # far ahead of the others
    # Of one window the surprise does not count, but the residual does; of more it is the other way.
    assert own.high_p(of(surprise=0.6), 1, math.nan) > 0.3
    assert own.high_p(of(residual=4.8), 1, math.nan) == 1 / 201
    assert p(residual=4.8) == usual


def test_each_witness_has_a_p_value_of_its_own():
    own = drawn(200, 0)
    assert all(p > 0.3 for p in own.each_p(of(), 4))
    odd = own.each_p(of(surprise=0.6), 4)
    assert odd.surprise == 1 / 201 and odd[:2] == own.each_p(of(), 4)[:2]
    assert own.each_p(of(residual=5.0), 4).residual == 1 / 201
    assert own.each_p(of(margin=0.1), 4).margin == 1 / 201
    assert math.isnan(own.each_p(of(surprise=math.nan), 4).surprise)
    assert all(map(math.isnan, drawn(50, 0, k=(2, 4)).each_p(of(), 1)))


def test_without_surprises_residual_and_margin_decide_as_before():
    old, new = drawn(200, 0, surprise=False), drawn(200, 0)
    assert set(old.to_json()) == {"against", "residuals", "margins"}
    assert set(new.to_json()) - set(old.to_json()) == {"surprises"}
    again = OwnDocuments.from_json(json.loads(json.dumps(old.to_json())))
    assert not again.surprises and math.isnan(again.each_p(of(), 4).surprise)
    for document in (of(), of(residual=3.6), of(margin=1.1), of(4.8, 1.5, 0.2)):
        p = again.high_p(document, 4, math.nan)
        # Neither an old file with a surprise at hand nor a new one without differs.
        assert p == old.high_p(document._replace(surprise=9.0), 4, math.nan)
        assert p == new.high_p(document._replace(surprise=math.nan), 4, math.nan)
    assert old.high_p(of(residual=4.8), 4, math.nan) == 1 / 201


def test_below_the_finest_rank_the_other_p_value_decides():
    own = drawn(50, 0)
    assert own.high_p(of(9.0, 0.0, 1.0), 4, 1e-4) == 1e-4
    assert own.high_p(of(9.0, 0.0, 1.0), 4, 0.5) == 1 / 51
    assert own.high_p(of(), 4, 1e-4) > 0.3  # own documents are as strange: the rank decides


def test_nothing_is_said_of_what_is_too_short_or_has_no_rival():
    own = drawn(50, 0, k=(2, 4))
    assert math.isnan(own.high_p(of(), 1, 0.5))
    assert math.isnan(own.high_p(of(margin=math.nan), 4, 0.5))
    assert not math.isnan(own.high_p(of(), 99, 0.5))


def test_the_lead_counts_only_those_it_was_measured_against():
    residuals = np.array([2.0, 2.1, 3.0, np.inf])  # of a, a later one, b, and c, which is silent
    against = np.array([[0, 0, 1, 1], [0, 0, 0, 1], [1, 0, 0, 0], [1, 1, 1, 0]], bool)
    np.testing.assert_array_equal(margins_of(residuals, against), [1.0, np.nan, -1.0, np.nan])


def test_json_gives_the_same_back_and_nonsense_is_refused():
    own = drawn(30, 0)
    again = OwnDocuments.from_json(json.loads(json.dumps(own.to_json())))
    assert again.against == own.against
    for field in own_documents.FIELDS:
        assert all((getattr(again, field)[k] == getattr(own, field)[k]).all() for k in (1, 4))
    with pytest.raises(ValueError):
        own.margins[1][0] = 0.0  # frozen
    short = {1: np.ones(19)}
    refuses(lambda: OwnDocuments(("b",), short, short), "measure")
    refuses(lambda: OwnDocuments((), {}, {}), "measure")
    refuses(lambda: OwnDocuments(("b",), {}, {}), "measure")
    huge = {10**400: np.ones(30)}
    refuses(lambda: OwnDocuments(("b",), huge, huge), "measure")
    odd = [own.to_json() | {field: {"1": [1.0] * 30}} for field in ("margins", "surprises")]
    for raw in (*odd, {}, None, {"against": ["b"], "residuals": 3, "margins": 3}):
        with pytest.raises(UserError):
            OwnDocuments.from_json(raw)
