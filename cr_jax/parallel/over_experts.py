"""From one expert's step to the step of all experts on a mesh; used by `cr_jax.parallel.plan`."""

import functools
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cr_jax.parallel.partition import ROWS


def over_experts(
    step: Callable,
    experts: int,
    by: Literal["vmap", "map"],
    side_by_side: int = 1,
    axis: str | None = None,
) -> Callable:
    """Maps `step(state, batch, progress)` over the leading expert axis of all three.

    One expert is unwrapped instead, so that a single model pays nothing for the axis.  "map" runs
    one after another those experts that share a device: `side_by_side` devices, along mesh axis
    `axis`, hold the experts in equal blocks.
    """
    if experts == 1:
        squeeze = functools.partial(jax.tree.map, lambda x: x[0])

        def single(state, batch, progress):
            out = step(squeeze(state), squeeze(batch), progress[0])
            return jax.tree.map(lambda x: x[None], out)

        return single
    together = jax.vmap(step, spmd_axis_name=axis)
    if by == "vmap":
        return together
    if side_by_side == 1:
        return lambda state, batch, progress: jax.lax.map(
            lambda one: step(*one), (state, batch, progress)
        )

    def in_turn(state, batch, progress):
        # [E] -> [turns, devices]: every turn has one expert of each device.
        deal = lambda x: x.reshape(side_by_side, -1, *x.shape[1:]).swapaxes(0, 1)
        out = jax.lax.map(
            lambda some: together(*some), jax.tree.map(deal, (state, batch, progress))
        )
        return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(experts, *x.shape[2:]), out)

    return in_turn


def rows_stay(step: Callable, mesh: Mesh) -> Callable:
    """`step`, its activations split by rows and by nothing else, when "fsdp" splits the weights.

    Left alone, the compiler splits activations by the weights' axis: every device then computes
    with the whole batch and half of a step's memory is activations of other devices' rows.
    Pinned, it collects each block's weights where they are used
    (tests/parallel/test_partition.py counts both).
    The models know nothing of it: what enters and leaves their methods is pinned on the way.
    """
    if mesh.shape["fsdp"] == 1:
        return step
    rows = NamedSharding(mesh, PartitionSpec(ROWS))
    # Every array of three axes that a method takes or gives is [B, ...].
    pin = lambda x: jax.lax.with_sharding_constraint(x, rows) if getattr(x, "ndim", 0) == 3 else x

    def intercept(method, args, kwargs, context):
        return jax.tree.map(pin, method(*map(pin, args), **kwargs))

    def pinned(*args):
        with nn.intercept_methods(intercept):
            return step(*args)

    return pinned
