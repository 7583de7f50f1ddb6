"""The decoder sees the past only, and its cached steps are the full pass."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cr_jax.config import LmConfig
from cr_jax.errors import UserError
from cr_jax.models import lm, objective

TINY = LmConfig(vocab_size=29, d_model=16, heads=4, d_ff=24, blocks=2, dtype="float32")
CONFIGS = {
    "own heads": TINY,
    "grouped": dataclasses.replace(TINY, kv_heads=2),
    "one group": dataclasses.replace(TINY, kv_heads=1),
    "tied": dataclasses.replace(TINY, tie_embeddings=True),
    "looped": dataclasses.replace(TINY, scan=True, remat=True),
}
LENGTH = 9
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 29, (3, LENGTH)), jnp.int32)


@functools.cache
def params(config):
    return jax.jit(lm.init, static_argnums=0)(config, jax.random.key(0))


@functools.partial(jax.jit, static_argnums=(0, 1, 4))
def _call(config, method, params, args, length=None):
    more = () if length is None else (length,)
    return lm.make_lm(config).apply(params, *args, *more, method=method)


def states(config, tokens):
    return _call(config, "__call__", params(config), (tokens,))


def prefill(config, tokens, mask, length):
    return _call(config, "prefill", params(config), (tokens, mask), length)


def step(config, token, cache):
    return _call(config, "step", params(config), (token, cache))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("read", [1, 4, LENGTH - 1])
def test_cached_steps_are_the_full_pass_at_every_offset(config, read):
    whole = np.asarray(states(config, TOKENS))
    found, cache = prefill(config, TOKENS[:, :read], jnp.ones((3, read), bool), LENGTH + 3)
    np.testing.assert_allclose(found[:, : read + 1], whole[:, : read + 1], atol=1e-5)
    for i in range(read, LENGTH - 1):
        found, cache = step(config, TOKENS[:, i], cache)
        np.testing.assert_allclose(found, whole[:, i + 1], atol=1e-5)
    assert cache.keys.shape[2] == LENGTH + 3 and cache.length.tolist() == [LENGTH] * 3


def test_texts_of_several_lengths_go_on_each_from_its_own_end():
    lengths = np.array([1, 5, 3])
    mask = jnp.asarray(np.arange(6)[None] < lengths[:, None])
    _, cache = prefill(TINY, jnp.where(mask, TOKENS[:, :6], 7), mask, 12)
    for k in range(2):
        token = TOKENS[np.arange(3), lengths + k]
        found, cache = step(TINY, token, cache)
        for row, length in enumerate(lengths):
            alone = states(TINY, TOKENS[row : row + 1])
            np.testing.assert_allclose(found[row], alone[0, length + k + 1], atol=1e-5)


def test_a_token_changes_later_states_only_and_all_of_them():
    other = TOKENS.at[:, 4].set((TOKENS[:, 4] + 5) % 29)
    a, b = (np.asarray(states(TINY, t)) for t in (TOKENS, other))
    assert np.array_equal(a[:, :5], b[:, :5])
    assert (np.abs(a - b)[:, 5:].max(-1) > 1e-4).all()


def test_the_cache_is_as_large_as_the_formula_says():
    for config, groups in ((TINY, 4), (CONFIGS["grouped"], 2), (CONFIGS["one group"], 1)):
        # keys and values of 2 blocks, 4 numbers a head, 4 bytes a number; and one int32 length
        assert lm.cache_bytes(config, 100) == 2 * 2 * 100 * groups * 4 * 4 + 4
    half = dataclasses.replace(TINY, dtype="bfloat16")
    assert lm.cache_bytes(half, 100) == 2 * 2 * 100 * 4 * 4 * 2 + 4


def test_experts_side_by_side_are_single_experts():
    keys = jax.random.split(jax.random.key(1), 3)
    stacked = jax.jit(jax.vmap(lambda k: lm.init(TINY, k)))(keys)
    net = lm.make_lm(TINY)
    together = jax.jit(jax.vmap(net.apply, (0, None)))(stacked, TOKENS)
    for i in range(3):
        one = jax.jit(net.apply)(jax.tree.map(lambda x, i=i: x[i], stacked), TOKENS)
        np.testing.assert_allclose(together[i], one, atol=1e-5)


def test_it_starts_at_the_uniform_distribution():
    nll = objective.token_scores(states(TINY, TOKENS), lm.head(TINY, params(TINY)), TOKENS).nll
    np.testing.assert_allclose(np.asarray(nll), np.log(29), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(kv_heads=3), "kv_heads=3 must divide heads=4"),
        (dict(heads=3), "multiple of 2 x heads=6"),
        (dict(blocks=0), "config.lm.blocks must be at least 1"),
        (dict(d_ff=-5), "config.lm.d_ff must be at least 1"),
    ],
)
def test_sizes_that_make_no_model_are_one_line(changes, says):
    with pytest.raises(UserError, match=says):
        lm.make_lm(dataclasses.replace(TINY, **changes))
