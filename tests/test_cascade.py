"""A cascade answers as exact routing does wherever its scouts keep the exact winner."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny_bank
from test_router import BYTES, TEXT, trained_bank, windows
from tiny_bank import FLAT, TINY, fresh, in_memory, one

from cr_jax import calls, cascade, models, objective, router, scoring, spool
from cr_jax.bank import ExpertBank
from cr_jax.cascade import Cascade, agreement, choose_keep, full_calls
from cr_jax.cascade_record import Choice
from cr_jax.cli import main
from cr_jax.config import SEEN, Scoring
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.text_windows import windows_of_text

SMALL = dataclasses.replace(TINY, d_model=8, d_ff=16, latents=2)
SAMPLE = Scoring(parts=4, hidden=1, passes=1)


def spread(rows=16):
    """Windows of many alphabets, so that different experts win; some are cut to 9 tokens."""
    parts = [windows(rows // 4, 10 + i, low, low + 40) for i, low in enumerate((0, 60, 120, 200))]
    return Windows(*(np.concatenate([getattr(w, field) for w in parts])
                     for field in ("tokens", "mask", "document")))


def same_route(a, b):
    assert (a.expert, a.nearest, a.windows, a.tokens) == (b.expert, b.nearest, b.windows, b.tokens)
    for name in a.residuals:
        for field in ("residuals", "tra", "p_values"):
            assert getattr(a, field)[name] == pytest.approx(getattr(b, field)[name], rel=1e-5)


def test_keeping_all_experts_is_exact_routing():
    bank, scouts = in_memory(4), in_memory(4, SMALL, seed=7)
    whole, batch = Cascade(scouts, bank, 4), spread()
    exact, got = router.route_all(bank, batch), whole.route_all(batch)
    np.testing.assert_allclose(got.residuals, exact.residuals, rtol=1e-5)
    np.testing.assert_array_equal(got.expert, exact.expert)
    np.testing.assert_array_equal(got.p_values, exact.p_values)
    assert len(set(exact.expert)) > 1
    a, b = whole.route(TEXT, batch=4), router.route(bank, TEXT, batch=4)
    same_route(a, b)
    assert a.margin == pytest.approx(b.margin, rel=1e-4) and list(a.residuals) == list(b.residuals)
    assert b.scouts is None and set(a.scouts) == set(bank.names)


def test_a_cascade_counts_the_winners_tra_alone():
    rule = Scoring(parts=4)
    bank, scouts = in_memory(4, rule=rule), in_memory(4, SMALL, seed=7)
    cut = Cascade(scouts, bank, 3)
    found, full = cut.route(TEXT, batch=4), cut.route(TEXT, batch=4, tra_of_all=True)
    assert found.tra == {full.nearest: full.tra[full.nearest]}
    assert list(full.tra) == list(full.residuals) and len(full.tra) == 3
    assert (found.p_values, found.expert) == (full.p_values, full.expert)
    assert found.residuals == pytest.approx(full.residuals, rel=1e-6)
    exact = router.route(bank, TEXT, batch=4, tra_of_all=True)
    assert found.tra[found.nearest] == exact.tra[found.nearest]


def test_what_cannot_be_judged_or_scored_is_not_by_a_cascade_either():
    bank, scouts = in_memory(3, rule=SAMPLE), in_memory(3, SMALL, seed=7)
    short = Cascade(scouts, in_memory(3), 2).route("abc", alpha=1)
    assert short.known is None and short.expert == short.nearest
    assert set(short.to_json()["p_values"].values()) == {None}
    batch = spread()
    batch.mask[1] = batch.tokens[1] < 0  # empty
    batch.mask[6, int(np.flatnonzero(scoring.scored(SAMPLE, TINY.window))[0]):] = False
    exact, got = router.route_all(bank, batch).expert, Cascade(scouts, bank, 2).route_all(batch)
    assert np.flatnonzero(got.expert == -1).tolist() == [1, 6]
    assert ((exact == -1) == (got.expert == -1)).all() and np.isnan(got.p_values[:, [1, 6]]).all()


def test_windows_without_a_winner_do_not_count_as_agreement():
    scouts, exact = np.array([[0.0, 1, 0], [1, 0, 1]]), np.array([[0.0, 0, np.nan], [1, 1, np.nan]])
    assert agreement(scouts, exact).tolist() == [0.5, 1]
    with pytest.raises(UserError, match="scores no token"):
        agreement(scouts[:, 2:], exact[:, 2:])


def test_scouts_that_are_the_experts_keep_the_winner():
    bank, batch = in_memory(4), spread()
    exact, got = router.route_all(bank, batch), Cascade(bank, bank, 1).route_all(batch)
    np.testing.assert_array_equal(got.expert, exact.expert)
    assert (np.isfinite(got.residuals).sum(0) == 1).all()
    assert (np.isfinite(got.p_values) == np.isfinite(got.residuals)).all()
    at = got.expert, np.arange(len(got.expert))
    np.testing.assert_allclose(got.residuals[at], exact.residuals.min(0), rtol=1e-5)
    np.testing.assert_array_equal(got.p_values[at], exact.p_values[at])
    found = Cascade(bank, bank, 1).route(TEXT)
    same_route(found, router.route(bank, TEXT))
    assert list(found.residuals) == [found.nearest] and found.margin == np.inf
    assert json.loads(json.dumps(found.to_json()))["scouts"].keys() == set(bank.names)


@pytest.mark.parametrize("keep", [1, 3])
def test_the_kept_experts_score_and_no_others(keep):
    bank, scouts, batch = in_memory(4), in_memory(4, SMALL, seed=7), spread()
    by_scout = router.route_all(scouts, batch).residuals
    exact, got = router.route_all(bank, batch), Cascade(scouts, bank, keep).route_all(batch)
    kept = np.argsort(np.argsort(by_scout, 0), 0) < keep
    np.testing.assert_array_equal(np.isfinite(got.residuals), kept)
    np.testing.assert_allclose(got.residuals[kept], exact.residuals[kept], rtol=1e-5)
    np.testing.assert_array_equal(
        got.expert, np.where(kept, exact.residuals, np.inf).argmin(0))


def test_random_scouts_keep_the_winner_at_chance():
    """Negative control: what agrees is the scouts' doing, not the cascade's."""
    bank, batch = in_memory(4), spread(400)
    exact = router.route_all(bank, batch)
    shuffled = np.random.default_rng(0).permuted(exact.residuals, axis=0)
    np.testing.assert_allclose(agreement(shuffled, exact.residuals), [0.25, 0.5, 0.75, 1],
                               atol=0.08)
    rates = [np.mean(Cascade(in_memory(4, SMALL, seed), bank, 1).route_all(batch).expert
                     == exact.expert) for seed in range(2, 12)]
    assert abs(np.mean(rates) - 0.25) < 0.15 and max(rates) < 0.9


def test_agreement_by_hand():
    exact = np.array([[1.0, 5, 5, 5], [2, 1, 9, 9], [3, 2, 1, 1]])  # winners 0, 1, 2, 2
    scouts = np.array([[1.0, 1, 1, 1], [2, 3, 2, 2], [3, 2, 1.5, 3]])  # ranks 0, 2, 1, 2
    np.testing.assert_allclose(agreement(scouts, exact), [1 / 4, 2 / 4, 1])
    np.testing.assert_allclose(agreement(exact, exact), [1, 1, 1])


def test_the_fewest_experts_that_agree_are_kept(monkeypatch):
    bank, scouts = in_memory(3), in_memory(3, SMALL, seed=7)
    # Places of the exact winner, always e0, among the scouts, for the windows of each expert.
    places = {"e0": [0] * 10, "e1": [0] * 9 + [1], "e2": [0] * 4 + [2]}
    mine = {n: windows(len(r)) for n, r in places.items()}
    by_scout = {0: [0.0, 1, 2], 1: [1.0, 0, 2], 2: [2.0, 0, 1]}
    for at_least, keep in ((0.8, 1), (0.9, 1), (0.92, 2), (0.95, 3), (1.0, 3)):
        queue = [np.array([by_scout[k] for k in r]).T for r in places.values()]
        monkeypatch.setattr(cascade, "scout_residuals", lambda *a, q=queue, **k: q.pop(0))
        monkeypatch.setattr(router, "route_all", lambda b, w, **k: router.WindowRoutes(
            np.tile([[0.0], [1.0], [2.0]], len(w.tokens)), w.document, np.zeros((3, 1))))
        choice = choose_keep(scouts, bank, mine, at_least=at_least)
        assert choice.agreement == pytest.approx(((1 + 0.9 + 0.8) / 3, (1 + 1 + 0.8) / 3, 1))
        assert (choice.keep, choice.windows) == (keep, 25)


def test_trained_scouts_need_one_expert_and_unknown_text_stays_unknown():
    bank = trained_bank()
    mine = {f"e{i}": windows(100, 500 + i, low, high)
            for i, (low, high) in enumerate(((97, 107), (113, 123)))}
    cut = Cascade.choose(dataclasses.replace(bank, scoring=SEEN), bank, mine)
    assert (cut.keep, cut.choice.agreement[0]) == (1, 1.0)
    assert cut.route("".join(chr(97 + i * i % 10) for i in range(200))).expert == "e0"
    assert cut.route("0123456789" * 20).expert is None


def test_no_expert_is_compiled_twice(monkeypatch):
    full, scout, whole, picks = [], [], [], []
    real, real_whole, real_take = calls.residuals_only, calls.score_experts, calls.jnp.take

    def residuals_only(model, params, tokens, *more):
        (scout if model == SMALL else full).append(tokens.shape)
        return real(model, params, tokens, *more)

    monkeypatch.setattr(calls, "residuals_only", residuals_only)
    monkeypatch.setattr(
        calls, "score_experts", lambda *a: whole.append(a[2].shape) or real_whole(*a))
    monkeypatch.setattr(calls.jnp, "take",
                        lambda *a, **k: picks.append(a[1].shape) or real_take(*a, **k))
    jax.clear_caches()
    some = Cascade(in_memory(6, SMALL, seed=7), in_memory(6), 2)
    some.route_all(spread(), batch=4)
    assert set(full) == {(4, 16), (1, 16)} and len(full) == 2 and scout == [(4, 16)]
    leaves = len(jax.tree.leaves(some.bank.params))
    assert picks == [(1,)] * leaves
    some.route_all(spread(160), batch=4)
    assert (len(full), len(scout), len(picks)) == (2, 1, leaves) and not whole
    some.route(TEXT, batch=4)  # two experts side by side, and their TRA: one program more
    some.route(TEXT.upper(), batch=4)
    some.route("0" * 500, batch=4)
    assert (len(full), len(scout), len(whole)) == (2, 1, 1)
    assert picks == [(1,)] * leaves + [(2,)] * leaves


def test_calls_are_nearly_full_and_cover_every_place():
    for batch in (1, 4, 11, 64):
        for n in range(200):
            calls = list(full_calls(np.arange(n), batch))
            assert [i for at, _ in calls for i in at] == list(range(n))
            assert all(0.75 * rows <= len(at) <= rows for at, rows in calls)
    assert [rows for _, rows in full_calls(np.arange(85), 64)] == [64, 16, 4, 1]
    assert [rows for _, rows in full_calls(np.arange(63), 64)] == [64]


def test_a_sample_scores_its_positions_as_the_whole_rule_does():
    whole, params, batch = Scoring(parts=4, hidden=2), one(in_memory(1, SMALL).params, 0), spread()

    @jax.jit
    def by_passes(params, tokens, mask):
        return [scoring.residual_nll(models.Autoencoder(SMALL), params, tokens, mask,
                                     dataclasses.replace(whole, passes=n)) for n in range(5)]

    got = [np.asarray(x) for x in by_passes(params, batch.tokens, batch.mask)]
    for passes, count in ((0, 16), (1, 8), (2, 12), (3, 16), (4, 16)):
        at = scoring.scored(dataclasses.replace(whole, passes=passes), 16)
        assert at.sum() == count
        np.testing.assert_array_equal(np.isfinite(got[passes]), np.tile(at, (16, 1)))
    np.testing.assert_array_equal(got[4], got[0])
    # What only the first of two passes hides is its own; where both score, the mean counts.
    first, second = (scoring.places(whole, 16)[i] for i in (0, 1))
    only, both = np.setdiff1d(first, second), np.intersect1d(first, second)
    np.testing.assert_allclose(got[2][:, only], got[1][:, only], rtol=1e-5)
    assert (got[2][:, both] != got[1][:, both]).all()


def test_means_and_calibration_of_a_sample_count_scored_tokens_only():
    bank, batch = in_memory(2, rule=SAMPLE), spread()
    at = scoring.scored(SAMPLE, 16)
    residual = router.score_stats(bank, batch).residual
    by_hand = np.array([[np.mean(r[m & at]) for r, m in zip(e, batch.mask)] for e in residual])
    np.testing.assert_allclose(router.route_all(bank, batch).residuals, by_hand, rtol=1e-6)
    full = batch.mask.all(1)
    made = router.calibrate(TINY, one(bank.params, 0), batch, scoring=SAMPLE)
    np.testing.assert_allclose(made.residuals[16], np.sort(by_hand[0, full]), rtol=1e-5)
    found = router.route(bank, batch)
    assert found.residuals["e1"] == pytest.approx(
        residual[1][batch.mask & at[None]].mean(), rel=1e-6)
    with pytest.raises(UserError, match="too short"):
        router.route(bank, "x" * int(np.flatnonzero(at)[0]))


def test_scouts_score_what_single_scouts_score():
    scouts, batch = in_memory(4, SMALL, seed=7, rule=SAMPLE), spread()
    sums, counts = cascade.scout_sums(scouts, batch, 4)
    own = scoring.residual_sums(router.score_stats(scouts, batch).residual, batch.mask, SAMPLE)
    np.testing.assert_allclose(sums, own[0], rtol=1e-5)
    np.testing.assert_array_equal(counts, own[1])
    seen = cascade.scout_sums(in_memory(4, SMALL, seed=7), batch, 4)[0]
    for e in range(4):
        alone = np.asarray(score_small(one(scouts.params, e), batch.tokens, batch.mask))
        np.testing.assert_allclose(seen[e], np.sum(alone * batch.mask, -1), rtol=1e-5)


@jax.jit
def score_small(params, tokens, mask):
    h, _ = models.Autoencoder(SMALL).apply(params, tokens, mask)
    return objective.token_scores(h, models.head(SMALL, params), tokens).nll


def test_short_texts_are_scored_at_all_positions():
    scouts, bank = in_memory(4, SMALL, seed=7, rule=SAMPLE), in_memory(4)
    batch = spread()
    whole = dataclasses.replace(scouts, scoring=dataclasses.replace(SAMPLE, passes=0))
    np.testing.assert_allclose(  # 4 of 16 positions are fewer than 8: all passes
        cascade.scout_residuals(scouts, batch), cascade.scout_residuals(whole, batch), rtol=1e-6)
    brief = Cascade(scouts, bank, 1).route("ab")
    want = cascade.scout_residuals(whole, next(windows_of_text(BYTES, "ab", 16, 1)))[:, 0]
    assert brief.scouts == pytest.approx(dict(zip(bank.names, want, strict=True)))
    assert brief.nearest == bank.names[want.argmin()]


def test_scouts_with_a_smaller_window_read_each_part_alone():
    narrow = dataclasses.replace(SMALL, window=4)
    scouts, batch = in_memory(4, narrow, seed=7), spread()
    parts = Windows(batch.tokens.reshape(-1, 4), batch.mask.reshape(-1, 4), np.zeros(64, np.int64))
    sums, counts = cascade.scout_sums(scouts, batch, 16)
    each, of_each = scoring.residual_sums(
        router.score_stats(scouts, parts).residual, parts.mask, SEEN)
    np.testing.assert_allclose(sums, each.reshape(4, 16, 4).sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(counts, of_each.reshape(16, 4).sum(-1))
    assert np.isfinite(sums).all()
    found = Cascade(scouts, in_memory(4), 4).route(TEXT, batch=4)
    assert found.residuals == pytest.approx(router.route(in_memory(4), TEXT, batch=4).residuals)


def test_a_document_is_chosen_by_the_sums_over_its_windows():
    scouts, bank, batch = in_memory(4, SMALL, seed=7), in_memory(4), spread()
    cut = Cascade(scouts, bank, 2)
    found = cut.route(batch, batch=4)
    sums, counts = cascade.scout_sums(scouts, batch, 4)
    want = dict(zip(bank.names, sums.sum(-1) / counts.sum(), strict=True))
    assert found.scouts == pytest.approx(want)
    assert set(found.residuals) == set(sorted(want, key=want.get)[:2])
    exact = router.route(bank, batch, batch=4)
    assert found.residuals == pytest.approx({n: exact.residuals[n] for n in found.residuals})
    for size in (1, 7):
        parts = (TEXT[i:i + size] for i in range(0, len(TEXT), size))
        assert cut.route(parts, batch=4) == cut.route(TEXT, batch=4)


def test_the_head_is_all_that_scouts_read(monkeypatch):
    scouts, bank = in_memory(4, SMALL, seed=7), in_memory(4)
    monkeypatch.setattr(spool, "MOST", 100)  # the rest lies in a file
    head = Cascade(scouts, bank, 1, head=6).route(TEXT, batch=4)
    first = Cascade(scouts, bank, 1).route(TEXT[:6 * 16], batch=4)
    assert head.scouts == first.scouts and head.tokens == len(TEXT)
    rest = Cascade(scouts, bank, 1).route(TEXT, batch=4)
    assert rest.scouts != head.scouts
    assert head.residuals[head.nearest] == pytest.approx(
        router.route(bank, TEXT, batch=4).residuals[head.nearest])


def test_scouts_come_in_any_order():
    scouts, bank = in_memory(4, SMALL, seed=7), in_memory(4)
    turned = Cascade(scouts.select(["e2", "e0", "e3", "e1"]), bank, 2)
    assert turned.route(TEXT) == Cascade(scouts, bank, 2).route(TEXT)


def test_scouts_of_another_bank_are_refused():
    bank, scouts = in_memory(3), in_memory(3, SMALL)
    cases = {
        "no scout for e2": lambda: Cascade(in_memory(2, SMALL), bank, 1),
        "e3": lambda: Cascade(in_memory(4, SMALL), bank, 1),
        "tokenizer": lambda: Cascade(
            in_memory(3, SMALL, tokenizer=tiny_bank.OtherTokenizer()), bank, 1),
        "divide": lambda: Cascade(
            in_memory(3, dataclasses.replace(SMALL, window=12)), bank, 1),
        "keep=0": lambda: Cascade(scouts, bank, 0), "keep=4": lambda: Cascade(scouts, bank, 4),
        "head": lambda: Cascade(scouts, bank, 1, head=-1),
        "no experts": lambda: Cascade(in_memory(0, SMALL), in_memory(0), 1),
        "empty": lambda: Cascade(scouts, bank, 1).route(""),
        "alpha": lambda: Cascade(scouts, bank, 1).route("x", alpha=2.0),
        "for e1, e2": lambda: choose_keep(scouts, bank, {"e0": windows(3)}),
        "at_least": lambda: choose_keep(scouts, bank, {}, at_least=1.5),
        "not measured": lambda: Cascade(scouts, bank, 1).save(),
        "memory only": lambda: Cascade(scouts, bank, 1, choice=Choice(1, 0.5, (1.0,), 9)).save()}
    for word, call in cases.items():
        with pytest.raises(UserError) as caught:
            call()
        assert word in str(caught.value) and "\n" not in str(caught.value)


def stored(folder, bank):
    made = ExpertBank.create(folder, bank.model, bank.tokenizer, bank.scoring)
    for name in bank.names:
        made.add(name, bank.expert_params(name), bank.calibration[name])
    return made


def test_the_choice_is_stored_with_the_scouts_and_bound_to_both_banks(tmp_path):
    bank = stored(tmp_path / "bank", in_memory(3))
    scouts = stored(tmp_path / "scouts", in_memory(3, SMALL, seed=7, rule=SAMPLE))
    with pytest.raises(UserError, match="how many experts"):
        Cascade.load(tmp_path / "bank", tmp_path / "scouts")
    assert Cascade.load(tmp_path / "bank", tmp_path / "scouts", keep=2).keep == 2
    made = Cascade.choose(scouts, bank, {n: windows(9) for n in bank.names}, at_least=0.5, head=3)
    made.save()
    again = Cascade.load(tmp_path / "bank", tmp_path / "scouts")
    assert (again.keep, again.head, again.choice) == (made.keep, 3, made.choice)
    assert again.route(TEXT) == made.route(TEXT)
    assert scouts.verify() == [] == bank.verify()
    raw = (tmp_path / "scouts" / "cascade.json").read_bytes()
    (tmp_path / "scouts" / "cascade.json").write_bytes(raw.replace(b'"head": 3', b'"head": 4'))
    with pytest.raises(UserError, match="changed"):
        Cascade.load(tmp_path / "bank", tmp_path / "scouts")
    (tmp_path / "scouts" / "cascade.json").write_bytes(raw)
    bank.remove("e1")
    bank.add("e1", one(fresh(9), 8), FLAT)
    with pytest.raises(UserError, match="other experts"):
        Cascade.load(tmp_path / "bank", tmp_path / "scouts")


@pytest.mark.parametrize("bad", [
    dict(keep=0), dict(keep=3), dict(keep=True), dict(windows=0), dict(at_least=2.0),
    dict(agreement=()), dict(agreement=(0.5, float("nan"))), dict(at_least=0.9, keep=1)])
def test_choices_that_make_no_sense(bad):
    good = dict(keep=2, at_least=0.6, agreement=(0.5, 1.0), windows=7)
    Choice(**good)
    with pytest.raises(UserError, match="choose again"):
        Choice(**{**good, **bad})


def test_the_command_says_what_the_api_says(tmp_path, capsys):
    stored(tmp_path / "bank", in_memory(3))
    stored(tmp_path / "scouts", in_memory(3, SMALL, seed=7))
    (tmp_path / "a.txt").write_text(TEXT)
    words = ["route", "--bank", str(tmp_path / "bank"), str(tmp_path / "a.txt")]
    pair = ["--scouts", str(tmp_path / "scouts")]

    def call(*more):
        return main([*words, *more]), *capsys.readouterr()

    status, _, error = call(*pair)  # no choice was stored
    assert status == 2 and "how many experts" in error and error.count("\n") == 1
    status, _, error = call("--keep", "1")
    assert status == 2 and "--scouts" in error
    want = Cascade.load(tmp_path / "bank", tmp_path / "scouts", keep=2).route(TEXT)
    status, out, error = call(*pair, "--keep", "2", "--json")
    assert (status, error) == (0, "")
    said = json.loads(out)
    assert {k: said[k] for k in want.to_json()} == want.to_json()
    assert len(said["residuals"]) == 2 and len(said["scouts"]) == 3
    status, out, _ = call(*pair, "--keep", "1", "--explain")
    assert status == 0 and "the only one of 3 experts that the scouts kept" in out
    assert "scouts" not in call()[1]


def test_a_cascade_reads_a_head_and_refuses_calls_of_no_size():
    cut = Cascade(in_memory(3, SMALL, seed=7), in_memory(3), 2)
    seen = []
    found = cut.route(TEXT, head=3, batch=2, on_block=seen.append)
    assert found == cut.route(TEXT[:3 * TINY.window], batch=2)
    assert [len(block) for block in seen] == [2, 1]
    for call in (lambda: cut.route(TEXT, batch=0), lambda: cut.route_all(spread(), expert_chunk=0)):
        with pytest.raises(UserError, match="whole number"):
            call()
