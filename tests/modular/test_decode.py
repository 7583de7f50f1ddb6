"""How a token is drawn: greedy, by temperature, from the nucleus, of what may be said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cr_jax.modular import decode

DRAW = np.random.default_rng(0)
LOGITS = DRAW.normal(0, 2, (40, 50)).astype(np.float32)
LOG_PROBS = jax.nn.log_softmax(LOGITS)
NUMBER = jnp.zeros(40, jnp.int32)
RULE = decode.Rule()


def sampling(temperature=1.0, top_p=1.0, allowed=None, seed=0):
    keys = jax.random.split(jax.random.key(seed), 40)
    may = np.ones(50, bool) if allowed is None else allowed
    return decode.Sampling(
        jnp.float32(temperature), jnp.float32(top_p), keys, jnp.asarray(may), jnp.int32(0)
    )


def by_sorting(p, top_p):
    """The nucleus as it is defined: the likeliest ids until they have top_p together."""
    order = np.argsort(-p, kind="stable")
    count = int(np.searchsorted(np.cumsum(p[order].astype(float)), top_p)) + 1
    return set(order[:count].tolist())


@pytest.mark.parametrize("top_p", [1e-6, 0.1, 0.5, 0.9, 0.99])
def test_the_nucleus_is_what_sorting_gives(top_p):
    p = np.asarray(jnp.exp(LOG_PROBS))
    found = np.asarray(jax.jit(decode.nucleus)(p, top_p))
    for row, kept in zip(p, found):
        assert set(np.flatnonzero(kept).tolist()) == by_sorting(row, top_p)


def test_equally_likely_ids_stay_together_and_nothing_is_kept_of_zeros():
    p = np.array([[0.25, 0.25, 0.25, 0.25, 0], [0.5, 0.2, 0.2, 0.1, 0]], np.float32)
    found = np.asarray(decode.nucleus(jnp.asarray(p), 0.6))
    assert found.tolist() == [[True] * 4 + [False], [True] * 3 + [False] * 2]


def test_greedy_is_the_likeliest_allowed_id():
    best = LOGITS.argmax(-1)
    rule = decode.Rule(greedy=True)
    assert (decode.next_token(LOG_PROBS, sampling(), NUMBER, rule) == best).all()
    allowed = np.ones(50, bool)
    allowed[best[0]] = False
    found = np.asarray(decode.next_token(LOG_PROBS, sampling(allowed=allowed), NUMBER, rule))
    assert found[0] == np.where(allowed, LOGITS[0], -np.inf).argmax() != best[0]


def draws(count=2000, rule=RULE, **more):
    """Ids drawn for the first row at `count` numbers of a token."""
    s = sampling(**more)
    one = s._replace(keys=s.keys[:1])
    row = LOG_PROBS[:1]
    return np.asarray(
        jax.vmap(lambda n: decode.next_token(row, one, n[None], rule)[0])(jnp.arange(count))
    )


def test_draws_follow_the_probabilities_and_the_temperature():
    p = np.exp(LOG_PROBS[0])
    shares = np.bincount(draws(), minlength=50) / 2000
    assert np.abs(shares - p).max() < 0.04
    cold = np.bincount(draws(temperature=0.1), minlength=50) / 2000
    sharp = np.exp(LOG_PROBS[0] * 10)
    assert np.abs(cold - sharp / sharp.sum()).max() < 0.04
    assert np.abs(cold - p).max() > 0.2


def test_draws_stay_in_the_nucleus_and_among_allowed_ids():
    inside = by_sorting(np.exp(np.asarray(LOG_PROBS[0])), 0.7)
    assert set(draws(top_p=0.7).tolist()) == inside
    assert not set(draws(rule=decode.Rule(nucleus=False)).tolist()) <= inside
    allowed = np.ones(50, bool)
    allowed[list(inside)] = False
    assert not set(draws(allowed=allowed).tolist()) & inside


def test_seeds_texts_and_numbers_draw_apart():
    rule = decode.Rule()
    rows = jnp.broadcast_to(LOG_PROBS[:1], LOG_PROBS.shape)
    a, b = (np.asarray(decode.next_token(rows, sampling(seed=s), NUMBER, rule)) for s in (0, 1))
    later = np.asarray(decode.next_token(rows, sampling(), NUMBER + 1, rule))
    again = np.asarray(decode.next_token(rows, sampling(), NUMBER, rule))
    assert (a == again).all() and (a != b).any() and (a != later).any() and len(set(a)) > 5
