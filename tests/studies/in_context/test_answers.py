"""Who answers a prompt, by experts whose behaviour is known, and by trained ones."""

import made_experts
import numpy as np
import pytest
import tiny_bank

from cr_jax.data.windows import windows_of
from cr_jax.router import score
from cr_jax.routing.options import SegmentOptions
from cr_jax.studies.in_context import prompts
from cr_jax.studies.in_context.answers import answer, token_nats

QUICK = SegmentOptions(switch=3.0, minimum=4)
KS = (0, 1, 2, 4)


def asked(monkeypatch, residual, block=(8, 8), query=(10, 10), **more):
    made_experts.use(monkeypatch, residual, **more)
    shots = prompts.shots(made_experts.own(), KS, block, query, 24, seed=1)
    return {k: (answer(made_experts.bank(), of, options=QUICK), of) for k, of in shots.items()}


def test_context_changes_nothing_for_experts_that_do_not_read_it(monkeypatch):
    found = asked(monkeypatch, made_experts.steady)
    for k, (answers, of) in found.items():
        domains = np.array([p.domain for p in of])
        for mode in ("carried", "reset", "segment", "rebuild"):
            assert (answers.winners(mode) == domains).all() and not answers.flipped(mode).any()
        assert answers.found.all()
        assert answers.margin("reset", domains) == pytest.approx(3.0)
        # The mean over all tokens is a vote: from two blocks on the others have more.
        assert answers.flipped("whole").mean() == (k >= 2)
    assert np.isnan(found[0][0].means["before"]).all()
    before = found[2][0].means["before"].argmin(1)
    assert (before == [p.other for p in found[2][1]]).all()


def test_experts_swayed_by_context_flip_until_the_window_begins_anew(monkeypatch):
    found = asked(monkeypatch, made_experts.swayed, block=(12, 12), query=(4, 4))
    answers, of = found[1]  # 12 tokens of another domain, then the query, in one window
    assert answers.flipped("carried").all() and answers.flipped("last").all()
    assert (answers.winners("carried") == [p.other for p in of]).all()
    assert (answers.winners("reset") == [p.domain for p in of]).all()
    assert not answers.flipped("rebuild").any()  # by made costs that read no context
    answers, _ = found[4]  # 48 tokens: a window begins with the query
    assert not answers.flipped("carried").any() and answers.flipped("whole").all()


def test_answers_of_some_prompts_are_those_of_all(monkeypatch):
    answers, of = asked(monkeypatch, made_experts.learning)[1]
    some = answer(made_experts.bank(), of[3:7], options=QUICK)
    part = answers.take(slice(3, 7))
    for mode, means in some.means.items():
        np.testing.assert_array_equal(part.means[mode], means)
    assert (part.segment == some.segment).all() and (part.found == some.found).all()


def test_tokens_cost_what_the_router_says():
    bank = made_experts.bank()
    texts = [np.arange(97, 97 + n, dtype=np.int32) for n in (5, 20, 5)]
    for (nats, rebuilt), ids in zip(token_nats(bank, texts), texts, strict=True):
        cut = windows_of(ids, 16, bank.tokenizer.pad_id)
        by_router = score(bank, cut)[:, cut.mask]
        np.testing.assert_allclose(nats, by_router, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(rebuilt, by_router, rtol=1e-5, atol=1e-5)  # the bank's rule
    assert token_nats(bank, []) == []


def test_two_alphabets_are_told_in_a_prompt():
    own = {
        n: tiny_bank.windows(40, i, low, low + 10)
        for i, (n, low) in enumerate((("e0", 97), ("e1", 113)))
    }
    shots = prompts.shots(own, (0, 4), (8, 24), (20, 20), 20, seed=0)
    answers = answer(tiny_bank.trained_bank(), shots[4], options=QUICK)
    assert answers.flipped("whole").mean() > 0.8
    assert answers.flipped("last").mean() < 0.2 and answers.flipped("segment").mean() < 0.2
