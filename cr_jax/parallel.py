"""How a step is mapped over experts and devices: the one place that says jit, pmap or mesh.

State leaves carry a leading expert axis [E, ...] and batches are [E, B, L]; E may be 1.
`jit`: one program over a `Mesh` with axes ("data", "expert"), experts and rows are split, the
compiler adds the collectives.  `pmap`: every device holds all experts and a share of the rows;
gradients are added with `psum`.  Both equal a single device (tests/test_parallel.py).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cr_jax.errors import UserError

AXES = ("data", "expert")
AGREE_EVERY = 8  # steps


@dataclasses.dataclass(frozen=True)
class Plan:
    """Devices laid out for a run.  Make one with `make_plan`."""

    mode: Literal["jit", "pmap"]
    mesh: Mesh
    experts: int

    @property
    def state_sharding(self) -> NamedSharding:
        """Leading expert axis over "expert", everything else whole on each data row."""
        return NamedSharding(self.mesh, PartitionSpec("expert"))

    @property
    def batch_sharding(self) -> NamedSharding:
        """[E, B, ...]: experts over "expert", rows over "data"."""
        return NamedSharding(self.mesh, PartitionSpec("expert", "data"))

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    def init(self, make: Callable[[jax.Array], Any], keys: jax.Array):
        """Runs `make(key)` for each expert's key on the devices: stacked state [E, ...]."""
        stacked = jax.vmap(make)
        if self.mode == "jit":
            return jax.jit(stacked, out_shardings=self.state_sharding)(keys)
        return self.spread(jax.jit(stacked)(keys))

    def spread(self, state):
        """Stacked state [E, ...] of arrays on a host -> the layout that `step` takes."""
        if self.mode == "jit":
            return jax.tree.map(lambda x: _place(np.asarray(x), self.state_sharding), state)
        sharding = NamedSharding(self.mesh, PartitionSpec("data"))
        copies = len(self.mesh.local_devices)

        def repeat(x):
            local = np.broadcast_to(np.asarray(x)[None], (copies, *np.shape(x)))
            return jax.make_array_from_process_local_data(sharding, local)

        return jax.tree.map(repeat, state)

    def gather(self, state):
        """The reverse of `spread`: stacked state [E, ...], independent of devices and mode."""
        if self.mode == "jit":
            return state
        return jax.tree.map(lambda x: x.addressable_shards[0].data[0], state)

    def put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array | np.ndarray]:
        """This process's rows [E, b, ...] -> the global batch, in the form that `step` takes."""
        if self.mode == "jit":
            return {k: jax.make_array_from_process_local_data(self.batch_sharding, v)
                    for k, v in batch.items()}
        return {k: _fold_rows(v, len(self.mesh.local_devices)) for k, v in batch.items()}

    def compile_step(
        self, make_step: Callable[[str | None], Callable], experts_by: Literal["vmap", "map"]
    ) -> Callable:
        """-> step(state, batch, progress) -> (state, sums [E]); the state is donated.

        make_step(axis_name) gives one expert's pure `train_step`.
        """
        step = over_experts(
            make_step("data" if self.mode == "pmap" else None), self.experts, experts_by)
        if self.mode == "jit":
            return jax.jit(
                step, donate_argnums=0,
                in_shardings=(self.state_sharding, self.batch_sharding, self.replicated),
                out_shardings=(self.state_sharding, self.replicated))
        mapped = jax.pmap(step, "data", in_axes=(0, 0, None), donate_argnums=0,
                          devices=list(self.mesh.devices.flat))

        def run(state, batch, progress):
            state, sums = mapped(state, batch, progress)
            return state, jax.tree.map(lambda x: x.addressable_shards[0].data[0], sums)

        return run


def make_plan(mode: Literal["jit", "pmap"], experts: int, batch: int, mesh_expert: int = 1,
              devices=None) -> Plan:
    """Lays out all devices.  Raises `UserError` when experts or rows do not divide over them."""
    devices = list(jax.devices() if devices is None else devices)
    count = len(devices)
    if mode == "pmap" and mesh_expert != 1:
        raise UserError("config.mesh_expert needs config.parallel='jit': pmap splits rows only")
    if count % mesh_expert:
        raise UserError(f"config.mesh_expert={mesh_expert} must divide the {count} devices")
    if experts % mesh_expert:
        raise UserError(f"config.mesh_expert={mesh_expert} must divide the {experts} experts")
    rows = count // mesh_expert
    if batch % rows:
        raise UserError(f"config.train.batch={batch} must be a multiple of the {rows} devices "
                        "along the data axis")
    grid = np.asarray(devices).reshape(rows, mesh_expert)
    # Auto axes: explicit ones break the embedding gather under jit.
    return Plan(mode, Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 2), experts)


def over_experts(step: Callable, experts: int, by: Literal["vmap", "map"]) -> Callable:
    """Maps `step(state, batch, progress)` over the leading expert axis.

    One expert is unwrapped instead, so that a single model pays nothing for the axis.
    """
    if experts == 1:
        squeeze = functools.partial(jax.tree.map, lambda x: x[0])

        def single(state, batch, progress):
            out = step(squeeze(state), squeeze(batch), progress)
            return jax.tree.map(lambda x: x[None], out)

        return single
    if by == "vmap":
        return jax.vmap(step, in_axes=(0, 0, None))
    return lambda state, batch, progress: jax.lax.map(
        lambda pair: step(*pair, progress), (state, batch))


def agreed(step: int, stop: bool, save: bool) -> tuple[bool, bool]:
    """(some process wants to stop, process 0 wants to save), the same answer in every process.

    Each has its own clock and gets its own signals; two that save at different steps would wait
    for each other for ever.  Several processes ask each other every `AGREE_EVERY` steps.
    """
    if jax.process_count() == 1:
        return stop, save
    if step % AGREE_EVERY:
        return False, False
    wishes = multihost_utils.process_allgather(np.array([stop, save]))
    return bool(wishes[:, 0].any()), bool(wishes[0, 1])


def expert_keys(seed: int, names) -> jax.Array:
    """One key per expert, a function of the seed and the expert's name only.

    Training an expert alone or beside others starts from the same weights.
    """
    import hashlib

    root = jax.random.key(seed)
    number = lambda n: int.from_bytes(hashlib.sha256(n.encode()).digest()[:4], "big")
    return jnp.stack([jax.random.fold_in(root, number(n)) for n in names])


def _place(x, sharding):
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def _fold_rows(x: np.ndarray, devices: int) -> np.ndarray:
    """[E, b, ...] -> [devices, E, b / devices, ...]."""
    return np.moveaxis(x.reshape(x.shape[0], devices, -1, *x.shape[2:]), 1, 0)
