"""Text must be typical of its winner: what exceeds an expert's own 95th percentile counts more."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from tiny_bank import (
    TEXT,
    TINY,
    altered,
    fresh,
    in_memory,
    on_disk,
    one,
    same_route,
    spread,
    stored,
    windows,
)

from cr_jax import router
from cr_jax.bank import Expert, ExpertBank, import_expert, set_typicality_weight
from cr_jax.bank.files import BankFolder, read_json
from cr_jax.config import SEEN, Scoring
from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.errors import UserError
from cr_jax.routing.cascade import Cascade, fit_candidates
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.ranking import ranking_score, typicality_penalty
from cr_jax.scoring import residuals as scoring
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.calibration import Calibration
from cr_jax.studies import weak_experts

FULL = np.array([TINY.window])


def usual(limit: float) -> Calibration:
    """An expert whose own residuals are all alike, so that this is their 95th percentile."""
    return Calibration({8: np.full(20, limit), TINY.window: np.full(20, limit)})


def comparing(bank: ExpertBank, weight: float, limits=None) -> ExpertBank:
    """The same experts with a typicality weight and hand-made limits."""
    known = {} if limits is None else dict(zip(bank.names, map(usual, limits), strict=True))
    rule = dataclasses.replace(bank.scoring, typicality_weight=weight)
    return altered(bank, calibration=known).changed(scoring=rule)


def test_a_limit_is_the_percentile_at_the_length_that_p_values_use():
    short, long = np.linspace(2, 9, 40), np.linspace(1, 5, 77)
    found = Calibration({8: short, 16: long}).limit(np.array([0, 7, 8, 15, 16, 99]))
    assert np.isnan(found[:2]).all()
    want = [np.percentile(short, 95)] * 2 + [np.percentile(long, 95)] * 2
    np.testing.assert_array_equal(found[2:], want)


def test_the_router_compares_as_the_study_does():
    rng, names = np.random.default_rng(0), ("e0", "e1", "e2")
    valid = {n: rng.gamma(4, (0.5, 1, 2), (200, 3)).T for n in names}
    residuals, limits = rng.gamma(6, 1, (3, 50)), weak_experts.limits(valid, names)
    bank = in_memory(3)
    known = {n: Calibration({TINY.window: np.sort(valid[n][e])}) for e, n in enumerate(names)}
    bank = altered(bank, calibration=known)
    lengths = np.full(50, TINY.window)
    won = set()
    for weight in (0.0, 0.5, 2.0, 8.0):
        got = ranking_score(comparing(bank, weight), residuals, lengths)
        np.testing.assert_allclose(
            got, weak_experts.with_typicality_penalty(residuals, limits, weight), rtol=1e-12
        )
        won.add(tuple(got.argmin(0)))
    assert len(won) > 2  # the weight decides


def test_an_overfitted_expert_gets_its_own_text_back():
    """Its text costs the neighbour less, but far more than the neighbour's own text does."""
    bank, residual = in_memory(2), np.array([[3.0], [3.4]])  # e1's own text
    won = lambda *how: int(ranking_score(comparing(bank, *how), residual, FULL).argmin())
    assert won(0.0, (2.0, 3.5)) == 0  # plain residuals: the neighbour's
    assert won(2.0, (2.0, 3.5)) == 1  # 3 + 2 x (3 - 2) against 3.4
    # Negative controls: too light a weight, text that is typical of both, or beyond both alike.
    assert won(0.3, (2.0, 3.5)) == 0
    assert won(2.0, (3.2, 3.5)) == 0
    assert won(2.0, (2.0, 2.4)) == 0


def test_a_text_goes_to_the_expert_that_it_is_typical_of():
    plain = router.route(in_memory(2), TEXT)
    first, second = sorted(plain.residuals, key=plain.residuals.get)
    low = {first: plain.residuals[first] - 2 * plain.margin, second: 99.0}
    limits = [low[n] for n in ("e0", "e1")]
    found = router.route(comparing(in_memory(2), 2.0, limits), TEXT)
    assert (plain.nearest, found.nearest) == (first, second)
    assert found.residuals == plain.residuals and found.typicality_penalty[second] == 0
    # Windows above and below the limit do not cancel: at least what the mean exceeds it by.
    assert found.typicality_penalty[first] >= 4 * plain.margin * (1 - 1e-9)
    assert found.margin == pytest.approx(found.ranking_score[first] - found.ranking_score[second])
    high = router.route(comparing(in_memory(2), 2.0, [99.0, 99.0]), TEXT)
    assert high.nearest == first and not any(high.typicality_penalty.values())


@pytest.mark.parametrize("rule", [SEEN, Scoring(parts=4)], ids=["seen", "hidden"])
def test_a_document_is_the_mean_of_its_windows_by_tokens(rule):
    bank = comparing(in_memory(3, rule=rule), 1.5, (5.0, 5.5, 4.5))
    document = spread()
    lengths = document.mask.sum(-1)
    assert len(set(lengths)) > 1
    alone = router.route_windows(bank, document)
    each = ranking_score(bank, alone.residuals, lengths)
    np.testing.assert_array_equal(alone.expert, each.argmin(0))
    want = np.average(each, axis=1, weights=lengths)
    for batch in (1, 3, 64):
        found = router.route(bank, document, sizes=BatchSizes(windows=batch))
        assert list(found.ranking_score.values()) == pytest.approx(want, rel=1e-5)
        assert found.nearest == bank.names[want.argmin()]
        assert min(found.typicality_penalty.values()) > 0
    # By tokens, not by windows: that would be another number.
    assert each.mean(1) != pytest.approx(want, rel=1e-4)


def test_a_text_of_one_window_is_routed_as_that_window():
    winners = set()
    for seed in range(6):
        bank = comparing(in_memory(3, seed=seed), 2.0, (5.0, 6.0, 5.5))
        window = windows(2, seed, 60, 200).take(slice(1))
        found, alone = router.route(bank, window), router.route_windows(bank, window)
        assert bank.index(found.nearest) == alone.expert[0]
        each = ranking_score(bank, alone.residuals, window.mask.sum(-1))[:, 0]
        assert list(found.ranking_score.values()) == pytest.approx(each, rel=1e-6)
        winners.add(found.nearest != bank.names[alone.residuals[:, 0].argmin()])
    assert winners == {True, False}  # the penalty decides some and not all


def test_nothing_is_added_where_nothing_is_known():
    bank = comparing(in_memory(4), 2.0, (1.0, 1.0, 1.0, 1.0))
    residuals = np.array([[3.0, 3.0], [np.nan, 3.0], [np.inf, 0.5], [1.0, np.inf]])
    np.testing.assert_array_equal(
        typicality_penalty(bank, residuals, np.array([16, 7])), [[4, 0], [0, 0], [0, 0], [0, 0]]
    )
    np.testing.assert_array_equal(
        ranking_score(bank, residuals, np.array([16, 16])),
        [[7, 7], [np.nan, 7], [np.inf, 0.5], [1, np.inf]],
    )
    short = router.route(bank, "abc")
    assert short.known is None and set(short.typicality_penalty.values()) == {0.0}


def test_a_broken_expert_has_lost_and_adds_nothing():
    bank = in_memory(3)
    params = jax.tree.map(lambda x: x * np.nan, bank.expert("e0").params)
    broken = comparing(altered(bank, params={"e0": params}), 2.0, (1.0, 1.0, 1.0))
    whole = router.route(comparing(bank, 2.0, (1.0, 1.0, 1.0)).select(["e1", "e2"]), TEXT)
    found = router.route(broken, TEXT, options=RouteOptions(stop=0.9))
    assert found.nearest == whole.nearest and found.typicality_penalty["e0"] == 0
    assert found.to_json()["residuals"]["e0"] is None


def test_without_a_weight_every_bit_is_that_of_plain_sums_and_nothing_is_computed(monkeypatch):
    monkeypatch.setattr(Calibration, "limit", lambda *a: pytest.fail("a limit was asked for"))
    bank, document = in_memory(3, rule=Scoring(parts=4)), spread()
    scored = router.score_bank(bank, document, BatchSizes(windows=16))
    sums, counts = scored.residual.astype(np.float64), document.mask.sum(-1)
    found = router.route(bank, document, sizes=BatchSizes(windows=16))
    want = sums.sum(-1) / counts.sum()
    assert list(found.residuals.values()) == list(found.ranking_score.values()) == want.tolist()
    first, second = np.sort(want)[:2]
    assert found.margin == second - first and found.typicality_penalty == {}
    assert found.to_json()["typicality_penalty"] == {}
    alone = router.route_windows(bank, document)
    assert alone.residuals.tobytes() == (sums / counts[None]).tobytes()
    np.testing.assert_array_equal(alone.expert, (sums / counts).argmin(0))


def test_how_experts_are_ranked_compiles_nothing_anew(monkeypatch):
    traces, real = [], scoring.window_sums
    monkeypatch.setattr(scoring, "window_sums", lambda *a: traces.append(a[-2]) or real(*a))
    bank = in_memory(2, rule=Scoring(parts=4))
    for weight in (0.0, 0.5, 2.0):
        router.route_windows(comparing(bank, weight), windows(4), sizes=BatchSizes(windows=4))
    assert traces == [Scoring(parts=4)]


def test_reading_ends_by_the_ranking_score():
    """Clones never differ by residual; by what is typical of them they do at once."""
    clones = ExpertBank(TINY, ByteTokenizer())
    for name in ("narrow", "wide"):
        clones = clones.mount(Expert(name, one(fresh(1), 0), usual(1.0)))
    text = TEXT * 12
    level = router.route(clones, text).residuals["wide"]
    plain = router.route(clones, text, options=RouteOptions(stop=0.9))
    assert plain.windows == plain.of_windows > 100
    penalised = comparing(clones, 1.0, (level - 3, level + 3))
    found = router.route(penalised, text, options=RouteOptions(stop=0.9))
    assert found.nearest == "wide" and found.windows < 60 and found.of_windows == plain.windows
    assert router.route(penalised, text).nearest == "wide"
    start = router.route(
        penalised,
        text,
        options=RouteOptions(max_windows=found.windows),
        sizes=BatchSizes(windows=8),
    )
    assert (found.nearest, found.windows) == (start.nearest, start.windows)
    assert found.residuals == pytest.approx(start.residuals, rel=1e-5)
    assert found.margin == pytest.approx(start.margin, rel=1e-5)
    # Negative control: a penalty that both have alike tells nothing either.
    same = router.route(
        comparing(clones, 1.0, (level - 3, level - 3)), text, options=RouteOptions(stop=0.9)
    )
    assert same.windows == same.of_windows


def test_a_cascade_that_keeps_all_compares_as_exact_routing_does():
    plain = in_memory(4)
    bank, batch = comparing(plain, 2.0, (5.0, 6.5, 4.5, 6.0)), spread()
    whole = Cascade(bank, 4)
    exact, got = router.route_windows(bank, batch), whole.route_windows(batch)
    np.testing.assert_array_equal(got.expert, exact.expert)
    assert (exact.expert != router.route_windows(plain, batch).expert).any()
    options, sizes = RouteOptions(tra="all"), BatchSizes(windows=4)
    a, b = whole.route(TEXT, options, sizes), router.route(bank, TEXT, options, sizes)
    same_route(a, b)
    assert a.typicality_penalty == pytest.approx(b.typicality_penalty, rel=1e-5)
    assert any(b.typicality_penalty.values())
    assert a.margin == pytest.approx(b.margin, rel=1e-4)


def test_the_winner_that_bigram_models_must_keep_is_that_of_the_rule(monkeypatch):
    bank, batch = in_memory(4), {n: spread() for n in ("e0", "e1", "e2", "e3")}
    own = router.route_windows(bank, batch["e0"])
    monkeypatch.setattr("cr_jax.routing.cascade.bigram_residuals", lambda *a: own.residuals)
    # Plain residuals: what the bigram models say.
    found = fit_candidates(bank, batch, at_least=1.0, min_candidates=1)
    assert (found.mean_candidates, found.candidate_margin, found.agreement) == (1, 0, 1)
    rule = comparing(bank, 2.0, (5.0, 6.5, 4.5, 6.0))
    typical = router.route_windows(rule, batch["e0"]).expert
    found = fit_candidates(rule, batch, at_least=1.0, min_candidates=1)
    assert (own.expert != typical).any()
    assert found.mean_candidates > 1 and found.candidate_margin > 0
    assert fit_candidates(rule, batch, at_least=0.0, min_candidates=1).agreement == pytest.approx(
        (own.expert == typical).mean()
    )


def test_a_stored_fit_belongs_to_its_typicality_weight(tmp_path):
    bank = stored(tmp_path / "bank", in_memory(2))
    Cascade.fit(bank, {n: spread() for n in bank.names}, at_least=0.0, min_candidates=1).save()
    assert Cascade.load(tmp_path / "bank").min_candidates == 1
    set_typicality_weight(tmp_path / "bank", 2)
    with pytest.raises(UserError, match="another typicality_weight"):
        Cascade.load(tmp_path / "bank")
    assert Cascade.load(tmp_path / "bank", min_candidates=2).bank.scoring.typicality_weight == 2
    set_typicality_weight(tmp_path / "bank", 0)
    assert Cascade.load(tmp_path / "bank").min_candidates == 1


def test_a_stored_bank_changes_its_typicality_weight_and_no_expert(tmp_path):
    on_disk(tmp_path / "bank")
    read = lambda: {p: p.read_bytes() for p in (tmp_path / "bank").rglob("*") if p.is_file()}
    before = read()
    set_typicality_weight(tmp_path / "bank", 0.5)
    after = read()
    assert {p.name for p in after if after[p] != before.get(p)} == {"bank.json"}
    bank = ExpertBank.load(tmp_path / "bank")
    assert bank.verify() == [] and bank.scoring == Scoring(typicality_weight=0.5)
    for bad in (-1, float("nan"), float("inf")):
        said = r"scoring\.typicality_weight must be a finite number"
        with pytest.raises(UserError, match=said) as caught:
            set_typicality_weight(tmp_path / "bank", bad)
        assert "\n" not in str(caught.value)
    assert read() == after
    # An expert belongs to every bank with its residuals, however that compares them.
    on_disk(tmp_path / "other", experts=1)
    import_expert(tmp_path / "bank", tmp_path / "other" / "experts" / "e0", "more")
    assert ExpertBank.load(tmp_path / "bank").names == ("e0", "e1", "more")
    bank.add(Expert("last", one(fresh(1), 0), usual(1.0)))
    config = read_json(tmp_path / "bank/experts/last/config.json")
    assert config["scoring"]["typicality_weight"] == 0


def test_banks_from_before_there_was_a_typicality_weight_rank_plainly(tmp_path):
    on_disk(tmp_path / "bank")
    files = BankFolder(tmp_path / "bank")
    old = {k: v for k, v in files.index["scoring"].items() if k != "typicality_weight"}
    files.set_scoring(old)
    assert ExpertBank.load(tmp_path / "bank").scoring == SEEN


def test_a_route_says_what_was_added_in_plain_json():
    found = router.route(comparing(in_memory(2), 2.0, (1.0, 99.0)), TEXT)
    said = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert said["typicality_penalty"] == found.typicality_penalty
    assert said["typicality_penalty"]["e1"] == 0 < said["typicality_penalty"]["e0"]
    assert found.p_values == router.route(comparing(in_memory(2), 0.0, (1.0, 99.0)), TEXT).p_values
