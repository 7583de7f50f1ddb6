"""No text chooses the expert that it is scored by; mixtures are what plain arithmetic says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cr_jax.errors import UserError
from cr_jax.modular import schedule
from cr_jax.modular.schedule import SEED

E, B, L = 4, 3, 24


def nats(seed=0, experts=E, length=L):
    """nll of experts each of which is better for stretches of the text."""
    rng = np.random.default_rng(seed)
    ahead = np.repeat(rng.normal(0, 1, (experts, B, -(-length // 6))), 6, axis=2)[..., :length]
    return (4 + ahead + rng.normal(0, 0.3, (experts, B, length))).astype(np.float32)


def full(length=L):
    return np.ones((B, length), bool)


def bigrams(seed=0):
    return nats(100 + seed)


# Everything that decides: evidence [E, B, L] -> an array whose last axis is the token decided for.
SCHEDULERS = {
    "prefix": lambda x, m: schedule.by_prefix(x, m, 7).expert,
    "past": lambda x, m: schedule.by_past(x, m, 5).expert,
    "past, last tokens": lambda x, m: schedule.by_past(x, m, 5, memory=4).expert,
    "past, every token": lambda x, m: schedule.by_past(x, m, 1).expert,
    "posterior": lambda x, m: schedule.by_posterior(x, m, 3).expert,
    "best by prefix": lambda x, m: schedule.best_by_prefix(x, m, 2, 7),
    "best by past": lambda x, m: schedule.best_by_past(x, m, 2, 5),
    "mixture": lambda x, m: schedule.mixture(x, m).weights,
    "mixture of the best": lambda x, m: (
        schedule.mixture(x, m, switch=0.1, allowed=schedule.best_by_past(x, m, 2, 5)).weights
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@settings(max_examples=20, deadline=None)
@given(at=st.integers(0, L - 1), seed=st.integers(0, 1000))
def test_later_tokens_change_no_earlier_decision(name, at, seed):
    x, decide = nats(seed), SCHEDULERS[name]
    other = x.copy()
    other[:, :, at:] = nats(seed + 5000)[:, :, at:]
    other[0, :, L - 1] = np.nan  # what is not a number reaches nobody either
    before, after = (np.asarray(decide(y, full())) for y in (x, other))
    assert np.array_equal(before[..., : at + 1], after[..., : at + 1])


@pytest.mark.parametrize("name", SCHEDULERS)
def test_an_earlier_token_does_change_decisions(name):
    x, decide = nats(), SCHEDULERS[name]
    other = x.copy()
    last = 6 if "prefix" in name else 19
    worst = np.asarray(schedule.prefix_nats(x, full(), last + 1)).argmax(0)
    other[worst, np.arange(B), last] -= 1000.0
    before, after = (np.asarray(decide(y, full())) for y in (x, other))
    assert not np.array_equal(before, after)
    assert np.array_equal(before[..., : last + 1], after[..., : last + 1])


def by_hand(x, chosen):
    return np.stack([[x[chosen[b, t], b, t] for t in range(x.shape[2])] for b in range(B)])


def test_the_prefix_is_the_seed_s_and_the_rest_the_nearest_expert_s():
    x, seed = nats(), nats(9)[0]
    found = schedule.by_prefix(x, full(), 7)
    wanted = x[:, :, :7].astype(np.float64).sum(-1).argmin(0)
    assert (np.asarray(found.expert[:, :7]) == SEED).all() and not found.unknown.any()
    assert (np.asarray(found.expert[:, 7:]) == wanted[:, None]).all()
    said = np.asarray(schedule.spoken(found, x, seed))
    assert np.array_equal(said[:, :7], seed[:, :7])
    assert np.array_equal(said[:, 7:], by_hand(x, np.repeat(wanted[:, None], L, 1))[:, 7:])
    assert np.isnan(schedule.spoken(found, x)[:, :7]).all()  # a seed that is not there says nothing


def test_evidence_may_be_another_s_than_what_is_spoken():
    x, other = nats(), bigrams()
    found = schedule.by_prefix(other, full(), 7)
    assert np.array_equal(found.expert[:, 8], other[:, :, :7].sum(-1).argmin(0))
    assert not np.array_equal(found.expert, schedule.by_prefix(x, full(), 7).expert)


def test_deciding_again_is_the_prefix_s_decision_until_the_second_time():
    x = nats()
    once, again = schedule.by_prefix(x, full(), 6), schedule.by_past(x, full(), 6)
    assert np.array_equal(once.expert[:, :12], again.expert[:, :12])
    assert not np.array_equal(once.expert, again.expert)
    never = schedule.by_past(x, full(), L)
    assert (np.asarray(never.expert) == SEED).all()
    assert np.array_equal(never.expert, schedule.by_prefix(x, full(), L + 5).expert)


def test_a_short_memory_reads_the_last_tokens_only():
    x = nats()
    x[2] -= 100.0 * (np.arange(L) < 4)  # expert 2 is far ahead, long ago
    assert (np.asarray(schedule.by_past(x, full(), 8).expert[:, 8:]) == 2).all()
    found = np.asarray(schedule.by_past(x, full(), 8, memory=3).expert)
    for t in (8, 16):
        assert np.array_equal(found[:, t], x[:, :, t - 3 : t].astype(np.float64).sum(-1).argmin(0))
    whole = schedule.by_past(x, full(), 8, memory=L)
    assert np.array_equal(whole.expert, schedule.by_past(x, full(), 8).expert)


def test_padding_and_what_is_not_finite_choose_nobody():
    x, mask = nats(), full()
    mask[1, 5:] = False
    other = np.where(mask[None], x, np.nan)
    a, b = (schedule.by_prefix(y, mask, 7).expert for y in (x, other))
    assert np.array_equal(a, b)
    other = x.copy()
    best = x[:, :, :7].sum(-1).argmin(0)
    other[best, np.arange(B), 3] = np.nan
    assert (np.asarray(schedule.by_prefix(other, mask, 7).expert[:, 7]) != best).all()
    nobody = np.full_like(x, np.nan)
    assert (np.asarray(schedule.by_prefix(nobody, mask, 7).expert) == SEED).all()
    assert (np.asarray(schedule.by_past(nobody, mask, 5, memory=2).expert) == SEED).all()


def test_another_fallback_speaks_the_prefix():
    places = jnp.asarray([2, 0, 1])
    found = schedule.by_prefix(nats(), full(), 7, places).expert
    assert np.array_equal(found[:, :7], np.repeat(places[:, None], 7, 1))
    assert (np.asarray(schedule.by_past(nats(), full(), 5, fallback=3).expert[:, :5]) == 3).all()


@pytest.mark.parametrize("of_tokens", [False, True])
def test_unknown_text_is_the_seed_s_and_the_schedule_says_so(of_tokens):
    known = schedule.by_prefix(nats(), full(), 7)
    unknown = np.array([True, False, False])
    if of_tokens:
        unknown = unknown[:, None] & (np.arange(L) >= 10)
    found = schedule.with_unknown(known, unknown)
    told = unknown if of_tokens else np.repeat(unknown[:, None], L, 1)
    assert np.array_equal(found.unknown, told)
    assert (np.asarray(found.expert)[told] == SEED).all()
    assert np.array_equal(np.asarray(found.expert)[~told], np.asarray(known.expert)[~told])
    assert (np.asarray(known.expert)[told] != SEED).any()


def plain_mixture(x, mask, prior, switch, allowed=None):
    """The same in float64, token by token."""
    x, prior = x.astype(np.float64), np.asarray(prior, np.float64)
    prior = prior / prior.sum()
    said, weights = np.zeros((B, L)), np.zeros(x.shape)
    for b in range(B):
        w = prior.copy()
        for t in range(L):
            now = w if allowed is None else w * allowed[:, b, t]
            now = now / now.sum()
            weights[:, b, t] = now
            if not mask[b, t]:
                continue
            joint = now * np.exp(-x[:, b, t])
            said[b, t] = -np.log(joint.sum())
            w = (1 - switch) * joint / joint.sum() + switch * prior
    return said, weights


@pytest.mark.parametrize("switch", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("form", ["all", "prior", "best"])
def test_a_mixture_is_the_sum_in_float64(switch, form):
    x, mask = nats(), full()
    mask[2, 15:] = False
    prior = np.array([0.1, 0.2, 0.3, 0.4]) if form == "prior" else np.ones(E)
    allowed = np.asarray(schedule.best_by_prefix(x, mask, 2, 6)) if form == "best" else None
    found = schedule.mixture(x, mask, jnp.asarray(prior, jnp.float32), switch, allowed)
    said, weights = plain_mixture(x, mask, prior, switch, allowed)
    np.testing.assert_allclose(found.nats, said, atol=2e-5)
    np.testing.assert_allclose(found.weights, weights, atol=2e-5)
    np.testing.assert_allclose(np.asarray(found.weights).sum(0), 1, atol=1e-5)
    uniform = schedule.mixture(x, mask, switch=switch, allowed=allowed)
    assert np.allclose(uniform.nats, found.nats, atol=1e-5) == (form != "prior")


def test_the_best_of_all_is_all_and_the_best_one_is_the_prefix_s_choice():
    x = nats()
    everybody = schedule.best_by_prefix(x, full(), E, 6)
    a, b = schedule.mixture(x, full()), schedule.mixture(x, full(), allowed=everybody)
    np.testing.assert_allclose(a.nats, b.nats, atol=1e-6)
    one = schedule.best_by_prefix(x, full(), 1, 6)
    top = schedule.by_prefix(x, full(), 6)
    said = schedule.mixture(x, full(), allowed=one).nats
    np.testing.assert_allclose(said[:, 6:], schedule.spoken(top, x)[:, 6:], atol=1e-5)
    moving = np.asarray(schedule.best_by_past(x, full(), 1, 6)).argmax(0)[:, 6:]
    assert np.array_equal(moving, schedule.by_past(x, full(), 6).expert[:, 6:])


def test_one_expert_without_switches_is_that_expert():
    x = nats(experts=1)
    np.testing.assert_allclose(schedule.mixture(x, full(), switch=0.0).nats, x[0], atol=1e-6)


def test_a_mixture_without_switches_loses_no_more_than_the_prior():
    x = nats()
    said = np.asarray(schedule.mixture(x, full(), switch=0.0).nats).sum(-1)
    best = x.sum(-1).min(0)
    assert (said <= best + np.log(E) + 1e-3).all() and (said > best - 1e-3).all()


def test_a_switching_prior_follows_a_text_that_changes_hands():
    x = np.full((2, B, 200), 5.0, np.float32)
    x[0, :, :100], x[1, :, 100:] = 1.0, 1.0
    mask = np.ones((B, 200), bool)
    stay, move = (schedule.mixture(x, mask, switch=s) for s in (0.0, 0.01))
    assert (np.asarray(move.weights[1, :, 110:]) > 0.9).all()
    assert np.asarray(move.nats)[:, 100:].mean() < 1.2 < np.asarray(stay.nats)[:, 100:].mean()


def test_who_decides_by_the_posterior_follows_a_text_that_changes_hands():
    x = np.full((2, B, 200), 3.0, np.float32)
    x[0, :, :100], x[1, :, 100:] = 1.0, 1.0
    mask = np.ones((B, 200), bool)
    late, soon = (f(x, mask, 8).expert for f in (schedule.by_past, schedule.by_posterior))
    assert (np.asarray(soon[:, :8]) == SEED).all()
    assert (np.asarray(soon[:, 8:104]) == 0).all() and (np.asarray(soon[:, 112:]) == 1).all()
    assert (np.asarray(late[:, 112:192]) == 0).all()  # all of the past outweighs the new text
    x[0] = np.nan  # not to be chosen
    assert (np.asarray(schedule.by_posterior(x, mask, 8).expert[:, 8:]) == 1).all()
    x[:] = np.nan
    assert (np.asarray(schedule.by_posterior(x, mask, 8).expert) == SEED).all()


def test_experts_without_a_probability_and_tokens_that_none_foresaw():
    x = nats()
    x[1, :, 3] = np.inf
    x[2, :, 4] = np.nan
    x[:, :, 8] = np.inf
    found = schedule.mixture(x, full(), switch=0.05)
    weights, said = np.asarray(found.weights), np.asarray(found.nats)
    assert np.isfinite(weights).all() and np.isinf(said[:, 8]).all()
    assert np.isfinite(np.delete(said, 8, 1)).all()
    np.testing.assert_allclose(weights[1, :, 4], 0.05 / E, atol=1e-6)
    np.testing.assert_allclose(weights.sum(0), 1, atol=1e-5)


def test_mixed_predictions_sum_to_one_over_the_vocabulary():
    vocabulary, rng = 5000, np.random.default_rng(0)
    logits = rng.normal(0, 6, (B, E, vocabulary)).astype(np.float32)
    logits[:, 1, : vocabulary // 2] = -np.inf  # an expert that rules half of it out
    log_probs = jax.nn.log_softmax(jnp.asarray(logits))
    x, at = nats(), 11
    weights = jnp.moveaxis(schedule.mixture(x, full()).weights[:, :, at], 0, 1)
    found = np.asarray(schedule.mix_log_probs(weights, log_probs), np.float64)
    np.testing.assert_allclose(np.exp(found).sum(-1), 1, atol=1e-5)
    plain = (np.asarray(weights, np.float64)[..., None] * np.exp(np.float64(log_probs))).sum(1)
    np.testing.assert_allclose(np.exp(found), plain, atol=1e-6)
    alone = schedule.mix_log_probs(jnp.eye(E)[:B], log_probs)  # weights of 0 and 1
    np.testing.assert_allclose(alone, log_probs[np.arange(B), np.arange(B)], atol=1e-6)
    broken = np.asarray(schedule.mix_log_probs(2 * weights, log_probs), np.float64)
    assert (np.abs(np.exp(broken).sum(-1) - 1) > 0.9).all()


def test_the_mixture_s_nats_are_those_of_its_whole_prediction():
    rng = np.random.default_rng(1)
    log_probs = np.asarray(jax.nn.log_softmax(rng.normal(0, 3, (E, B, L, 50)).astype(np.float32)))
    tokens = rng.integers(0, 50, (B, L))
    x = -np.take_along_axis(log_probs, tokens[None, ..., None], -1)[..., 0]
    found = schedule.mixture(x, full(), switch=0.02)
    for t in (0, 5, L - 1):
        whole = schedule.mix_log_probs(
            jnp.moveaxis(found.weights[..., t], 0, 1),
            jnp.moveaxis(jnp.asarray(log_probs[:, :, t]), 0, 1),
        )
        np.testing.assert_allclose(
            found.nats[:, t], -np.asarray(whole)[np.arange(B), tokens[:, t]], atol=1e-5
        )


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: schedule.by_prefix(nats(), full(), 0), "tokens=0 must be at least 1"),
        (lambda: schedule.by_past(nats(), full(), 0), "every=0 must be at least 1"),
        (lambda: schedule.by_past(nats(), full(), 4, memory=-1), "memory=-1 must be"),
        (lambda: schedule.best_by_prefix(nats(), full(), 0, 4), "keep=0 must be at least 1"),
    ],
)
def test_what_cannot_be_decided_is_one_line(call, says):
    with pytest.raises(UserError, match=says):
        call()
