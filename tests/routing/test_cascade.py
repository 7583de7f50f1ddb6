"""A cascade answers as exact routing does wherever the exact winner is a candidate."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from tiny_bank import TEXT, TINY, in_memory, same_route, spread, stored, trained_bank, windows

from cr_jax import router
from cr_jax.bank import stacks
from cr_jax.cli import main
from cr_jax.config import Scoring
from cr_jax.errors import UserError
from cr_jax.routing.candidates import agreement
from cr_jax.routing.cascade import Cascade, full_batches
from cr_jax.routing.options import RouteOptions
from cr_jax.scoring import bigram, bigram_windows
from cr_jax.scoring import residuals as scoring
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.bigram_windows import bigram_residuals

FOUR = BatchSizes(windows=4)
NEAREST, ALL = RouteOptions(tra="nearest"), RouteOptions(tra="all")


def by_bigrams(bank, batch):
    """nats/token of the windows by the bank's bigram models, each asked alone."""
    return np.concatenate(
        [bigram_residuals(bigram.table([bank.bigrams[n]]), batch, BatchSizes()) for n in bank.names]
    )


def asked_first(patch, residuals):
    """Replaces what the bigram models say of windows."""
    patch.setattr("cr_jax.routing.cascade.bigram_residuals", lambda *a: residuals)


def test_keeping_all_experts_is_exact_routing():
    bank = in_memory(4)
    whole, batch = Cascade(bank, 4), spread()
    exact, got = router.route_windows(bank, batch), whole.route_windows(batch)
    np.testing.assert_allclose(got.residuals, exact.residuals, rtol=1e-5)
    np.testing.assert_array_equal(got.expert, exact.expert)
    np.testing.assert_array_equal(got.p_values, exact.p_values)
    assert len(set(exact.expert)) > 1
    a, b = whole.route(TEXT, ALL, FOUR), router.route(bank, TEXT, ALL, FOUR)
    same_route(a, b)
    assert a.margin == pytest.approx(b.margin, rel=1e-4) and list(a.residuals) == list(b.residuals)
    assert b.bigrams is None and set(a.bigrams) == set(bank.names)


def test_a_cascade_counts_the_winners_tra_alone():
    rule = Scoring(parts=4)
    bank = in_memory(4, rule=rule)
    cut = Cascade(bank, 3)
    found, full = cut.route(TEXT, NEAREST, FOUR), cut.route(TEXT, ALL, FOUR)
    assert cut.route(TEXT, sizes=FOUR).tra == {}
    assert found.tra == {full.nearest: full.tra[full.nearest]}
    assert list(full.tra) == list(full.residuals) and len(full.tra) == 3
    assert (found.p_values, found.expert) == (full.p_values, full.expert)
    assert found.residuals == pytest.approx(full.residuals, rel=1e-6)
    exact = router.route(bank, TEXT, ALL, FOUR)
    assert found.tra[found.nearest] == exact.tra[found.nearest]


def test_what_cannot_be_judged_or_scored_is_not_by_a_cascade_either():
    bank = in_memory(3)
    short = Cascade(in_memory(3), 2).route("abc", options=RouteOptions(alpha=1))
    assert short.known is None and short.expert == short.nearest
    assert set(short.to_json()["p_values"].values()) == {None}
    batch = spread()
    batch.mask[1] = batch.tokens[1] < 0  # empty
    batch.mask[6] = False
    exact, got = router.route_windows(bank, batch).expert, Cascade(bank, 2).route_windows(batch)
    assert np.flatnonzero(got.expert == -1).tolist() == [1, 6]
    assert ((exact == -1) == (got.expert == -1)).all() and np.isnan(got.p_values[:, [1, 6]]).all()


def test_bigram_models_that_say_what_experts_say_keep_the_winner(monkeypatch):
    bank, batch = in_memory(4), spread()
    exact = router.route_windows(bank, batch)
    asked_first(monkeypatch, exact.residuals)
    got = Cascade(bank, 1).route_windows(batch)
    np.testing.assert_array_equal(got.expert, exact.expert)
    assert (np.isfinite(got.residuals).sum(0) == 1).all()
    assert (np.isfinite(got.p_values) == np.isfinite(got.residuals)).all()
    at = got.expert, np.arange(len(got.expert))
    np.testing.assert_allclose(got.residuals[at], exact.residuals.min(0), rtol=1e-5)
    np.testing.assert_array_equal(got.p_values[at], exact.p_values[at])


def test_one_kept_expert_is_all_that_a_route_knows():
    bank = trained_bank()
    text = "".join(chr(97 + i * i % 10) for i in range(200))
    found = Cascade(bank, 1).route(text)
    exact = router.route(bank, text)
    assert (found.expert, found.nearest) == (exact.expert, exact.nearest) == ("e0", "e0")
    assert list(found.residuals) == ["e0"] and found.margin == np.inf
    assert found.residuals["e0"] == pytest.approx(exact.residuals["e0"], rel=1e-5)
    assert json.loads(json.dumps(found.to_json()))["bigrams"].keys() == set(bank.names)


@pytest.mark.parametrize("few", [1, 3])
def test_the_candidates_score_and_no_others(few):
    bank, batch = in_memory(4), spread()
    near = by_bigrams(bank, batch)
    exact, got = router.route_windows(bank, batch), Cascade(bank, few).route_windows(batch)
    chosen = np.argsort(np.argsort(near, 0), 0) < few
    np.testing.assert_array_equal(np.isfinite(got.residuals), chosen)
    np.testing.assert_allclose(got.residuals[chosen], exact.residuals[chosen], rtol=1e-5)
    np.testing.assert_array_equal(got.expert, np.where(chosen, exact.residuals, np.inf).argmin(0))


def test_no_margin_and_no_offsets_keep_the_nearest_bigram_models_alone():
    """Two ways to the same: the general rule, and the k lowest of plain residuals."""
    plain, batch = in_memory(4), spread()
    twin = dataclasses.replace(plain.expert("e1"), name="twin", bigram=plain.bigrams["e0"])
    bank = plain.mount(twin)
    near = by_bigrams(bank, batch)
    for few in (1, 2, 5):  # e0 and its twin are equally near: the first is the candidate
        want = np.zeros(near.shape, bool)
        np.put_along_axis(want, np.argsort(near, 0, kind="stable")[:few], True, 0)
        got, with_zeros = (
            Cascade(bank, few, offsets=o).route_windows(batch)
            for o in (None, dict.fromkeys(bank.names, 0.0))
        )
        np.testing.assert_array_equal(np.isfinite(got.residuals), want)
        np.testing.assert_array_equal(got.residuals, with_zeros.residuals)
    shifted = Cascade(bank, 2, offsets=dict.fromkeys(bank.names, 3.0))  # alike for all: nothing
    assert shifted.route(TEXT) == Cascade(bank, 2).route(TEXT)


def test_the_margin_keeps_what_lies_near_the_nearest_bigram_model():
    bank, batch = in_memory(4), spread()
    near, exact = by_bigrams(bank, batch), router.route_windows(bank, batch).residuals
    above = near - near.min(0)
    margin, counts = float(np.median(above)), []
    for m in (0.0, margin / 2, margin, 2 * margin):
        got = Cascade(bank, 2, candidate_margin=m).route_windows(batch)
        here = np.isfinite(got.residuals)
        np.testing.assert_array_equal(here, (above < m) | (np.argsort(np.argsort(near, 0), 0) < 2))
        np.testing.assert_allclose(got.residuals[here], exact[here], rtol=1e-5)
        counts.append(here.sum(0))
    assert (np.diff(counts, axis=0) >= 0).all() and len(set(counts[2])) > 1
    assert (counts[0] == 2).all() and (counts[3] > counts[0]).any()


def test_offsets_rescue_a_bigram_model_that_is_dearer_on_everything(monkeypatch):
    bank, batch = in_memory(4), spread()
    exact = router.route_windows(bank, batch)
    lost = int(np.bincount(exact.expert).argmax())
    dear = exact.residuals + 2.0 * (np.arange(4) == lost)[:, None]
    asked_first(monkeypatch, dear)
    offsets = {n: 2.0 * (e == lost) for e, n in enumerate(bank.names)}
    without = Cascade(bank, 1).route_windows(batch).expert
    np.testing.assert_array_equal(
        Cascade(bank, 1, offsets=offsets).route_windows(batch).expert, exact.expert
    )
    assert (without[exact.expert == lost] != lost).any()
    turned = Cascade(bank.select(bank.names[::-1]), 1, offsets=offsets)
    asked_first(monkeypatch, dear[::-1])
    np.testing.assert_array_equal(3 - turned.route_windows(batch).expert, exact.expert)


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_a_document_of_one_window_keeps_what_the_window_keeps(margin):
    bank, batch = in_memory(4), spread()
    offsets = {n: 0.1 * i for i, n in enumerate(bank.names)}
    cut = Cascade(bank, 1, candidate_margin=margin, offsets=offsets)
    by_window = np.isfinite(cut.route_windows(batch).residuals)
    near = by_bigrams(bank, batch)
    for i in range(0, len(batch), 4):
        window = batch.take(np.array([i]))
        found = cut.route(window, sizes=BatchSizes(experts=1))
        want = {bank.names[e] for e in np.flatnonzero(by_window[:, i])}
        assert set(found.residuals) == want
        # offsets choose, and are not said
        assert list(found.bigrams.values()) == pytest.approx(list(near[:, i]), rel=1e-5)
        filled = cut.route(window, sizes=BatchSizes(experts=2))
        assert want <= set(filled.residuals)
        assert len(filled.residuals) == min(4, 1 + -(-(len(want) - 1) // 2) * 2)
    if margin:
        assert len(set(by_window.sum(0))) > 1


def test_random_bigram_models_keep_the_winner_at_chance():
    """Negative control: what agrees is the bigram models' doing, not the cascade's."""
    bank, batch = in_memory(4), spread(400)
    exact = router.route_windows(bank, batch)
    shuffled = np.random.default_rng(0).permuted(exact.residuals, axis=0)
    np.testing.assert_allclose(
        agreement(shuffled, exact.residuals), [0.25, 0.5, 0.75, 1], atol=0.08
    )
    rates = [
        np.mean(
            Cascade(in_memory(4, bigrams_from=10 * seed), 1).route_windows(batch).expert
            == exact.expert
        )
        for seed in range(2, 12)
    ]
    # Over bigram models the share varies by 0.034, so that their mean is within 0.011 of chance.
    assert abs(np.mean(rates) - 0.25) < 0.04 and min(rates) > 0.1 and max(rates) < 0.4


def test_trained_bigram_models_need_one_expert_and_unknown_text_stays_unknown():
    bank = trained_bank()
    mine = {
        f"e{i}": windows(100, 500 + i, low, high)
        for i, (low, high) in enumerate(((97, 107), (113, 123)))
    }
    cut = Cascade.fit(bank, mine, min_candidates=1)
    assert (cut.min_candidates, cut.candidate_margin, cut.offsets) == (1, 0, None)
    assert (cut.fitted.agreement, cut.fitted.mean_candidates) == (1, 1)
    assert cut.route("".join(chr(97 + i * i % 10) for i in range(200))).expert == "e0"
    assert cut.route("0123456789" * 20).expert is None


def test_no_expert_is_compiled_twice(monkeypatch):
    some = Cascade(in_memory(6), 2)
    full, asked, picks, real = [], [], [], scoring.window_sums
    real_take = stacks.jnp.take
    real_hashes = bigram.pair_hashes

    def window_sums(model, params, tokens, *more):
        full.append(tokens.shape)
        return real(model, params, tokens, *more)

    monkeypatch.setattr(scoring, "window_sums", window_sums)
    monkeypatch.setattr(
        stacks.jnp, "take", lambda *a, **k: picks.append(a[1].shape) or real_take(*a, **k)
    )
    monkeypatch.setattr(
        bigram, "pair_hashes", lambda *a: asked.append(a[0].shape) or real_hashes(*a)
    )
    # Bigram models read four windows too.
    monkeypatch.setattr(bigram_windows, "TOKENS", 4 * TINY.window)
    # The others are traced anew as they are: their function is another.
    stacks._pick.clear_cache()
    bigram.residuals.clear_cache()
    some.route_windows(spread(), sizes=FOUR)
    assert set(full) == {(4, 16), (1, 16)} and len(full) == 2 and asked == [(4, 15)]
    leaves = len(jax.tree.leaves(some.bank.params))
    assert picks == [(1,)] * leaves
    some.route_windows(spread(160), sizes=FOUR)
    assert (len(full), len(asked), len(picks)) == (2, 1, leaves)
    some.route(TEXT, sizes=FOUR)  # two experts side by side: one program more
    some.route(TEXT.upper(), sizes=FOUR)
    some.route("0" * 500, sizes=FOUR)
    assert (len(full), len(asked)) == (3, 1)
    assert picks == [(1,)] * leaves + [(2,)] * leaves


def test_batches_are_nearly_full_and_cover_every_place():
    for batch in (1, 4, 11, 64):
        for n in range(200):
            batches = list(full_batches(np.arange(n), BatchSizes(windows=batch)))
            assert [i for at, _ in batches for i in at] == list(range(n))
            assert all(0.75 * rows <= len(at) <= rows for at, rows in batches)
    assert [rows for _, rows in full_batches(np.arange(85), BatchSizes())] == [64, 16, 4, 1]
    assert [rows for _, rows in full_batches(np.arange(63), BatchSizes())] == [64]


def test_the_command_says_what_the_api_says(tmp_path, capsys):
    bank = stored(tmp_path / "bank", in_memory(3))
    (tmp_path / "a.txt").write_text(TEXT)
    words = ["route", "--bank", str(tmp_path / "bank"), str(tmp_path / "a.txt")]

    def call(*more):
        return main([*words, *more]), *capsys.readouterr()

    status, _, error = call("--cascade")  # no fit was stored
    assert status == 2 and "route without it" in error and error.count("\n") == 1
    status, _, error = call("--min-candidates", "9")
    assert status == 2 and "min_candidates=9" in error
    want = Cascade.load(tmp_path / "bank", min_candidates=2).route(TEXT)
    status, out, error = call("--min-candidates", "2", "--json")
    assert (status, error) == (0, "")
    said = json.loads(out)
    assert {k: said[k] for k in want.to_json()} == want.to_json()
    assert len(said["residuals"]) == 2 and len(said["bigrams"]) == 3
    Cascade.fit(bank, {n: spread() for n in bank.names}, at_least=0.0, min_candidates=2).save()
    status, chosen, _ = call("--cascade", "--json")
    assert status == 0 and chosen == out
    status, out, _ = call("--min-candidates", "1", "--explain")
    assert status == 0 and "the only one of 3 experts that the bigram models left" in out
    assert "bigrams" not in call()[1]


def test_a_cascade_reads_a_beginning_and_refuses_batches_of_no_size():
    cut = Cascade(in_memory(3), 2)
    seen = []
    found = cut.route(
        TEXT, options=RouteOptions(max_windows=3), sizes=BatchSizes(windows=2), on_block=seen.append
    )
    assert found == cut.route(TEXT[: 3 * TINY.window], sizes=BatchSizes(windows=2))
    assert [len(block) for block in seen] == [2, 1]
    last = cut.route(TEXT, options=RouteOptions(last_tokens=TINY.window))
    assert last == cut.route(TEXT[-TINY.window :]) and last.windows == 1
    for call in (
        lambda: cut.route(TEXT, sizes=BatchSizes(windows=0)),
        lambda: cut.route_windows(spread(), sizes=BatchSizes(experts=0)),
    ):
        with pytest.raises(UserError, match="whole number"):
            call()
