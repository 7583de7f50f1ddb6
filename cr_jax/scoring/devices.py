"""Windows dealt over processes and their devices: each scores its share by all experts.

    windows [B, L] -> B / P of them in each of P processes -> B / (P D) on each of its D devices
    -> arrays [E, B, ...] in every process

Each device holds all experts, or with `BatchSizes.fsdp` its part of each (`parallel.partition`).
Not in the paper.  Letters: E experts, B windows, P processes, D devices, L tokens.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.parallel import partition, processes
from cr_jax.parallel.over_experts import rows_stay
from cr_jax.scoring.batching import BatchSizes, in_batches

WINDOWS = "windows"  # axis of the mesh
SMALL = partition.SMALL

# score(scorer, params, tokens, mask, groups) -> arrays [E, B, ...], `router.score_experts`
Score = Callable[..., Any]


def scored(
    score: Score, scorer: Hashable, params: Any, windows: Windows, sizes: BatchSizes, rows: int = 0
) -> Any:
    """Scores any number of windows by all experts -> numpy arrays [E, B, ...].

    params: [E, ...]; rows: windows of one call, 0: chosen by their number (`BatchSizes.rows`).

    With rows=0, more than `sizes.windows` windows are dealt over `sizes.processes`, each of which
    must make this call, and over `sizes.devices`: a call of a program takes `sizes.windows` for
    every device.  The number of either changes results by rounding at most.

    With `sizes.fsdp` > 1, and where params are `split` already, any number of windows goes over all
    these devices, and no device is sent more than its part of a large leaf; params may then lie on
    the host.  `UserError` when this process has fewer devices, or fsdp does not divide them.
    """
    groups = sizes.groups(jax.tree.leaves(params)[0].shape[0])
    few = rows or len(windows) <= sizes.windows
    if sizes.processes > 1 and not few:
        own = dataclasses.replace(sizes, processes=1)
        mine = windows.take(share(len(windows), jax.process_index(), sizes.processes))
        parts = processes.gathered(scored(score, scorer, params, mine, own))
        return jax.tree.map(lambda x: np.concatenate(x, 1)[:, : len(windows)], parts)
    mesh = _split_before(params)
    if sizes.fsdp > 1 or mesh is not None:
        parts = split(params, sizes) if mesh is None else params
        mesh = mesh or _split_mesh(sizes)
        run = _split_program(score, scorer, groups, mesh)
        count = mesh.size  # every call has as many windows for each device
        each = -(-(rows or sizes.rows(len(windows))) // count) if few else sizes.windows
        return in_batches(functools.partial(run, parts), windows, each * count, axis=1)
    if few or sizes.devices == 1:
        one = functools.partial(score, scorer, params, groups=groups)
        return in_batches(one, windows, rows or sizes.rows(len(windows)), axis=1)
    mesh = _mesh(sizes.devices)
    everywhere = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    each = functools.partial(_program(score, scorer, groups, mesh), everywhere)
    return in_batches(each, windows, sizes.windows * sizes.devices, axis=1)


def share(count: int, process: int, all_processes: int) -> Int[np.ndarray, " S"]:
    """Which of `count` windows a process scores.  As many in each, so the last windows may be
    scored twice; the shares in order begin with every window once.

    >>> [share(5, p, 2).tolist() for p in (0, 1)]
    [[0, 1, 2], [3, 4, 4]]
    """
    each = -(-count // all_processes)
    return np.minimum(np.arange(process * each, (process + 1) * each), count - 1)


def split(params: Any, sizes: BatchSizes) -> Any:
    """Parameters [E, ...] on a host or on devices -> over all devices of `sizes`, no large leaf
    whole on any of them."""
    mesh = _split_mesh(sizes)
    return jax.device_put(params, partition.shardings(mesh, params, small=SMALL))


def _split_before(params: Any) -> Mesh | None:
    """The devices that share these parameters, where several do."""
    for leaf in jax.tree.leaves(params):
        where = getattr(leaf, "sharding", None)
        if isinstance(where, NamedSharding) and where.mesh.shape.get("fsdp", 1) > 1:
            return where.mesh
    return None


def _mesh(count: int) -> Mesh:
    there = jax.local_devices()
    if count > len(there):
        raise UserError(f"BatchSizes.devices={count}, and this process has {len(there)}")
    return Mesh(np.array(there[:count]), (WINDOWS,))


def _split_mesh(sizes: BatchSizes) -> Mesh:
    """Axes as in training: [copies of the weights, parts of a copy, 1]."""
    count, there = max(sizes.devices, sizes.fsdp), jax.local_devices()
    if count > len(there) or count % sizes.fsdp:
        raise UserError(
            f"BatchSizes.fsdp={sizes.fsdp} must divide its devices ({count}), and this process has "
            f"{len(there)}"
        )
    grid = np.array(there[:count]).reshape(-1, sizes.fsdp, 1)
    return Mesh(grid, partition.AXES, axis_types=(AxisType.Auto,) * 3)


# Cached by its arguments: a new closure in every call would be compiled in every call.
@functools.lru_cache(maxsize=16)
def _program(score: Score, scorer: Hashable, groups: tuple[int, int], mesh: Mesh):
    def one(params, tokens, mask):
        return score(scorer, params, tokens, mask, groups)

    # shard_map: each device runs the whole program on its windows, so it may use the fast kernels,
    # which XLA cannot split over devices.
    rows, whole = PartitionSpec(WINDOWS), PartitionSpec()
    out = PartitionSpec(None, WINDOWS)
    return jax.jit(
        jax.shard_map(one, mesh=mesh, in_specs=(whole, rows, rows), out_specs=out, check_vma=False)
    )


@functools.lru_cache(maxsize=16)
def _split_program(score: Score, scorer: Hashable, groups: tuple[int, int], mesh: Mesh):
    # Unwrapped: the trace that a jitted function keeps from other calls has no pinned rows.
    plain = inspect.unwrap(score)

    def one(params, tokens, mask):
        return plain(scorer, params, tokens, mask, groups)

    rows = NamedSharding(mesh, PartitionSpec(partition.ROWS))
    return jax.jit(
        rows_stay(one, mesh),
        in_shardings=(None, rows, rows),  # None: as the parts lie
        out_shardings=NamedSharding(mesh, PartitionSpec(None, partition.ROWS)),
    )
