"""Cached steps are the full pass, across syncs too; a constant state is constant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_long
from tiny_long import CONFIGS, LENGTH, TOKENS, W

from cr_jax.models import lm
from cr_jax.models.lm import chunk_cache

ROOM = 20


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(chunk_cache, "PIECE", 2 * W)  # a history has several


def pieces_of(config, lengths):
    """Caches of texts of these lengths, and states [2, D] after each."""
    mask = jnp.asarray(np.arange(LENGTH)[None] < np.asarray(lengths)[:, None])
    tokens = jnp.where(mask, TOKENS, 7)
    return tiny_long.call(config, "fill", tokens, mask, room=ROOM)


@pytest.fixture
def traces(monkeypatch):
    """Names of what is traced, and so compiled."""
    found = []
    for name in ("step", "sync"):
        real = getattr(chunk_cache, name)
        monkeypatch.setattr(
            chunk_cache, name, lambda *a, n=name, f=real: (found.append(n), f(*a))[1]
        )
    return found


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_steps_are_the_full_pass_at_every_offset_and_across_syncs(config, traces):
    whole = np.asarray(tiny_long.call(config, "__call__", TOKENS))
    # The second text is always three tokens ahead, so that its syncs are due at other times.
    for start in (0, 4):
        lengths = np.array([start, start + 3])
        found, cache = pieces_of(config, lengths)
        shape = jax.tree.map(jnp.shape, cache)
        while True:
            for row, n in enumerate(lengths):
                np.testing.assert_allclose(found[row], whole[row, n], atol=1e-5)
            if lengths.max() == LENGTH - 1:
                break
            if np.any(lm.full(config, cache)):
                cache = tiny_long.call(config, "sync", cache)
            assert not np.any(lm.full(config, cache))
            found, cache = tiny_long.call(config, "step", TOKENS[np.arange(2), lengths], cache)
            lengths += 1
        assert jax.tree.map(jnp.shape, cache) == shape
    assert sorted(traces) == ["step", "sync"]  # one program each, whatever the lengths


def test_prefill_gives_all_states_and_the_cache_of_fill():
    config = CONFIGS["recurrent"]
    mask = jnp.ones((2, LENGTH), bool)
    found, cache = tiny_long.call(config, "prefill", TOKENS, mask, room=ROOM)
    whole = tiny_long.call(config, "__call__", TOKENS)
    np.testing.assert_allclose(found[:, :-1], whole, atol=1e-5)
    last, other = tiny_long.call(config, "fill", TOKENS, mask, room=ROOM)
    np.testing.assert_allclose(found[:, -1], last, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), cache, other)


def sizes(config, room):
    """(bytes of the state, bytes of ids) of one text, of shapes alone."""
    net = lm.make_lm(config)

    def fill(key):
        own = net.init(key, jnp.zeros((1, 2), jnp.int32))
        blank = jnp.zeros((1, 1), jnp.int32)
        return net.apply(own, blank, blank == 0, room, method="fill")[1]

    cache = jax.eval_shape(fill, jax.random.key(0))
    return lm.state_bytes(cache), cache.ids.size * 4


def test_the_state_of_a_constant_form_does_not_grow(monkeypatch):
    monkeypatch.setattr(chunk_cache, "PIECE", 8192)
    rooms = (1 << 10, 1 << 16, 1 << 20)
    big = dict(vocab_size=50257, d_model=432, heads=12, d_ff=1280, blocks=8, chunk=256)
    each = 2 * 432 * 4  # bytes of a position's keys and values
    places = 14 * 256  # of eight windows, and of six contexts
    const = tiny_long.of(kind="tconstformer", stages=2, **big)
    assert [sizes(const, n) for n in rooms] == [(places * each + 8, 4 * n) for n in rooms]
    ours = tiny_long.of(kind="recurrent", stages=2, **big)
    memory = 2 * 256 * 432 * 4
    assert [sizes(ours, n) for n in rooms] == [(places * each + memory + 8, 1024)] * 3
    # The positive control: a history that is kept.
    grows = tiny_long.of(kind="tlinformer", stages=2, **big)
    assert sizes(grows, 1 << 20) == ((places + 2 * (1 << 20)) * each + 8, 4 << 20)
