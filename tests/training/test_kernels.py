"""A training step with Triton's row kernels, interpreted, is the step with the plain ones."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import small, windows

from cr_jax.config import LmConfig, OptimizerConfig, TrainConfig
from cr_jax.models import layers, lm
from cr_jax.parallel.over_experts import over_experts
from cr_jax.parallel.plan import make_plan
from cr_jax.training import banner
from cr_jax.training.losses import CompressorLoss, LanguageModelLoss
from cr_jax.training.step import init_state, make_train_step

EXPERTS = 2
DRAWS = TrainConfig(batch=4, steps=1, loss_chunk=20, nested=0.5, hidden=0.5, short=0.5)
OPTIMIZER = OptimizerConfig(name="adamw")
MODEL = small(encoder_blocks=2, scan=True, remat=True, predictive=True, kernels="xla")


@pytest.fixture(autouse=True)
def _can(monkeypatch):
    monkeypatch.setattr(layers, "triton_obstacle", lambda config, alone=None: "")


@functools.cache
def step(model, experts=1):
    """(optimiser's state, weights, sums) of one step, and the number of Pallas calls in it.

    AdamW's first moments are the clipped gradients' tenths.  Experts start from their own weights.
    """
    make = functools.partial(init_state, CompressorLoss(model, DRAWS), OPTIMIZER)
    state = jax.jit(jax.vmap(make))(jax.random.split(jax.random.key(0), experts))
    batch = {"tokens": jnp.stack([windows(model, seed=i) for i in range(experts)])}
    run = over_experts(make_train_step(CompressorLoss(model, DRAWS), OPTIMIZER), experts, "vmap")
    traced = jax.jit(run).trace(state, batch, jnp.full(experts, 0.5))
    state, sums = jax.device_get(traced.lower().compile()(state, batch, np.full(experts, 0.5)))
    return (state.opt_state, state.params, sums), str(traced.jaxpr).count("pallas_call[")


def check_same(found, wanted):
    for a, b in zip(jax.tree.leaves(found[0]), jax.tree.leaves(wanted[0]), strict=True):
        assert np.linalg.norm(a - b) <= 2e-5 * np.linalg.norm(b) + 1e-9
    assert found[2].keys() == wanted[2].keys()
    for key, value in wanted[2].items():
        np.testing.assert_allclose(found[2][key], value, rtol=1e-5)


def triton(model):
    return dataclasses.replace(model, kernels="triton")


def test_gradients_and_sums_of_experts_are_those_of_the_plain_step():
    (plain, none), (found, some) = step(MODEL, EXPERTS), step(triton(MODEL), EXPERTS)
    assert none == 0 < some
    check_same(found, plain)
    shapes = [jax.tree.map(jnp.shape, x[1]) for x in (plain, found)]
    assert shapes[0] == shapes[1]  # a checkpoint of one is a checkpoint of the other
    with pytest.raises(AssertionError):  # and the comparison sees a difference: experts exchanged
        check_same(found, jax.tree.map(lambda x: x[::-1], plain))


def test_language_models_side_by_side_take_them_in_every_part():
    """The gradients of two, and the loss's own kernel beside those of the states."""
    plain = LmConfig(
        vocab_size=29, d_model=16, heads=2, d_ff=24, blocks=1, dtype="float32", kernels="xla"
    )
    start = jax.jit(jax.vmap(lambda k: lm.init(plain, k)))
    params = start(jax.random.split(jax.random.key(0), EXPERTS))
    head = params["params"]["head"]
    params["params"]["head"] = jax.random.normal(jax.random.key(1), head.shape)
    tokens = jnp.stack([windows(small(), seed=i) for i in range(EXPERTS)])

    def traced(config):
        loss = lambda p, t: LanguageModelLoss(config, 10, 20)(p, {"tokens": t}, jnp.float32(40))
        return jax.jit(jax.vmap(jax.value_and_grad(loss, has_aux=True))).trace(params, tokens)

    wanted, found = traced(plain), traced(triton(plain))
    calls = lambda x: str(x.jaxpr).count("pallas_call[")
    states = jax.jit(lm.make_lm(triton(plain)).apply).trace(
        jax.tree.map(lambda x: x[0], params), tokens[0]
    )
    assert calls(wanted) == 0 < calls(states) < calls(found)
    a, b = (jax.device_get(x.lower().compile()(params, tokens)) for x in (found, wanted))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.linalg.norm(x - y) <= 2e-5 * np.linalg.norm(y) + 1e-9


def test_a_step_over_devices_is_the_plain_one_of_one_device():
    plan = make_plan("jit", EXPERTS, DRAWS.batch, mesh_expert=2, devices=jax.devices()[:4])
    model = triton(MODEL)
    state = plan.init(
        functools.partial(init_state, CompressorLoss(model, DRAWS), OPTIMIZER),
        jax.random.split(jax.random.key(0), EXPERTS),
    )
    batch = plan.put({"tokens": np.stack([windows(model, seed=i) for i in range(EXPERTS)])})
    program = plan.compile_step(
        lambda axis: make_train_step(CompressorLoss(model, DRAWS), OPTIMIZER, axis_name=axis),
        "vmap",
        state,
        batch,
    )
    state, sums = jax.device_get(program(state, batch, 0.5))
    check_same((state.opt_state, state.params, sums), step(MODEL, EXPERTS)[0])


def test_the_banner_names_the_kernels_and_why(monkeypatch):
    alone, shared = make_plan("jit", 1, 8), make_plan("jit", 1, 8, mesh_fsdp=8)
    monkeypatch.setattr(layers, "triton_obstacle", lambda config, alone: "" if alone else "shared")
    monkeypatch.setattr(banner, "triton_obstacle", layers.triton_obstacle)
    assert banner._kernels(alone, small()) == "float32, attention xla, row kernels triton"
    assert banner._kernels(alone, small(kernels="xla")) == (
        "float32, attention xla, row kernels xla (config.model.kernels)"
    )
    assert banner._kernels(shared, small()) == "float32, attention xla, row kernels xla (shared)"
