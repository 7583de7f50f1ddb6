"""Texts in groups get what their own expert's decoder says, and their caches stay their own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cr_jax.config import LmConfig
from cr_jax.errors import UserError
from cr_jax.models import lm
from cr_jax.models.lm import grouped

TINY = LmConfig(vocab_size=29, d_model=16, heads=4, d_ff=24, blocks=2, dtype="float32")
CONFIGS = {
    "own heads": TINY,
    "grouped queries": dataclasses.replace(TINY, kv_heads=2),
    "tied": dataclasses.replace(TINY, tie_embeddings=True),
}
EXPERTS, LENGTH = 5, 9
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 29, (6, LENGTH)), jnp.int32)
SPEAKERS = np.array([3, 0, 3, 4, 3, 0])


@functools.cache
def params(config):
    """Stacked parameters whose heads are not zeros."""
    made = jax.jit(jax.vmap(lambda k: lm.init(config, k)))(
        jax.random.split(jax.random.key(0), EXPERTS)
    )
    draw = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.1 * draw.normal(size=x.shape).astype(np.float32), made)


@functools.partial(jax.jit, static_argnums=0)
def alone(config, one, tokens):
    """log P of each next token [B, L + 1, V] by one expert's decoder, without a cache."""
    more = jnp.pad(tokens, ((0, 0), (0, 1)))
    states = lm.make_lm(config).apply(one, more)
    return jax.nn.log_softmax(states @ lm.head(config, one), -1)


prefill = jax.jit(grouped.prefill, static_argnums=(0, 5))
step = jax.jit(grouped.step, static_argnums=0)
log_probs = jax.jit(grouped.log_probs)


def some(config, experts):
    return jax.tree.map(lambda x: x[np.asarray(experts)], params(config))


def expert(config, e):
    return jax.tree.map(lambda x: x[e], params(config))


def wanted(config, tokens, speakers):
    return np.stack(
        [alone(config, expert(config, e), t[None])[0] for e, t in zip(speakers, tokens)]
    )


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_each_text_gets_what_its_own_expert_says(config):
    want = wanted(config, TOKENS, SPEAKERS)
    experts, seats = grouped.seat(SPEAKERS, EXPERTS)
    weights = grouped.weights(config, some(config, experts))
    lengths = np.array([4, 0, 2, 4, 1, 3])
    mask = jnp.asarray(np.arange(4)[None] < lengths[:, None])
    states, cache = prefill(
        config, weights, seats, jnp.where(mask, TOKENS[:, :4], 7), mask, LENGTH + 2
    )
    for more in range(4):
        found = log_probs(weights, seats, states)
        for row, length in enumerate(lengths):
            np.testing.assert_allclose(found[row], want[row, length + more], atol=2e-5)
        token = TOKENS[np.arange(6), lengths + more]
        states, cache = step(config, weights, seats, token, cache)
    assert cache.length.tolist() == (lengths + 5).tolist()
    assert {x.shape[:2] for x in cache.keys} == {(6, LENGTH + 2)}  # a row a text: no padding


def test_the_expert_matters():
    experts, seats = grouped.seat(SPEAKERS, EXPERTS)
    weights = grouped.weights(TINY, some(TINY, (experts + 1) % EXPERTS))
    states, _ = prefill(TINY, weights, seats, TOKENS, jnp.ones(TOKENS.shape, bool), LENGTH + 1)
    other = wanted(TINY, TOKENS, SPEAKERS)[:, -1]
    assert (np.abs(log_probs(weights, seats, states) - other).max(-1) > 1e-3).all()


def test_seats_are_few_shapes_and_hold_every_text_once():
    for experts in ([2], [0, 0, 0], list(range(20)), [5] * 3 + [1] * 9 + [7], SPEAKERS):
        found, seats = grouped.seat(experts, 20)
        slots, place = np.asarray(seats.slots), np.asarray(seats.place)
        groups, each = slots.shape
        assert groups in (1, 2, 4, 8, 16, 20) and len(set(place.tolist())) == len(place)
        assert (found[place // each] == experts).all()
        assert (slots.reshape(-1)[place] == np.arange(len(place))).all()
        assert each & (each - 1) == 0 or groups == 1
    assert grouped.seat([4, 4, 4], 20)[1].slots.tolist() == [[0, 1, 2]]  # in their order


def test_rows_of_a_cache_are_replaced_alone():
    experts, seats = grouped.seat([1, 2], EXPERTS)
    weights = grouped.weights(TINY, some(TINY, experts))
    full = jnp.ones((2, LENGTH), bool)
    _, one = prefill(TINY, weights, seats, TOKENS[:2], full, 12)
    _, two = prefill(TINY, weights, seats, TOKENS[2:4], full, 12)
    # The second row goes beyond the cache: fillings of a batch are written nowhere.
    both = grouped.with_rows(one, jnp.array([1, 9]), two)
    for old, other, new in zip(*map(jax.tree.leaves, (one, two, both))):
        assert np.array_equal(new[0], old[0]) and np.array_equal(new[1], other[0])


def test_only_decoders_speak_in_groups():
    with pytest.raises(UserError, match="kind='decoder'"):
        grouped.check_kind(dataclasses.replace(TINY, kind="other"))
