"""Where the parts of a state lie, and what that costs."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tiny_model import small

from cr_jax import router
from cr_jax.config import SEEN, OptimizerConfig, TrainConfig
from cr_jax.parallel import partition
from cr_jax.parallel import plan as parallel
from cr_jax.scoring import residuals
from cr_jax.training.losses import CompressorLoss
from cr_jax.training.step import init_state, make_train_step

WINDOWS, LENGTH, WIDTH = 32, 10, 16
MODEL = small()
TRAIN = TrainConfig(batch=WINDOWS, steps=1, loss_chunk=WINDOWS * LENGTH)


@pytest.mark.parametrize(
    "path,shape,expected",
    [
        ("params/params/embedding", (2, 512, 64), P("expert", None, "fsdp")),
        ("opt_state/1/mu/params/embedding", (2, 512, 64), P("expert", None, "fsdp")),
        (
            "params/params/encoder/blocks/attention/qkv",
            (2, 8, 3, 64, 64),
            P("expert", None, None, None, "fsdp"),
        ),
        ("params/params/encoder/blocks/mlp/down", (2, 8, 96, 64), P("expert", None, "fsdp")),
        (
            "params/params/head",
            (2, 64, 512),
            P("expert", None, "fsdp"),
        ),  # the fallback: the largest
        ("params/params/bottleneck/fold", (2, 999, 64), P("expert", None, "fsdp")),  # that divides
        ("params/params/embedding", (2, 512, 63), P("expert", "fsdp")),  # a rule that cannot hold
        ("params/params/bottleneck/odd", (2, 999, 63), P("expert")),
        ("params/params/hidden_token", (2, 64), P("expert")),  # small
        ("step", (2,), P("expert")),
        ("key", (2, 2), P("expert")),
    ],
)
def test_rules_and_the_fallback(path, shape, expected):
    assert partition.spec(path, shape, 8, small=100) == expected
    assert partition.spec(path, shape, 1, small=100) == P("expert")


def plan(data=1, fsdp=1):
    made = parallel.make_plan("jit", 1, WINDOWS, 1, jax.devices()[: data * fsdp], fsdp)
    return dataclasses.replace(made, small=0)


@functools.cache
def program(data=1, fsdp=1, accumulate=1, optimizer="muon"):
    p = plan(data, fsdp)
    loss = CompressorLoss(MODEL, TRAIN)
    settings = OptimizerConfig(name=optimizer)
    state = p.shapes(lambda key: init_state(loss, settings, key), parallel.expert_keys(0, "a"))
    tokens = {"tokens": jax.ShapeDtypeStruct((1, WINDOWS, LENGTH), jnp.int32)}
    return state, p.compile_step(
        lambda axis: make_train_step(loss, settings, accumulate, axis), "vmap", state, tokens
    )


def test_a_device_holds_its_part_of_weights_and_moments():
    state, compiled = program(fsdp=4)
    for leaf in (
        state.params["params"]["encoder"]["blocks"]["attention"]["qkv"],
        state.params["params"]["embedding"],
    ):
        part = leaf.sharding.shard_shape(leaf.shape)
        assert np.prod(leaf.shape) == 4 * np.prod(part)
    named = {partition.name_of(path): x for path, x in jax.tree_util.tree_leaves_with_path(state)}
    moments = [x for name, x in named.items() if "opt_state" in name and name.endswith("qkv")]
    assert moments and all("fsdp" in x.sharding.spec for x in moments)
    held = sum(np.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in named.values())
    whole = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert whole / 4 < held < whole / 3  # what does not divide is whole everywhere
    # The compiler's own count of the donated state, aligned to a few bytes a leaf.
    assert held <= compiled.memory["state"] <= held + 64 * len(named)


def collected(compiled):
    """Shapes of what all-gathers of a compiled program give."""
    text = compiled.run.as_text()
    return [
        tuple(map(int, dims.split(",")))
        for dims in re.findall(r"= f32\[([\d,]+)\]\S* all-gather(?:-start)?\(", text)
    ]


def test_weights_are_collected_and_activations_are_not(monkeypatch):
    """Pinned rows cost the weights of a block at a time; without the pins whole batches travel."""
    is_rows = lambda shape: WINDOWS * LENGTH in (shape[0], np.prod(shape[:2])) and shape[-1] > 1
    pinned = program(fsdp=4)[1]
    blocks = [s for s in collected(pinned) if s == (WIDTH, WIDTH)]
    # The loss keeps its vocabulary split and collects its rows instead: once, not per matrix.
    assert blocks and len([s for s in collected(pinned) if is_rows(s)]) <= 1
    monkeypatch.setattr(parallel, "rows_stay", lambda step, mesh: step)
    program.cache_clear()
    free = program(fsdp=4)[1]
    program.cache_clear()
    assert len([s for s in collected(free) if is_rows(s)]) > 5
    assert free.memory["temporary"] > pinned.memory["temporary"]


def test_micro_batches_are_of_rows_that_the_devices_hold():
    """Blocks of neighbouring rows would lie on few devices and be moved to the others."""
    assert "collective-permute" not in program(2, 2, 2, "adamw")[1].run.as_text()


def test_experts_are_scored_where_they_lie():
    """A bank split over the expert axis: the scores of one device, nothing sent between experts."""
    names = "abcdefgh"
    made = parallel.make_plan("jit", len(names), 8, 8)
    make = lambda key: init_state(CompressorLoss(MODEL, TRAIN), OptimizerConfig(), key).params
    params = made.init(make, parallel.expert_keys(0, names))
    assert all(x.sharding.shard_shape(x.shape)[0] == 1 for x in jax.tree.leaves(params))
    tokens = np.random.default_rng(0).integers(0, MODEL.vocab_size, (6, LENGTH), np.int32)
    mask = np.arange(LENGTH) < np.array([[10], [3], [10], [1], [7], [10]])
    score = jax.jit(
        lambda p: router.score_experts(
            residuals.Scorer(residuals.token_scores, MODEL, SEEN),
            p,
            jnp.asarray(tokens),
            jnp.asarray(mask),
            (8, 1024),
        )
    )
    whole = jax.device_put(jax.device_get(params), jax.devices()[0])
    ours, theirs = score(params), score(whole)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.sharding.shard_shape(a.shape)[0] == 1
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert not np.allclose(ours.nll[0], ours.nll[1], atol=1e-2)
    text = score.lower(params).compile().as_text()
    assert not re.search(r"all-gather|all-reduce|all-to-all|collective-permute", text)
