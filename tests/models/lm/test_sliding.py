"""The window sees its sinks and the last positions, and its ring holds just these."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_long
from tiny_long import LENGTH, TOKENS

from cr_jax.errors import UserError
from cr_jax.models import lm

ONE = tiny_long.of(kind="sliding", blocks=1, chunk=3, sinks=2)  # 2 + 4 positions
CONFIGS = {
    "window": dataclasses.replace(ONE, blocks=2, kv_heads=1),
    "everything": tiny_long.of(kind="sliding", blocks=2, chunk=0, style="layer_norm"),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_steps_are_the_full_pass_at_every_offset(config):
    whole = np.asarray(tiny_long.call(config, "__call__", TOKENS))
    lengths = np.array([1, 8])
    mask = jnp.asarray(np.arange(8)[None] < lengths[:, None])
    tokens = jnp.where(mask, TOKENS[:, :8], 7)
    states, cache = tiny_long.call(config, "prefill", tokens, mask, room=LENGTH)
    np.testing.assert_allclose(states[1], whole[1, :9], atol=1e-5)
    assert cache.layers[0][0].shape[1] == (6 if config.chunk else LENGTH)
    for _ in range(LENGTH - 9):
        found, cache = tiny_long.call(config, "step", TOKENS[np.arange(2), lengths], cache)
        lengths += 1
        for row, n in enumerate(lengths):
            np.testing.assert_allclose(found[row], whole[row, n], atol=1e-5)


def test_one_layer_sees_its_sinks_and_the_last_positions():
    def seen(layers, x):
        net = lm.make_lm(ONE)
        last = lambda x: net.bind(tiny_long.params(ONE))._through(x)[0][:, -1].sum()
        return jnp.abs(jax.grad(last)(x)).max((0, 2))

    found = np.asarray(tiny_long.inside(ONE, seen)())
    wanted = np.zeros(LENGTH + 1, bool)
    wanted[:2] = wanted[-4:] = True
    assert ((found > 1e-7) == wanted).all()


def test_more_sinks_than_places_are_one_line():
    with pytest.raises(UserError, match="sinks=6 must be fewer than the 2 x chunk=6"):
        lm.make_lm(dataclasses.replace(ONE, sinks=6))
