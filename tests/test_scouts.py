"""What scouts score of windows, of a document and of its head, and whose scouts they may be."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_bank
from tiny_bank import BYTES, SAMPLE, SMALL, TEXT, in_memory, one, spread, windows

from cr_jax import cascade, models, objective, router, scoring, spool
from cr_jax.cascade import Cascade, choose_keep
from cr_jax.cascade_record import Choice
from cr_jax.config import SEEN
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.text_windows import windows_of_text


@jax.jit
def score_small(params, tokens, mask):
    h, _ = models.Autoencoder(SMALL).apply(params, tokens, mask)
    return objective.token_scores(h, models.head(SMALL, params), tokens).nll


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
        "margin=-0.1": lambda: Cascade(scouts, bank, 1, margin=-0.1),
        "margin=nan": lambda: Cascade(scouts, bank, 1, margin=float("nan")),
        "margin=inf": lambda: Cascade(scouts, bank, 1, margin=float("inf")),
        "see e2, e9": lambda: Cascade(scouts, bank, 1, offsets={"e0": 0.0, "e1": 0.0, "e9": 0.0}),
        "see e1": lambda: Cascade(scouts, bank, 1, offsets={"e0": 0.0, "e2": 0.0}),
        "e1=-1.0, e2=nan": lambda: Cascade(
            scouts, bank, 1, offsets={"e0": 0.0, "e1": -1.0, "e2": float("nan")}),
        "no experts": lambda: Cascade(in_memory(0, SMALL), in_memory(0), 1),
        "empty": lambda: Cascade(scouts, bank, 1).route(""),
        "alpha": lambda: Cascade(scouts, bank, 1).route("x", alpha=2.0),
        "for e1, e2": lambda: choose_keep(scouts, bank, {"e0": windows(3)}),
        "e0 has a single": lambda: choose_keep(scouts, bank, dict.fromkeys(bank.names, windows(1))),
        "keep must": lambda: choose_keep(
            scouts, bank, dict.fromkeys(bank.names, windows(3)), keep=0),
        "at_least": lambda: choose_keep(scouts, bank, {}, at_least=1.5),
        "not measured": lambda: Cascade(scouts, bank, 1).save(),
        "memory only": lambda: Cascade(
            scouts, bank, 1, choice=Choice(1, 0.5, 0.0, None, 1.0, 1.0, 9)).save()}
    for word, call in cases.items():
        with pytest.raises(UserError) as caught:
            call()
        assert word in str(caught.value) and "\n" not in str(caught.value)
