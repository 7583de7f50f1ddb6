"""Which optimiser takes what; the schedule's shape."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import FORMS, fresh, small

from cr_jax import models
from cr_jax.config import OptimizerConfig
from cr_jax.training.muon import newton_schulz
from cr_jax.training.optimizer import make_optimizer, muon_dimensions, rate


def names(tree):
    return {"/".join(k.key for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}


def taken(form: str) -> set[str]:
    shapes = jax.eval_shape(lambda k: models.init(small(form), k), jax.random.key(0))["params"]
    picked = muon_dimensions(shapes)
    assert jax.tree.structure(picked, is_leaf=lambda x: not isinstance(x, dict)).num_leaves == len(
        names(shapes)
    )
    is_spec = lambda x: isinstance(x, optax.contrib.MuonDimensionNumbers)
    found = jax.tree_util.tree_leaves_with_path(picked, is_leaf=is_spec)
    return {"/".join(k.key for k in path) for path, spec in found if is_spec(spec)}


MATRICES = ("attention/qkv", "attention/out", "mlp/up", "mlp/down")
BLOCKS = {f"{side}/blocks/{m}" for side in ("encoder", "decoder") for m in MATRICES}


@pytest.mark.parametrize("form", FORMS)
def test_muon_takes_the_block_matrices_and_nothing_else(form):
    refine = (
        set()
        if form != "plain_query"
        else {
            f"bottleneck/refine/{m}"
            for m in ("Attention_0/qkv", "Attention_0/out", "SwiGlu_0/up", "SwiGlu_0/down")
        }
    )
    assert taken(form) == BLOCKS | refine


def one_update(config: OptimizerConfig):
    params = fresh(small())["params"]
    leaves, tree = jax.tree.flatten(params)
    random = np.random.default_rng(0)
    gradient = tree.unflatten([random.normal(size=x.shape).astype(np.float32) for x in leaves])

    @jax.jit
    def run(params, gradient):
        tx = make_optimizer(config)
        return tx.update(gradient, tx.init(params), params)[0]

    return jax.device_get(run(params, gradient)), gradient


def at(tree, path):
    for key in path.split("/"):
        tree = tree[key]
    return np.asarray(tree)


def test_muon_updates_are_orthogonal_and_adamw_updates_are_signs():
    updates, gradient = one_update(OptimizerConfig(clip=0.0))
    for path in names(updates):
        update = at(updates, path)
        if path in BLOCKS:
            values = np.linalg.svd(update, compute_uv=False)
            # Newton-Schulz brings singular values near one common size, not exactly to it.
            assert values.min() > 0.3 * values.max(), path
            start = np.linalg.svd(at(gradient, path), compute_uv=False)
            assert start.min() < 0.3 * start.max(), path
        else:
            # Adam's first step is the gradient's sign times the rate; Nesterov's look ahead
            # adds b1 (1 - b1) / (1 - b1^2) of it.
            step = 1e-3 * (1 + 0.9 * 0.1 / (1 - 0.9**2))
            np.testing.assert_allclose(
                update, -step * np.sign(at(gradient, path)), rtol=1e-3, atol=1e-8
            )


def test_adamw_alone_updates_every_leaf_by_its_rate():
    updates, gradient = one_update(OptimizerConfig(name="adamw", learning_rate=0.5, clip=0.0))
    for path in names(updates):
        np.testing.assert_allclose(
            at(updates, path), -0.5 * np.sign(at(gradient, path)), rtol=1e-3, atol=1e-6
        )


def test_large_gradients_are_clipped_by_their_global_norm():
    config = OptimizerConfig(name="adamw", clip=1.0)
    tx = make_optimizer(config)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    state = tx.init(params)
    big = {"a": jnp.asarray([30.0, 0.0]), "b": jnp.asarray([0.0, 40.0])}
    _, state = tx.update(big, state, params)
    mean = optax.tree.get(state, "mu")
    np.testing.assert_allclose(mean["a"], [0.1 * 0.6, 0], rtol=1e-4)
    np.testing.assert_allclose(mean["b"], [0, 0.1 * 0.8], rtol=1e-4)


def shape(**changes):
    config = OptimizerConfig(**changes)
    return lambda *places: [float(rate(config, jnp.float32(p))) for p in places]


def test_the_schedule_warms_up_holds_and_falls():
    found = shape(schedule="linear", warmup=0.1, cooldown=0.5)
    start, half_warm, plateau, half_down, end = found(0.0, 0.05, 0.4, 0.75, 1.0)
    assert 0 < start < 0.02
    assert half_warm == pytest.approx(0.5, abs=0.02)
    assert plateau == 1.0
    assert half_down == pytest.approx(0.5, abs=1e-5)
    assert end == pytest.approx(0.0, abs=1e-6)


def test_cosine_is_above_linear_first_and_below_it_then():
    places = (0.3, 0.5, 0.7)
    cosine, linear = (shape(schedule=s, warmup=0.0)(*places) for s in ("cosine", "linear"))
    assert cosine[0] > linear[0] and cosine[2] < linear[2]
    assert cosine[1] == pytest.approx(linear[1], abs=1e-5) == pytest.approx(0.5, abs=1e-5)


def test_constant_stays_and_final_is_the_floor():
    assert shape(schedule="constant", warmup=0.0)(0.0, 0.5, 1 - 1e-6) == [1.0, 1.0, 1.0]
    assert shape(final=0.1)(1 - 1e-6) == pytest.approx([0.1], rel=1e-3)
    # Over is over: an expert whose own run has ended takes no more steps.
    assert shape(schedule="constant", final=0.1)(1.0, 1.5) == [0.0, 0.0]
    assert shape(cooldown=0.0)(0.5, 0.99) == [1.0, 1.0]
    assert all(np.isfinite(shape(warmup=1.0)(0.0, 0.5, 1.0)))


def test_half_precision_muon_has_the_state_and_on_a_cpu_the_updates_of_optax():
    """Weight decay, clipping and both orientations included; a checkpoint serves either."""
    params = fresh(small())
    plain = OptimizerConfig(weight_decay=0.1, momentum_dtype="bfloat16")

    @functools.partial(jax.jit, static_argnums=0)
    def three(config, gradients):
        tx = make_optimizer(config)
        state, weights = tx.init(params), params
        for gradient in gradients:
            updates, state = tx.update(gradient, state, weights)
            weights = optax.apply_updates(weights, updates)
        return state, weights

    leaves, tree = jax.tree.flatten(params)
    random = np.random.default_rng(0)
    gradients = [
        tree.unflatten([random.normal(size=x.shape).astype(np.float32) for x in leaves])
        for _ in range(3)
    ]
    a, b = (
        three(c, gradients) for c in (plain, dataclasses.replace(plain, newton_schulz="bfloat16"))
    )
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y, start in zip(jax.tree.leaves(a[1]), jax.tree.leaves(b[1]), leaves, strict=True):
        assert np.abs(x - start).max() > 1e-3
        np.testing.assert_allclose(x, y, atol=2e-5)
    for x, y in zip(jax.tree.leaves(a[0]), jax.tree.leaves(b[0]), strict=True):
        assert x.dtype == y.dtype and np.array_equal(x, y)


@pytest.mark.parametrize("shape", [(3, 24, 40), (40, 24)])
def test_half_precision_iterations_orthogonalise(shape):
    x = np.random.default_rng(0).normal(size=shape)
    x = x / np.linalg.norm(x, axis=(-2, -1), keepdims=True)
    found = {
        t: jax.jit(newton_schulz, static_argnums=1)(jnp.asarray(x, jnp.float32), t)
        for t in (jnp.dtype("float32"), jnp.dtype("bfloat16"))
    }
    wide, half = (np.asarray(y, np.float64) for y in found.values())
    for values in (np.linalg.svd(y, compute_uv=False) for y in (wide, half)):
        assert values.min() > 0.6 and values.max() < 1.3
    assert [y.dtype for y in found.values()] == list(found) and half.shape == shape
    # The same directions, to half precision's rounding; the input's were far from orthogonal.
    apart = lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(b)
    assert apart(half, wide) < 0.08 and apart(x * np.linalg.norm(wide), wide) > 0.2
