"""What draws parameters back: nothing at the anchor, by the Fisher information away from it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from jax.flatten_util import ravel_pytree

from cr_jax.config import TrainConfig
from cr_jax.studies.continual.rivals import anchored
from cr_jax.training.losses import CompressorLoss, Loss

INNER = CompressorLoss(tiny_run.MODEL, TrainConfig(steps=1))
LOSS = anchored.AnchoredLoss(INNER)


@pytest.fixture(scope="module")
def made():
    params = jax.jit(LOSS.init)(jax.random.key(0))
    tokens = np.random.default_rng(0).integers(0, 250, (3, INNER.window)).astype(np.int32)
    return params, {"tokens": jnp.asarray(tokens)}


def moved(params, by):
    own = jax.tree.map(lambda x: x + by, anchored.plain(params))
    return {**own, anchored.COLLECTION: params[anchored.COLLECTION]}


def test_it_is_a_loss_of_the_loop():
    assert isinstance(LOSS, Loss) and LOSS.window == INNER.window and LOSS.model == INNER.model


def test_without_fisher_information_it_is_the_inner_loss(made):
    params, rows = made
    count = jnp.float32(rows["tokens"].size)
    value = jax.jit(LOSS)
    inner = jax.jit(INNER)
    away = moved(params, 0.1)
    np.testing.assert_allclose(
        value(away, rows, count)[0], inner(anchored.plain(away), rows, count)[0]
    )


def test_it_draws_back_by_the_square_and_leaves_the_anchor_alone(made):
    params, rows = made
    size = ravel_pytree(anchored.plain(params))[0].size
    count = jnp.float32(rows["tokens"].size)
    held = anchored.with_anchor(anchored.plain(params), jnp.full(size, 2.0))
    away = moved(held, 0.1)
    value, inner = (
        jax.jit(jax.value_and_grad(LOSS, has_aux=True)),
        jax.jit(jax.value_and_grad(INNER, has_aux=True)),
    )
    (loss, _), slope = value(away, rows, count)
    plain = anchored.plain(away)
    (before, _), its_slope = inner(plain, rows, count)
    np.testing.assert_allclose(loss - before, 0.5 * 2.0 * size * 0.1**2, rtol=1e-3)
    more = ravel_pytree(anchored.plain(slope))[0] - ravel_pytree(its_slope)[0]
    np.testing.assert_allclose(more, 2.0 * 0.1, atol=1e-4)
    for leaf in slope[anchored.COLLECTION].values():
        assert not np.asarray(leaf).any()
    # The parts of two devices, of half of the rows each, add up to one penalty.
    (twice, _), _ = value(away, rows, 2 * count)
    np.testing.assert_allclose(twice, loss / 2, rtol=1e-5)


def test_fisher_information_is_the_mean_square_of_windows_gradients(made):
    params, rows = made
    own = anchored.plain(params)
    found = jax.jit(anchored.fisher, static_argnums=0)(INNER, own, rows["tokens"])
    slope = jax.jit(jax.grad(lambda p, t: INNER(p, {"tokens": t}, jnp.float32(1))[0]))
    each = [ravel_pytree(slope(own, t[None]))[0] ** 2 for t in rows["tokens"]]
    np.testing.assert_allclose(found, np.mean(each, 0) / INNER.window, rtol=1e-3, atol=1e-6)
    together = ravel_pytree(slope(own, rows["tokens"]))[0] ** 2 / len(each) / INNER.window
    assert not np.allclose(found, together, rtol=0.1)  # not the square of the batch's gradient


def test_numbers_are_kept_beside_the_parameters(made):
    params, _ = made
    assert set(params) - {anchored.COLLECTION} == set(anchored.plain(params))
    assert dataclasses.is_dataclass(LOSS) and hash(LOSS) == hash(anchored.AnchoredLoss(INNER))
