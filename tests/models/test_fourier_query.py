"""Latent queries with Fourier values: the start of training; the first k of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_bottleneck import call, start, states
from tiny_model import prefix_mask, small

from cr_jax import models
from cr_jax.errors import UserError


def form(window=12, latents=3, d_latent=12, **changes):
    """(config, parameters of its bottleneck at the start)."""
    config = small("fourier_query", window=window, latents=latents, d_latent=d_latent, **changes)
    return config, start(config)


def directions(config, params):
    """[D, C]: of the channels that the first z has numbers for, wholly or in part."""
    used = np.asarray(params["mix"][0]).reshape(-1, params["mix"].shape[-1])
    order = list(dict.fromkeys(np.argmax(used, 1)))
    return np.asarray(params["values"])[:, order]


@pytest.mark.parametrize(
    "window,latents,d_latent,whole",
    [
        (12, 3, 12, 3),  # one channel a latent
        (12, 2, 24, 4),  # two
        (12, 4, 6, 2),  # half of one
        (11, 4, 12, 4),  # an odd window: the last frequency is pi
        (9, 5, 4, 2),
        (7, 7, 7, 7),
        (12, 1, 12, 1),
    ],
    ids=str,
)
def test_training_starts_from_an_orthogonal_transform_of_the_window(
    window, latents, d_latent, whole
):
    """A channel of a state h_i is w_c . h_i.  What positions and channels write into z has length 1
    and is orthogonal, and the decoder's start holds the channels along their directions.
    """
    config, params = form(window, latents, d_latent)
    w = directions(config, params)
    dual = np.linalg.pinv(w)
    each = np.einsum("ij,cd->cijd", np.eye(window), dual[:whole])
    rows = np.asarray(
        call(
            config,
            params,
            "compress",
            jnp.asarray(each.reshape(-1, window, config.d_model), jnp.float32),
        )
    ).reshape(whole * window, -1)
    np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-5)

    h = states(config, 3)
    z = call(config, params, "compress", h)
    x = np.asarray(call(config, params, "expand", z)) - np.asarray(params["positions"])[None]
    channels = np.asarray(h) @ w
    np.testing.assert_allclose((x @ dual.T)[..., :whole], channels[..., :whole], atol=1e-5)


def test_the_first_latents_are_a_narrower_model():
    """Writing and reading: rate k is the model of k latents with the same weights, exactly."""
    config, params = form(latents=3, fold_channels=6)
    params = jax.tree.map(  # anything learnt
        lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), params
    )
    h = states(config, 3)
    z = call(config, params, "compress", h)
    for k in (1, 2):
        fewer = dataclasses.replace(config, latents=k)
        queries = params["queries"].reshape(16, config.heads, 3)[..., :k].reshape(16, -1)
        own = {
            **params,
            "queries": queries,
            "mix": params["mix"][:, :k],
            "unmix": params["unmix"][:, :k],
        }
        assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, start(fewer))
        np.testing.assert_allclose(call(fewer, own, "compress", h), z[:, :k], atol=1e-5)
        kept = jnp.where(np.arange(3)[None, :, None] < k, z, 0)  # as `Autoencoder.decode` does
        low = call(config, params, "expand", kept, jnp.full(3, k, jnp.int32))
        np.testing.assert_allclose(call(fewer, own, "expand", z[:, :k]), low, atol=1e-5)
        assert np.abs(low - call(config, params, "expand", z)).max() > 0.1


def test_a_short_text_is_written_as_it_stands_in_a_long_one():
    """Weights are 1 on each token at the start, however many there are; 0 on padding."""
    config, params = form()
    mask, h = prefix_mask(config, [12, 7, 1]), states(config, 3)
    z = call(config, params, "compress", h, mask)
    zeros = jnp.where(mask[..., None], h, 0)
    np.testing.assert_allclose(z, call(config, params, "compress", zeros), atol=1e-5)
    assert np.abs(z - call(config, params, "compress", h))[1:].min(0).max() > 0.1


def test_queries_learn_whom_to_attend_to():
    config, params = form()

    def held(queries, h):
        """How much latent 0 holds."""
        z = call(config, {**params, "queries": queries}, "compress", h)
        return jnp.sum(z[:, 0] ** 2)

    h = states(config, 1).at[:, 1:].multiply(0.1)  # the first token is worth it
    gradient = jax.jit(jax.grad(held))(params["queries"], h)
    by_latent = np.linalg.norm(gradient.reshape(16, config.heads, 3), axis=(0, 1))
    assert by_latent[0] > 0 and not by_latent[1:].any()
    assert held(3 * gradient, h) > 1.5 * held(params["queries"], h)


def test_order_is_kept_where_a_plain_sum_forgets_it():
    config, params = form()
    h = states(config, 3)
    turned = h[:, ::-1]
    assert (
        np.abs(call(config, params, "compress", h) - call(config, params, "compress", turned)).max()
        > 1
    )


def test_a_window_beyond_the_tables_is_refused():
    with pytest.raises(UserError, match=r"model\.window=40000 is too long"):
        models.check_bottleneck(small("fourier_query", window=40_000))
