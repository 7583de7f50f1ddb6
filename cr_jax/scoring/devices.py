"""Windows dealt over several devices of this process: each has all experts and scores its share.

    windows [B, L] -> B / D of them on each of D devices -> arrays [E, B, ...]

Not in the paper.  Letters: E experts, B windows, D devices, L tokens.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.scoring.batching import BatchSizes, in_batches

WINDOWS = "windows"  # axis of the mesh

# score(scorer, params, tokens, mask, groups) -> arrays [E, B, ...], `router.score_experts`
Score = Callable[..., Any]


def scored(
    score: Score, scorer: Hashable, params: Any, windows: Windows, sizes: BatchSizes, rows: int = 0
) -> Any:
    """Scores any number of windows by all experts -> numpy arrays [E, B, ...].

    params: [E, ...]; rows: windows of one call, 0: chosen by their number (`BatchSizes.rows`).

    With rows=0, more than `sizes.windows` windows are dealt over `sizes.devices`: each call takes
    `sizes.windows` for every device.  The number of devices changes results by rounding at most.
    `UserError` when this process has fewer devices.
    """
    groups = sizes.groups(jax.tree.leaves(params)[0].shape[0])
    if rows or sizes.devices == 1 or len(windows) <= sizes.windows:
        one = functools.partial(score, scorer, params, groups=groups)
        return in_batches(one, windows, rows or sizes.rows(len(windows)), axis=1)
    mesh = _mesh(sizes.devices)
    everywhere = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    each = functools.partial(_program(score, scorer, groups, mesh), everywhere)
    return in_batches(each, windows, sizes.windows * sizes.devices, axis=1)


def _mesh(count: int) -> Mesh:
    there = jax.local_devices()
    if count > len(there):
        raise UserError(f"BatchSizes.devices={count}, and this process has {len(there)}")
    return Mesh(np.array(there[:count]), (WINDOWS,))


# Cached by its arguments: a new closure in every call would be compiled in every call.
@functools.lru_cache(maxsize=16)
def _program(score: Score, scorer: Hashable, groups: tuple[int, int], mesh: Mesh):
    def share(params, tokens, mask):
        return score(scorer, params, tokens, mask, groups)

    # shard_map: each device runs the whole program on its windows, so it may use the fast kernels,
    # which XLA cannot split over devices.
    rows, whole = PartitionSpec(WINDOWS), PartitionSpec()
    out = PartitionSpec(None, WINDOWS)
    return jax.jit(
        jax.shard_map(
            share, mesh=mesh, in_specs=(whole, rows, rows), out_specs=out, check_vma=False
        )
    )
