"""All windows at once are the windows one by one, and each sees what its papers let it see."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_long
from tiny_long import CONFIGS, LENGTH, TOKENS, W

from cr_jax.models import lm
from cr_jax.models.lm import chunked, recurrent, tconstformer, tlinformer

FORMS = {
    "tlinformer": tlinformer.FORM,
    "tconstformer": tconstformer.FORM,
    "recurrent": recurrent.FORM,
}
ALL = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@ALL
def test_all_windows_at_once_are_the_loop_over_windows(config):
    both = tiny_long.inside(
        config,
        lambda layers, x: [
            f(config, FORMS[config.kind], layers, x) for f in (chunked.states, tiny_long.by_hand)
        ],
    )()
    np.testing.assert_allclose(*both, atol=1e-5)


@ALL
def test_a_token_changes_later_states_only_and_all_of_them(config):
    other = TOKENS.at[:, 2].set((TOKENS[:, 2] + 5) % 29)
    a, b = (np.asarray(tiny_long.call(config, "__call__", t)) for t in (TOKENS, other))
    np.testing.assert_allclose(a[:, :3], b[:, :3], atol=1e-6)
    assert (np.abs(a - b)[:, 3:].max(-1) > 1e-5).all()


@pytest.mark.parametrize("name", ["tlinformer", "tconstformer", "recurrent"])
def test_what_reaches_the_raw_history_other_than_through_compressed_positions(name, monkeypatch):
    config, real = CONFIGS[name], chunked.compress

    def sizes(layers, x, through):
        """[LENGTH + 1]: how far the last window's states depend on each input, by gradient."""
        part = lambda y: jax.lax.stop_gradient(y) + through * (y - jax.lax.stop_gradient(y))
        monkeypatch.setattr(chunked, "compress", lambda *a: jax.tree.map(part, real(*a)))
        noise = jax.random.normal(jax.random.key(1), (2, W, x.shape[-1]))
        last = lambda x: jnp.sum(
            noise * chunked.states(config, FORMS[config.kind], layers, x)[:, -W:]
        )
        return jnp.abs(jax.grad(last)(x)).max((0, 2))

    reached = tiny_long.inside(config, sizes)
    assert (np.asarray(reached(1.0)) > 1e-5).all()  # the window depends on every input
    without = np.asarray(reached(0.0))
    assert (without[-W:] > 1e-5).all()
    history = without[: LENGTH + 1 - W]
    # TLinFormer's first layer reads the history itself; the others know what was compressed.
    assert (history > 1e-5).all() if name == "tlinformer" else (history == 0).all()


def test_gradients_of_rematerialised_layers_are_the_same():
    config = tiny_long.of(kind="tlinformer", blocks=2)

    @functools.partial(jax.jit, static_argnums=0)
    def gradients(config, own):
        return jax.grad(lambda p: jnp.sum(lm.make_lm(config).apply(p, TOKENS) ** 2))(own)

    own = tiny_long.params(config)
    a, b = (gradients(tiny_long.of(**vars(config) | {"remat": r}), own) for r in (False, True))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4), a, b)


def test_operations_of_one_stage_are_linear_and_of_two_grow_with_the_square():
    def count(kind, window, **more):
        big = dict(blocks=8, d_model=432, heads=12, d_ff=1280, vocab_size=50257, chunk=256)
        return lm.forward_flops(tiny_long.of(kind=kind, **big, **more), window)

    for kind in ("tlinformer", "tconstformer", "recurrent"):
        assert count(kind, 256) == pytest.approx(count("decoder", 256))  # there is no history yet
    # A window's context is a second pass over W positions, but for the last layer.
    layers = count("decoder", 0) - 2.0 * 432 * 50257
    grown = count("recurrent", 1 << 20) - count("decoder", 256)
    assert layers * 7 / 8 < grown < layers * 9 / 8
    # What the last of many windows attends to is 4 D a pair, once a window of tokens.
    long = count("tconstformer", 1 << 20) - count("tconstformer", 1 << 19)
    assert long == pytest.approx(4 * 432 * (1 << 18), rel=0.01)
    more = count("tconstformer", 1 << 16, stages=2) - count("tconstformer", 1 << 16)
    assert more > 127 * 2.0 * 3 * 432 * 1280  # each token restores half of 255 others
