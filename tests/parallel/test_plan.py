"""Every way to spread a step over eight devices computes what one device computes.

Other layouts add rows in another order: gradients differ by float32 rounding.  Adam turns a
gradient that is zero but for rounding into a step of full length, and Muon's polynomial amplifies
small singular values, so after five steps weights are compared as a whole: by how far they are
apart, relative to the way that training has moved them.
"""

import dataclasses
import functools
import math
import os
import signal

import jax
import numpy as np
import pytest
import tiny_run
from tiny_model import small

from cr_jax.config import OptimizerConfig, TrainConfig
from cr_jax.errors import UserError
from cr_jax.parallel import plan as parallel
from cr_jax.training.loop import Interrupted
from cr_jax.training.losses import CompressorLoss
from cr_jax.training.step import init_state, make_train_step

E, B, STEPS = 4, 16, 5
MODEL = small(tie_embeddings=True, encoder_blocks=0)  # a Muon decoder block is enough
OPTIMIZER = OptimizerConfig(learning_rate=3e-3, warmup=0.0)
DRAWS = TrainConfig(batch=B, steps=STEPS, nested=0.5, hidden=0.5)
NAMES = tuple("abcd")
PROGRESS = np.array([0.0, 0.5, 0.9, 1.0], np.float32)  # an expert handed another's would differ


def plan_of(layout, experts=E):
    """One device, pmap, or a mesh of (data, fsdp, expert) devices that splits every leaf it can.

    One of several devices runs a step of its own, too: tests/training/test_kernels.py compares that
    with the plain one.
    """
    if layout == "one":
        return parallel.make_plan("jit", experts, B, 1, jax.devices()[:1])
    if layout == "pmap":
        return parallel.make_plan("pmap", experts, B)
    devices = jax.devices()[: math.prod(layout)]
    made = parallel.make_plan("jit", experts, B, layout[2], devices, layout[1])
    return dataclasses.replace(made, small=0)


def batch(step, experts=range(E)):
    tokens = np.stack(
        [
            np.random.default_rng([step, e]).integers(
                0, MODEL.vocab_size, (B, MODEL.window), np.int32
            )
            for e in experts
        ]
    )
    length = np.stack(
        [np.random.default_rng([step, e, 1]).integers(1, MODEL.window + 1, (B, 1)) for e in experts]
    )
    return {"tokens": tokens, "mask": np.arange(MODEL.window) < length}


@functools.cache
def start(layout, names=NAMES, seed=0, model=MODEL):
    """The state before the first step, on the host."""
    plan, loss = plan_of(layout, len(names)), CompressorLoss(model, DRAWS)
    state = plan.init(
        lambda key: init_state(loss, OPTIMIZER, key), parallel.expert_keys(seed, names)
    )
    return jax.device_get(plan.gather(state))


@functools.cache
def run(layout, train=DRAWS, names=NAMES, seed=0, model=MODEL):
    """(weights at the start, weights after five steps, sums of each step), on the host.

    One device draws the start of all: each layout's own program for that compiles for seconds.
    """
    plan = plan_of(layout, len(names))
    loss = CompressorLoss(model, train, plan.devices_seen)
    first = start("one", names, seed, model)
    state = plan.spread(first)
    experts, found = [NAMES.index(n) for n in names], []
    step = plan.compile_step(
        lambda axis: make_train_step(loss, OPTIMIZER, axis_name=axis),
        train.experts_by,
        state,
        plan.put(batch(0, experts)),
    )
    for i in range(STEPS):
        state, sums = step(state, plan.put(batch(i, experts)), PROGRESS[experts])
        found.append(jax.device_get(sums))
    return first.params, jax.device_get(plan.gather(state).params), found


def check_same(a, b, tolerance=1e-4):
    """Same start, same figures, and weights that differ by a small part of what training moved."""
    for x, y in zip(jax.tree.leaves(a[0]), jax.tree.leaves(b[0])):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)
    for x, y in zip(a[2], b[2]):
        assert x.keys() == y.keys()
        for key in ("tokens", "windows"):
            assert np.array_equal(x[key], y[key])
        for key in ("nll", "gradient_norm"):
            np.testing.assert_allclose(x[key], y[key], rtol=1e-3)
        assert np.abs(x["correct"] - y["correct"]).max() <= 1  # a tie may fall the other way
    assert apart(a, b) < tolerance


def apart(a, b):
    norm = lambda tree: np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(tree)))
    minus = lambda x, y: jax.tree.map(np.subtract, x, y)
    return norm(minus(a[1], b[1])) / norm(minus(a[1], a[0]))


@pytest.mark.parametrize("layout", [(2, 2, 2), "pmap"], ids=str)
def test_every_layout_begins_as_one_device(layout):
    one, other = start("one"), start(layout)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("layout", [(8, 1, 1), (2, 1, 4), (2, 2, 2), "pmap"], ids=str)
def test_eight_devices_equal_one(layout):
    """Random rates and hidden tokens do not depend on the devices, and neither does the mean over
    real tokens, of which devices hold different numbers.
    """
    one = run("one")
    assert one[2][0]["tokens"].sum() < E * B * MODEL.window
    check_same(one, run(layout))


@pytest.mark.parametrize("layout", [(2, 4, 1), "pmap"], ids=str)
def test_eight_devices_equal_one_for_one_expert(layout):
    check_same(run("one", names=("c",)), run(layout, names=("c",)))


@pytest.mark.parametrize(
    "bottleneck,layout", [("query", (2, 2, 2)), ("fourier_query", "pmap")], ids=str
)
def test_eight_devices_equal_one_with_latent_queries(bottleneck, layout):
    model = dataclasses.replace(MODEL, bottleneck=bottleneck)
    check_same(run("one", model=model), run(layout, model=model))


def test_the_comparison_sees_a_difference():
    """Negative control: another seed."""
    assert apart(run("one"), run("one", seed=1)) > 0.5


def test_an_expert_trained_alone_equals_one_trained_beside_others():
    beside, alone = run("one"), run("one", names=("c",))
    only = jax.tree.map(lambda x: x[2:3], beside[:2])
    check_same((*only, [{k: v[2:3] for k, v in s.items()} for s in beside[2]]), alone)
    # And the experts do differ.
    assert apart(alone, (None, jax.tree.map(lambda x: x[1:2], beside[1]))) > 0.5


@pytest.mark.parametrize("layout", ["one", (1, 2, 2)], ids=str)
def test_experts_by_map_equals_vmap(layout):
    check_same(run("one"), run(layout, dataclasses.replace(DRAWS, experts_by="map")))


def test_a_checkpoint_goes_on_under_any_layout(tmp_path):
    """Eight devices of which four share the state, then two others, then pmap, then one alone."""
    tiny_run.write(tmp_path)
    e = tiny_run.experiment(tmp_path, steps=8)
    stop = lambda at: lambda step, values: step == at and os.kill(os.getpid(), signal.SIGINT)
    for at, layout in (
        (1, {"devices": jax.devices(), "fsdp": 4}),
        (3, {"devices": jax.devices()[4:6], "fsdp": 2}),
        (5, {"devices": jax.devices()[:2], "mode": "pmap"}),
    ):
        with pytest.raises(Interrupted, match=f"step {at + 1}"):
            tiny_run.train(e, tmp_path, on_log=stop(at), **layout)
    done = tiny_run.train(e, tmp_path)
    (tmp_path / "whole").mkdir()
    whole = tiny_run.train(e, tmp_path / "whole")
    assert done.step == whole.step == 8
    for a, b in zip(*(jax.tree.leaves(x.params) for x in (done, whole))):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["one", (2, 1, 4), (1, 2, 2), "pmap"], ids=str)
def test_gather_undoes_spread(layout):
    plan = plan_of(layout)
    state = {
        "w": np.arange(E * 6, dtype=np.float32).reshape(E, 6),
        "n": np.arange(E, dtype=np.int32),
    }
    found = jax.device_get(plan.gather(plan.spread(state)))
    assert all(
        np.array_equal(found[k], state[k]) and found[k].dtype == state[k].dtype for k in state
    )
    host = plan.to_host(plan.gather(plan.spread(state)))
    assert all(type(host[k]) is np.ndarray and np.array_equal(host[k], state[k]) for k in state)


def test_experts_and_rows_lie_where_the_mesh_says():
    plan = plan_of((2, 1, 4))
    rows = plan.put(batch(0))["tokens"]
    assert rows.shape == (E, B, MODEL.window)
    assert {s.data.shape for s in rows.addressable_shards} == {(1, B // 2, MODEL.window)}
    state = plan.spread({"w": np.zeros((E, 3))})["w"]
    assert {s.data.shape for s in state.addressable_shards} == {(1, 3)}
    assert plan_of("pmap").put(batch(0))["tokens"].shape == (8, E, B // 8, MODEL.window)


def test_keys_depend_on_the_name_and_the_seed_only():
    data = lambda seed, names: np.asarray(jax.random.key_data(parallel.expert_keys(seed, names)))
    assert np.array_equal(data(0, ["a", "b"])[1], data(0, ["b"])[0])
    assert len({tuple(row) for row in data(0, ["a", "b", "c"])}) == 3
    assert not np.array_equal(data(0, ["a"]), data(1, ["a"]))


@pytest.mark.parametrize(
    "arguments,words",
    [
        (("jit", 4, 16, 3), "mesh_expert=3 must divide the 8 devices"),
        (("jit", 3, 16, 2), "mesh_expert=2 must divide the 3 experts"),
        (("jit", 4, 12, 1), "batch=12 must be a multiple of the 8 devices"),
        (("jit", 4, 6, 2), "batch=6 must be a multiple of the 4 devices"),
        (("pmap", 4, 16, 2), "mesh_expert needs config.parallel='jit'"),
        (("jit", 4, 16, 1, None, 3), "mesh_fsdp=3 must divide the 8 devices"),
        (("jit", 4, 16, 4, None, 4), "mesh_expert=4 x mesh_fsdp=4 must divide the 8 devices"),
        (
            ("jit", 4, 12, 1, None, 2),
            "batch=12 must be a multiple of the 8 devices along the data axis and the fsdp axis",
        ),
        (("pmap", 4, 16, 1, None, 2), "mesh_fsdp needs config.parallel='jit'"),
        (("pmap", 4, 12, 1), "batch=12 must be a multiple of the 8 devices"),
    ],
)
def test_sizes_that_do_not_divide_are_one_clear_line(arguments, words):
    with pytest.raises(UserError, match=words) as caught:
        parallel.make_plan(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_micro_batches_must_divide_the_rows_of_a_device(tmp_path, mode):
    tiny_run.write(tmp_path)
    e = tiny_run.experiment(tmp_path, accumulate=2)
    with pytest.raises(UserError, match="accumulate=2 must divide the 1 rows"):
        tiny_run.train(e, tmp_path, mode=mode, devices=jax.devices())
