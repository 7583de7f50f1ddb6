"""Documents of every expert by all experts: whose they are, and how far their expert leads."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_bank import TINY, documents_of, in_memory, refuses, trained_bank

from cr_jax import router
from cr_jax.config import Scoring
from cr_jax.routing import result
from cr_jax.routing.chosen import Scorer
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.ready import experts_of
from cr_jax.routing.scored_documents import (
    documents_each,
    first_documents,
    own_documents,
    score_documents,
    with_own_documents,
)
from cr_jax.scoring.batching import BatchSizes

SIZES = BatchSizes(2, 16, 128)


@pytest.fixture(scope="module")
def measured():
    bank = trained_bank()
    own = {"e0": documents_of(97, 107, 1), "e1": documents_of(113, 123, 2)}
    scored = score_documents(bank, own, SIZES)
    return bank, own, scored, own_documents(bank, scored)


def test_margins_are_those_of_routes(measured):
    bank, own, scored, found = measured
    assert found.keys() == {"e0", "e1"} and found["e0"].against == ("e1",)
    assert scored.owner == ["e0"] * 45 + ["e1"] * 45 and (scored.lengths == 2).all()
    first = own["e0"].take(slice(0, 2))
    route = router.route(bank, first, sizes=SIZES)
    assert found["e0"].residuals[2][0] == pytest.approx(route.residuals["e0"], rel=1e-5)
    assert found["e0"].margins[2][0] == pytest.approx(route.margin, rel=1e-5)


def test_text_between_two_experts_is_unknown_by_its_margin_alone(measured):
    bank, _, _, found = measured
    # Half of the letters are those of e0: it costs e0 less than a stranger, and e1 as much.
    between = documents_of(102, 118, 3, 1)
    options = RouteOptions()
    judged = with_own_documents(bank, found)
    assert router.route(judged, between, options, SIZES).expert is None
    assert router.route(judged, between, options, SIZES).witnesses.keys() == {"residual", "margin"}
    own = documents_of(97, 107, 9, 1)
    route = router.route(judged, own, options, SIZES)
    assert route.expert == "e0" and route.p_values["e0"] > 0.05 > route.p_values["e1"]


def test_a_small_lead_is_the_reason(measured):
    bank, _, _, found = measured
    own = documents_of(97, 107, 9, 1)
    far = {k: x + 50 for k, x in found["e0"].margins.items()}  # as if own text led by far more
    odd = {"e0": type(found["e0"])(("e1",), found["e0"].residuals, far)}
    route = router.route(with_own_documents(bank, odd), own, RouteOptions(), SIZES)
    assert route.expert is None and route.reason == result.TOO_NEAR
    without = router.route(bank, own, RouteOptions(), SIZES)
    assert without.expert == "e0"


def test_the_surprise_is_measured_and_refuses_by_itself():
    model, rule = dataclasses.replace(TINY, predictive=True), Scoring(predicted=True)
    bank = in_memory(2, model, rule=rule)
    own = {"e0": documents_of(97, 107, 1, 25), "e1": documents_of(113, 123, 2, 25)}
    found = own_documents(bank, score_documents(bank, own, SIZES))
    first = own["e0"].take(slice(0, 2))
    sums = router.score_bank(bank, first, SIZES, surprise=True)
    assert router.score_bank(bank, first, SIZES).surprise is None
    assert found["e0"].surprises[2][0] == pytest.approx(sums.surprise[0].sum() / 32, abs=1e-4)
    judged = with_own_documents(bank, found)
    route = router.route(judged, first, sizes=SIZES)
    assert route.witnesses.keys() == {"residual", "margin", "surprise"}
    with Scorer(experts_of(judged), RouteOptions(), SIZES) as scorer:
        (beside,) = scorer.start([first], np.ones((1, 2), bool))()
        (alone,) = scorer.start([first], np.array([[True, False]]))()
    assert beside.witnesses == pytest.approx(route.witnesses)
    assert alone.witnesses.keys() == {"residual", "surprise"}  # nobody to lead
    nearest = found[route.nearest]
    # As if it knew its own text's doubts better, and led on none.
    sure = {k: x - 9 + 0.01 * np.arange(len(x)) for k, x in nearest.surprises.items()}
    tied = {k: 0 * x for k, x in nearest.margins.items()}
    odd = dataclasses.replace(nearest, surprises=sure, margins=tied)
    route = router.route(with_own_documents(judged, {route.nearest: odd}), first, sizes=SIZES)
    assert route.expert is None and route.reason == result.SURPRISING
    assert route.witnesses["surprise"] < 0.05 < route.witnesses["margin"]
    # Of one window the surprise has no say, and is no reason.
    single = first.take(slice(0, 1))
    name = router.route(judged, single, sizes=SIZES).nearest
    cheap, sure_too = (
        {k: x - 9 + 0.01 * np.arange(len(x)) for k, x in of.items()}
        for of in (found[name].residuals, found[name].surprises)
    )
    led = {k: 0.2 + 0.02 * np.arange(len(x)) for k, x in found[name].margins.items()}
    odd_too = dataclasses.replace(found[name], residuals=cheap, surprises=sure_too, margins=led)
    odd_bank = with_own_documents(judged, {name: odd_too})
    one = router.route(odd_bank, single, RouteOptions(alpha=0.1), SIZES)
    assert one.witnesses["surprise"] < one.witnesses["margin"]
    assert one.expert is None and one.reason == result.TOO_NEAR
    usual = dataclasses.replace(odd, surprises={k: x + 9 for k, x in sure.items()})
    route = router.route(with_own_documents(judged, {route.nearest: usual}), first, sizes=SIZES)
    assert route.reason != result.SURPRISING


def test_an_expert_that_came_later_changes_no_verdict_of_the_others(measured):
    bank, _, _, found = measured
    judged = with_own_documents(bank, found)
    own = documents_of(97, 107, 9, 1)
    before = router.route(judged, own, RouteOptions(), SIZES)
    # A twin of e0 that lies behind it by a hair would leave it no lead at all.
    near = jax.tree.map(lambda x: x * np.float32(1.001), bank.expert("e0").params)
    twin = dataclasses.replace(bank.expert("e0"), name="twin", params=near)
    after = router.route(judged.mount(twin), own, RouteOptions(), SIZES)
    assert after.p_values["e0"] == pytest.approx(before.p_values["e0"])
    assert after.margin < before.margin / 10


def test_a_bank_of_one_and_few_documents_have_no_margins(measured):
    bank, own, _, _ = measured
    alone = bank.select("e0")
    assert own_documents(alone, score_documents(alone, {"e0": own["e0"]}, SIZES)) == {}
    few = score_documents(bank, {"e0": first_documents(own["e0"], 19)}, SIZES)
    assert own_documents(bank, few) == {}
    short = own["e0"].take(slice(2, 3))  # 9 tokens
    refuses(lambda: score_documents(bank, {"e0": short}, SIZES), "one window")


def test_documents_are_taken_whole_and_evenly():
    cut = first_documents(documents_of(97, 107, 1), 5)
    assert np.unique(cut.document).tolist() == [0, 11, 22, 33, 44] and len(cut) == 15
    assert cut.tokens.shape[1] == TINY.window
    counts = [documents_each(n) for n in (1, 10, 26, 1000)]
    assert counts[0] == counts[1] == 100 and counts[2] < 100 and counts[3] == 40
