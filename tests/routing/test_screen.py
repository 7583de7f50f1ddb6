"""What bigram models decide alone: margins, usual ranges, and how they are fitted."""

import numpy as np
import pytest
from tiny_bank import refuses

from cr_jax.bank.screen_file import Screen
from cr_jax.routing.screen import DOCUMENTS, FEWEST, HIGH, SPARE, Measured, decide, fit

NAMES = ("a", "b", "c")
SCREEN = Screen(
    {2: 0.5, 4: 0.25},
    {"a": {2: (1.0, 3.0, 0.5), 4: (1.0, 2.0, 0.3)}, "b": {2: (1.0, 3.0, 0.0)}, "c": {}},
    alpha=0.05,
    typicality_weight=0.0,
    at_least=0.999,
    agreement=1.0,
    decided=0.5,
    documents=10,
)


def verdict(residuals, windows, alpha=0.05, screen=SCREEN):
    said = decide(screen, NAMES, np.array([residuals], float), np.array([windows]), alpha)
    return said.candidates[0].tolist(), bool(said.certain[0])


def test_one_candidate_with_a_usual_residual_is_certain():
    assert verdict([2, 3, 4], 2) == ([True, False, False], True)
    assert verdict([2, 3, 4], 3) == ([True, False, False], True)
    assert verdict([2.9, 4, 4], 4) == ([True, False, False], False)  # too dear for its length
    assert verdict([0.9, 4, 4], 2) == ([True, False, False], False)  # too cheap
    assert verdict([2, 2.4, 4], 2) == ([True, True, False], False)
    assert verdict([2, 2.4, 4], 4) == ([True, False, False], True)  # the margin of longer texts
    assert verdict([4, 2.9, 4], 9) == ([False, True, False], True)  # the longest that was measured
    assert verdict([2, 2.28, 4], 4) == ([True, False, False], False)  # leads by too little
    assert verdict([4, 4, 2], 9) == ([False, False, True], False)  # nothing is usual for c


def test_short_documents_other_alphas_and_banks_without_a_screen_go_to_the_experts():
    assert verdict([2, 3, 4], 1) == ([True] * 3, False)
    assert verdict([2, 3, 4], 2, alpha=0.1) == ([True, False, False], False)
    assert verdict([2, 3, 4], 2, alpha=0.01) == ([True, False, False], True)
    assert verdict([2, 3, 4], 2, screen=None) == ([True] * 3, False)
    assert decide(SCREEN, NAMES, np.zeros((0, 3)), np.zeros(0, int), 0.05).certain.shape == (0,)


def documents(refused=(), wrong=()):
    """100 documents of each of two experts, at 1.00, 1.01, ... and 5 nats/token."""
    own = 1 + np.arange(100) / 100
    residuals = np.concatenate([np.stack([own, own + 4], 1), np.stack([own + 4, own], 1)])
    winner, known = np.repeat([0, 1], 100), np.ones(200, bool)
    known[list(refused)] = False
    winner[list(wrong)] ^= 1
    return Measured(residuals, winner, known)


def fitted(at_least=0.999, **how):
    return fit({2: documents(**how)}, ("a", "b"), 0.05, 0.0, at_least)


def test_the_usual_range_ends_before_the_cheapest_text_that_was_refused():
    made = fitted()
    assert made.usual["a"][2] == pytest.approx((1.01, 1 + HIGH - 0.01, 4.0))
    assert made.margins[2] == 0 and made.agreement == 1 and made.documents == 200
    assert made.decided == pytest.approx(HIGH - 0.01)
    refused = fitted(refused=[60, 90])
    assert refused.usual["a"][2][1] < 1.6 and refused.usual["b"] == made.usual["b"]
    assert "a" in fitted(refused=[0]).usual and fitted(refused=[0]).usual["a"] == {}


def test_text_of_a_near_domain_is_not_certain_by_its_residual():
    """Documents that were refused for a small lead do not shorten the range of the others."""
    residuals, winner, known = documents()
    residuals[:5, 1] = residuals[:5, 0] + 0.6  # as cheap as usual, and the other is near
    known[:5] = False
    made = fit({2: Measured(residuals, winner, known)}, ("a", "b"), 0.05, 0.0, 0.999)
    _, high, lead = made.usual["a"][2]
    assert high > 1.7 and lead > 0.6 and made.agreement == 1


def test_the_margin_holds_the_winner_of_as_many_as_asked_for():
    assert fitted(wrong=[3]).margins[2] == pytest.approx(SPARE * 4)
    assert fitted(wrong=[3], at_least=0.99).margins[2] == 0
    assert fitted(wrong=[3], at_least=0.99).agreement == 199 / 200
    assert fitted(wrong=[3], at_least=0).margins[2] == 0


def test_an_expert_with_few_long_documents_has_the_margin_of_shorter_ones():
    whole = documents(wrong=[3])  # b wins a text that its bigram model finds 4 nats too dear
    some = Measured(*(x[: 100 + FEWEST - 1] for x in documents()))
    made = fit({1: whole, 2: some}, ("a", "b"), 0.05, 0.0, 0.999)
    assert made.few == {2: ("b",)} and made.margins == pytest.approx({1: SPARE * 4, 2: 0.0})
    two = lambda residuals: decide(made, ("a", "b"), np.array([residuals]), np.array([2]), 0.05)
    assert two([1.5, 1.5 + 4.9]).candidates.tolist() == [[True, True]]
    assert two([1.5, 1.5 + 5.1]).candidates.tolist() == [[True, False]]
    assert two([1.5, 1.5 + 5.1]).certain.all()
    # What is usual for b is what was of one window, of which it has enough.
    assert made.usual["b"].keys() == {1}
    assert two([9.0, 1.2]).certain.all() and not two([9.0, 2.1]).certain.any()


def test_few_documents_decide_nothing():
    whole = documents()
    some = Measured(*(x[: 100 + FEWEST - 1] for x in whole))
    made = fit({2: some}, ("a", "b"), 0.05, 0.0, 0.999)
    assert made.usual["b"] == {} and made.usual["a"]
    # Too few to say how far from its bigram model an expert wins: never ruled out.
    assert made.few == {2: ("b",)} and made.decided == 0
    said = decide(made, ("a", "b"), np.array([[1.5, 9.0], [9.0, 1.2]]), np.array([2, 2]), 0.05)
    assert said.candidates.tolist() == [[True, True], [False, True]] and not said.certain.any()
    assert fit({2: whole}, ("a", "b"), 0.05, 0.0, 0.999).few == {}
    few = Measured(*(x[: DOCUMENTS - 1] for x in whole))
    assert fit({1: few, 2: whole}, ("a", "b"), 0.05, 0.0, 0.999).margins == {2: 0.0}
    refuses(lambda: fit({2: few}, ("a", "b"), 0.05, 0.0, 0.999), str(DOCUMENTS - 1))
    refuses(lambda: fit({}, ("a", "b"), 0.05, 0.0, 0.999), "documents")
