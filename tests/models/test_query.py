"""Latent queries with rotary values: what training starts from, and what a lower rate reads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_bottleneck import call, start, states
from tiny_model import small

from cr_jax import models
from cr_jax.models.bottlenecks import query, spectrum


def form(window=12, latents=3, d_latent=32, heads=4, **changes):
    """(config, parameters of its bottleneck at the start): 16 pairs, 4 in each of 4 heads."""
    config = small(
        "query",
        window=window,
        latents=latents,
        d_model=32,
        d_latent=d_latent,
        heads=heads,
        **changes,
    )
    return config, start(config)


def alone(params):
    """Each latent with its own slice only; a wider z without the numbers that nothing reads yet."""
    hard = lambda bias: jnp.where(bias < 0, -1e9, 0.0)
    return {
        **params,
        "write_bias": hard(params["write_bias"]),
        "read_bias": hard(params["read_bias"]),
        "write": params["write"].at[:, 32:].set(0),
    }


def written(config, params):
    """(what channel c of position i puts into z, [L C, M Dz]; the channels' directions [D, C]).

    A channel of a state h_i is w_c . h_i; the rows excite one channel of one position each.
    """
    span = -(-config.window // config.latents)
    pairs = -(-span // 2)  # of a channel
    first, _ = spectrum.place(config.d_model, config.heads)
    directions = np.asarray(params["values"])[:, first[::pairs]]
    directions *= 2**0.5 if span == 1 else 1.0  # the frequency pi is all that there is
    whole = min(config.d_model, config.d_latent) // 2 // pairs
    each = np.einsum("ij,cd->icjd", np.eye(config.window), np.linalg.pinv(directions)[:whole])
    z = call(
        config,
        params,
        "compress",
        jnp.asarray(each.reshape(-1, config.window, config.d_model), jnp.float32),
    )
    return np.asarray(z).reshape(len(z), -1), directions


@pytest.mark.parametrize(
    "window,latents,changes",
    [
        (16, 4, {}),  # S = 4: 8 channels, two in each head
        (32, 2, {}),  # S = 16: 2 channels, each shared by two heads
        (15, 3, {}),  # S = 5, odd: the last frequency is pi; the last channel is not whole
        (7, 7, {}),  # S = 1
        (14, 4, {}),  # slices of 3, 4, 3 and 4
        (16, 4, {"d_latent": 26}),  # a narrower z has numbers for 6 of the 8 channels
        (16, 4, {"d_latent": 40, "heads": 1}),
    ],
    ids=str,
)
def test_training_starts_from_an_orthogonal_transform_of_each_slice(window, latents, changes):
    """With each latent on its own slice, all that channels of positions write into z is orthogonal:
    the transposed map gives every channel of every position back, and the decoder's start holds
    them along the same directions.
    """
    config, params = form(window, latents, **changes)
    params, span = alone(params), -(-window // latents)
    length = np.bincount(spectrum.slices(window, latents))[spectrum.slices(window, latents)]
    rows, directions = written(config, params)
    whole = len(rows) // window
    assert whole == {4: 8, 16: 2, 5: 5, 1: 16}[span] - (2 if config.d_latent == 26 else 0)
    norm = np.repeat((span / length) ** 2 / 2, whole)
    np.testing.assert_allclose(rows @ rows.T, np.diag(norm), atol=1e-5)

    h = states(config)
    z = call(config, params, "compress", h)
    channels = np.asarray(h) @ directions[:, :whole]
    found = np.asarray(z).reshape(2, -1) @ rows.T / norm[None]
    np.testing.assert_allclose(found.reshape(channels.shape), channels, atol=1e-5)
    x = np.asarray(call(config, params, "expand", z)) - np.asarray(params["positions"])[None]
    found = (x @ np.linalg.pinv(directions).T)[..., :whole]
    gain = query.GAIN * span**1.5 / (2 * length)
    np.testing.assert_allclose(found / gain[None, :, None], channels, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"value_start": "random"}, {"value_frequencies": "rope"}], ids=str
)
def test_other_starts_are_no_such_transform(changes):
    """Negative control."""
    config, params = form(16, 4, **changes)
    rows, _ = written(config, alone(params))
    assert np.abs(rows @ rows.T - np.diag(np.diag(rows @ rows.T))).max() > 0.1


def test_a_latent_starts_on_its_slice_and_sees_all_positions():
    """Other slices get 2 % of the attention together, in both directions, and all get gradients."""
    config, params = form(window=14, latents=4)
    owner = spectrum.slices(14, 4)
    assert np.bincount(owner).tolist() == [3, 4, 3, 4]  # from floor(m L / M) on
    own = np.arange(4)[:, None] == owner
    for name in ("write_bias", "read_bias"):
        weight = np.exp(np.asarray(params[name]))
        mine = own[None] if name == "write_bias" else own.T[None]
        ratio = np.sum(np.where(mine, 0, weight), 2) / np.sum(np.where(mine, weight, 0), 2)
        assert (ratio > 0.01).all() and (ratio < 0.03).all()
    h = states(config)
    by_position = jax.jit(
        jax.grad(
            lambda h, m: jnp.sum(
                models.make_bottleneck(config).apply({"params": params}, h, method="compress")[:, m]
                ** 2
            )
        )
    )
    for m in range(4):
        norm = np.linalg.norm(by_position(h, m), axis=(0, 2))
        assert (norm > 0).all() and norm[own[m]].min() > 10 * norm[~own[m]].max()


def test_a_wider_z_learns_to_use_all_its_numbers():
    config, params = form(d_latent=40)

    def loss(p):
        net, h = models.make_bottleneck(config), states(config)
        through = lambda m, h: m.expand(m.compress(h))
        return jnp.sum((net.apply({"params": p}, h, method=through) - h) ** 2)

    gradient = jax.jit(jax.grad(loss))(params)
    assert np.linalg.norm(gradient["read"][32:], axis=1).min() > 1e-3


def test_a_low_rate_reads_the_first_latents_as_if_there_were_no_others():
    config, params = form()
    z = jax.random.normal(jax.random.key(1), (3, config.latents, config.d_latent))
    rate = jnp.asarray([1, 2, 3], jnp.int32)
    low = call(config, params, "expand", z, rate)
    # By hand: biases that shut the others out.
    for b, k in enumerate((1, 2, 3)):
        shut = {**params, "read_bias": params["read_bias"].at[..., k:].set(-1e9)}
        want = call(config, shut, "expand", z[b : b + 1])
        np.testing.assert_allclose(low[b], want[0], rtol=1e-5, atol=1e-5)
    # Zeros in their place would be something else.
    zeroed = call(
        config, params, "expand", jnp.where(np.arange(3)[None, :, None] < rate[:, None, None], z, 0)
    )
    assert np.abs(zeroed - low)[:2].max() > 0.1
    # Nothing that lies beyond the rate moves the output.
    slope = jax.jit(jax.grad(lambda z: jnp.sum(call(config, params, "expand", z, rate) ** 2)))(z)
    moved = np.linalg.norm(slope, axis=-1) > 0
    assert np.array_equal(moved, np.arange(3)[None] < np.asarray(rate)[:, None])
