"""The sizes beyond the paper's: how large, how they are split, what a device must hold."""

import json
import math

import jax
import pytest

from benchmarks import memory_plan
from cr_jax import config as settings
from cr_jax import models
from cr_jax.parallel import partition
from cr_jax.parallel import plan as parallel
from cr_jax.training.losses import CompressorLoss
from cr_jax.training.step import init_state


@pytest.fixture(autouse=True)
def _mixed_types():
    """JAX transposes its own half precision attention with float32 cotangents."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize("variant,low,high", [("1b", 0.9e9, 1.2e9), ("7b", 6.5e9, 7.5e9)])
def test_real_sizes_and_where_their_parts_lie(variant, low, high):
    e = memory_plan.experiment(variant)
    assert low <= models.count_parameters(e.model) <= high
    assert settings.model_config(settings.to_dict(e.model)) == e.model
    plan = parallel.make_plan("jit", 1, e.train.batch, 1, jax.devices(), 8)
    state = plan.shapes(
        lambda key: init_state(CompressorLoss(e.model, e.train), e.optimizer, key),
        parallel.expert_keys(0, ("code",)),
    )
    small = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        part = leaf.sharding.shard_shape(leaf.shape)
        if math.prod(leaf.shape) > partition.SMALL:
            assert 8 * math.prod(part) == math.prod(leaf.shape), partition.name_of(path)
        else:
            small += math.prod(leaf.shape)
    assert small < 1e5
    blocks = state.params["params"]["encoder"]["blocks"]
    assert all(x.sharding.spec[1] is None for x in jax.tree.leaves(blocks))  # never by block
    momentum = [
        x
        for p, x in jax.tree_util.tree_leaves_with_path(state.opt_state)
        if partition.name_of(p).endswith("mu/params/encoder/blocks/mlp/up")
    ]
    assert momentum and all(x.dtype == "bfloat16" for x in momentum)


def test_the_plan_of_a_tiny_kin():
    e = memory_plan.experiment("1b", quick=True)
    one, eight = (memory_plan.plan_row("1b", e, n, n) for n in (1, 8))
    assert one["parameters"] == eight["parameters"] == models.count_parameters(e.model)
    # float32 parameters, a bfloat16 moment of each; AdamW's second moment beside.
    parameters = one["parameters"] * 4 / memory_plan.GIB
    assert 1.5 * parameters < one["state_gib"] < 2.5 * parameters
    assert 1 / 8 < eight["state_gib"] / one["state_gib"] < 1 / 4  # small leaves are not split
    assert 1 / 8 < eight["temporary_gib"] / one["temporary_gib"] < 1 / 2


def test_the_program_prints_a_table_and_writes_the_file(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(memory_plan, "CASES", (("1b", 8, 8),))
    assert memory_plan.main(["--quick", f"--out={tmp_path / 'plan.json'}"]) == 0
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["rows"][0].keys() >= set(memory_plan.COLUMNS)
    assert "--quick" in found["command"] and "CPU" in found["hardware"]
    assert len(capsys.readouterr().out.splitlines()) == 2
