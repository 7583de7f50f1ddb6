"""Strict isolation (paper section 1), shown by gradients and by changed inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import FORMS, decode, encode, fresh, logits, prefix_mask, run, small, windows

from cr_jax import models

pytestmark = pytest.mark.parametrize("form", FORMS)


def test_with_z_held_constant_the_output_does_not_depend_on_the_input(form):
    config = small(form)
    params, net = fresh(config), models.Autoencoder(config)
    a, b = windows(config, seed=1), windows(config, seed=2)
    weight = jax.random.normal(jax.random.key(3), (*a.shape, config.d_model))

    @jax.jit
    @jax.grad
    def slope(embedding, held):
        """How a weighted output moves with the tokens' vectors; z cut off from them or not."""
        p = {"params": {**params["params"], "embedding": embedding}}
        z = net.apply(p, a, method="encode")
        z = jnp.where(held, jax.lax.stop_gradient(z), z)
        return jnp.sum(weight * net.apply(p, z, method="decode"))

    vectors = params["params"]["embedding"]
    assert not np.any(slope(vectors, True))  # no path beside z
    assert np.any(slope(vectors, False))  # and the probe does see the path through z
    # The whole pass is the decoder on z: nothing of window a but its z can be in h.
    (h_a, z_a), (h_b, z_b) = run(config, params, a), run(config, params, b)
    np.testing.assert_allclose(decode(config, params, z_a), h_a, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(decode(config, params, z_b), h_b, rtol=1e-4, atol=1e-5)
    assert np.abs(h_a - h_b).max() > 0.1


@pytest.mark.parametrize("latents", [3, 7])  # rows of ceil(10 / 7) positions would leave 2 of 7
def test_every_latent_is_alive_at_the_start(form, latents):
    """Each latent moves the output, and each latent is moved by the input."""
    config = small(form, latents=latents)
    params, tokens = fresh(config), windows(config)
    weight = jax.random.normal(jax.random.key(0), (*tokens.shape, config.d_model))
    z = encode(config, params, tokens)
    out = jax.jit(
        jax.grad(
            lambda z: jnp.sum(weight * models.Autoencoder(config).apply(params, z, method="decode"))
        )
    )(z)
    assert out.shape == z.shape == (4, config.latents, config.d_latent)
    assert np.all(np.linalg.norm(out, axis=-1) > 1e-3)
    changed = (tokens + 1) % config.vocab_size
    moved = np.linalg.norm(z - encode(config, params, changed), axis=-1)
    assert np.all(moved > 1e-3)


def test_what_lies_under_the_mask_changes_nothing(form):
    config = small(form)
    params, tokens = fresh(config), windows(config)
    mask = prefix_mask(config, [10, 7, 4, 1])
    other = jnp.where(mask, tokens, (tokens + 5) % config.vocab_size)
    found = logits(config, params, tokens, mask)
    assert np.isfinite(found).all()
    assert np.array_equal(found[mask], logits(config, params, other, mask)[mask])
    # Negative control: the same change without the mask shows.
    full = jnp.ones_like(mask)
    seen = logits(config, params, tokens, full)
    assert not np.allclose(seen[mask], logits(config, params, other, full)[mask])
    # A full mask is no mask.
    np.testing.assert_allclose(seen, logits(config, params, tokens), rtol=1e-4, atol=1e-5)


def test_padding_gets_no_gradient(form):
    config = small(form)
    params = fresh(config)
    mask = prefix_mask(config, [7, 4])
    # Ids of the padding occur nowhere else.
    tokens = windows(config, batch=2)
    tokens = jnp.where(mask, tokens % 20, 20 + tokens % 9)

    def loss(p):
        h, _ = models.Autoencoder(config).apply(p, tokens, mask)
        return jnp.sum(jnp.where(mask, h[..., 0], 0))

    gradient = jax.jit(jax.grad(loss))(params)["params"]["embedding"]
    assert np.all(np.linalg.norm(gradient[np.unique(tokens[mask])], axis=-1) > 0)
    assert not np.any(gradient[np.unique(tokens[~mask])])


def test_a_lower_rate_keeps_the_first_part_of_z_only(form):
    config = small(form)
    params = fresh(config)
    full = models.make_bottleneck(config).rates
    assert full == (config.d_latent if form == "fold" else config.latents)
    z = encode(config, params, windows(config))
    keep = jnp.asarray([1, 2, full - 1, full], jnp.int32)
    place = np.arange(full)[None] < np.asarray(keep)[:, None]
    place = place[:, None, :] if form == "fold" else place[:, :, None]
    low = decode(config, params, z, None, keep)
    rest_replaced = decode(config, params, np.where(place, z, np.float32(7)), None, keep)
    assert np.array_equal(low, rest_replaced)
    kept_replaced = decode(config, params, np.where(place, np.float32(7), z), None, keep)
    assert all(np.abs(low[i] - kept_replaced[i]).max() > 1e-3 for i in range(4))
    whole = decode(config, params, z, None, jnp.full(4, full, jnp.int32))
    assert np.array_equal(whole[3], low[3])
    assert all(np.abs(whole[i] - low[i]).max() > 1e-3 for i in range(3))
    np.testing.assert_allclose(whole, decode(config, params, z), rtol=1e-4, atol=1e-5)


def test_hidden_tokens_are_not_seen(form):
    config = small(form)
    params, tokens = fresh(config), windows(config)
    hidden = jax.random.bernoulli(jax.random.key(5), 0.4, tokens.shape)
    other = jnp.where(hidden, (tokens + 3) % config.vocab_size, tokens)
    under = encode(config, params, tokens, None, hidden)
    assert np.array_equal(under, encode(config, params, other, None, hidden))
    none = jnp.zeros_like(hidden)
    seen = encode(config, params, tokens, None, none)
    assert not np.allclose(seen, under)
    assert not np.allclose(seen, encode(config, params, other, None, none))
    np.testing.assert_allclose(seen, encode(config, params, tokens), rtol=1e-4, atol=1e-5)
