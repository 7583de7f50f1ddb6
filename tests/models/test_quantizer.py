"""Finite scalars in the bottleneck, and integers put on afterwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import decode, fresh, run, small, windows

from cr_jax import models
from cr_jax.config import check_model
from cr_jax.errors import UserError
from cr_jax.models import quantizer

LEVELS = (2, 3, 4, 16, 256)


def cloud(rows=2000, seed=0):
    """Latents whose channels differ in scale and centre."""
    z = jax.random.normal(jax.random.key(seed), (rows, 4))
    return z * jnp.asarray([[0.1, 1.0, 5.0, 2.0]]) + jnp.asarray([[0.0, 3.0, -1.0, 0.2]])


def finite(width=4):
    return {"log_scale": jnp.linspace(-1.0, 1.0, width), "shift": jnp.linspace(-0.5, 0.5, width)}


@pytest.mark.parametrize("levels", LEVELS)
def test_codes_are_few_and_values_are_theirs(levels):
    z = 4 * cloud()
    q = finite()
    codes = quantizer.finite_codes(z, q, levels)
    assert codes.min() == 0 and codes.max() == levels - 1
    values = np.asarray(quantizer.quantize(z, q, levels))
    assert np.array_equal(values, quantizer.finite_values(codes, q, levels))
    assert all(2 <= len(np.unique(channel)) <= levels for channel in values.T)
    # Rounding again changes nothing, and more of z never means a lower code.
    assert np.array_equal(quantizer.finite_codes(values, q, levels), codes)
    order = np.argsort(np.asarray(z), 0)
    assert (np.diff(np.take_along_axis(np.asarray(codes), order, 0), axis=0) >= 0).all()


def test_the_gradient_goes_straight_through_and_fades_outside():
    q, z = finite(), cloud(50)
    slope = jax.grad(lambda z, q: jnp.sum(quantizer.quantize(z, q, 16)), (0, 1))
    by_z, by_q = slope(z * 0.2, q)
    assert np.all(by_z > 0)
    np.testing.assert_allclose(np.median(by_z), 1.0, atol=0.15)  # near the identity
    assert all(np.any(x) for x in jax.tree.leaves(by_q))  # scale and centre learn too
    far, _ = slope(jnp.full((1, 4), 1e3), q)
    assert not np.any(far)
    # Negative control: without the straight path rounding has no gradient at all.
    plain = lambda z: jnp.sum(quantizer.finite_values(quantizer.finite_codes(z, q, 16), q, 16))
    assert not np.any(jax.grad(plain)(z))


def test_fitted_scales_lose_less_than_strange_ones_and_less_with_more_levels():
    z = cloud()
    lost = []
    for levels in LEVELS:
        q = quantizer.fit_finite(z, levels)
        error = lambda q, n=levels: np.mean((quantizer.quantize(z, q, n) - z) ** 2, 0)
        lost.append(error(q) / np.var(z, 0))
        for factor in (0.3, 3.0):
            # The centre shift * scale stays where it is.
            other = {"log_scale": q["log_scale"] + np.log(factor), "shift": q["shift"] / factor}
            assert (error(other) > error(q)).all()
    assert (np.diff(lost, axis=0) < 0).all()
    assert (lost[0] < 0.4).all() and (lost[-1] < 1e-3).all()  # 1 bit of a Gaussian: 0.363


@pytest.mark.parametrize("form", ["fold", "query"])
def test_the_models_latents_have_so_many_values(form):
    config = small(form, levels=4)
    params, tokens = fresh(config), windows(config, batch=64)
    h, z = run(config, params, tokens)
    counts = [len(np.unique(channel)) for channel in z.reshape(-1, config.d_latent).T]
    assert max(counts) <= 4 and min(counts) >= 2
    # The decoder gets what was rounded and nothing else.
    np.testing.assert_allclose(decode(config, params, z), h, rtol=1e-4, atol=1e-5)
    # Negative control: off, there are many more.
    off = run(small(form), fresh(small(form)), tokens)[1]
    assert len(np.unique(off.reshape(-1, config.d_latent)[:, 0])) > 16


@pytest.mark.parametrize("form", ["fold", "query"])
def test_isolation_and_training_through_the_quantizer(form):
    config = small(form, levels=4)
    params, net = fresh(config), models.Autoencoder(config)
    tokens = windows(config, seed=1)
    weight = jax.random.normal(jax.random.key(3), (*tokens.shape, config.d_model))

    @jax.jit
    @jax.grad
    def slope(p, held):
        z = net.apply(p, tokens, method="encode")
        z = jnp.where(held, jax.lax.stop_gradient(z), z)
        return jnp.sum(weight * net.apply(p, z, method="decode"))

    encoder = lambda g: [
        g["params"]["embedding"],
        *jax.tree.leaves(g["params"]["encoder"]),
        *jax.tree.leaves(g["params"]["quantizer"]),
    ]
    assert not any(np.any(x) for x in encoder(slope(params, True)))  # no path beside z
    assert all(np.any(x) for x in encoder(slope(params, False)))  # and a path through rounding


def test_a_quantizer_put_in_afterwards_starts_near_the_model_it_enters():
    config = small()
    params, tokens = fresh(config), windows(config, batch=64)
    h, z = run(config, params, tokens)
    away = {}
    for levels in (2, 32):
        coarse = small(levels=levels)
        inserted = quantizer.insert(params, z.reshape(-1, config.d_latent), levels)
        assert jax.tree.structure(inserted) == jax.tree.structure(fresh(coarse))
        away[levels] = np.mean((run(coarse, inserted, tokens)[0] - h) ** 2)
    assert away[2] > 50 * away[32]
    assert "quantizer" not in params["params"]  # the model that was there is as it was


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_integers_have_their_number_of_codes_and_the_clip_pays(bits):
    z = cloud() - jnp.mean(cloud(), 0)[None]
    lost = {}
    for clip in (True, False):
        q = quantizer.fit_symmetric(z, bits, clip)
        codes = np.asarray(q.codes(z))
        assert codes.min() >= 0 and codes.max() <= 2 * q.top == 2**bits - 2
        lost[clip] = np.mean((q.values(q.codes(z)) - z) ** 2, 0)
    assert (lost[True] <= lost[False]).all()
    # Up to the largest: that number is kept, and nothing is moved by more than half a step.
    moved = np.abs(q.values(q.codes(z)) - z).max(0)
    assert (moved <= 0.5001 * q.scale).all()
    np.testing.assert_allclose(q.scale * q.top, np.abs(z).max(0), rtol=1e-6)
    if bits <= 4:
        assert (lost[True] < 0.95 * lost[False]).all()


@pytest.mark.parametrize("levels", [-1, 1, 257])
def test_impossible_levels_are_refused(levels):
    with pytest.raises(UserError, match="levels"):
        check_model(small(levels=levels))
