"""Where a run's arrays lie: states [E, ...] and batches [E, B, ...] over devices and processes.

Under `jit` a leaf is one array over the `Mesh` ("data", "fsdp", "expert"), split by
`parallel.partition`; under `pmap` every device holds all experts, on a further leading axis.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cr_jax.data.batches import Share
from cr_jax.parallel import partition, programs
from cr_jax.parallel.partition import ROWS


@dataclasses.dataclass(frozen=True)
class Layout:
    """Devices laid out for a run, and where its arrays lie on them."""

    mode: Literal["jit", "pmap"]
    mesh: Mesh
    experts: int
    batch: int  # rows per expert and step, over all devices
    small: int = partition.SMALL

    @property
    def row_devices(self) -> int:
        """Over how many devices the rows of one expert are split."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    @property
    def steps_alone(self) -> bool:
        """Whether each device runs a step that knows of no other but for sums."""
        return self.mesh.shape["fsdp"] == 1

    @property
    def devices_seen(self) -> int:
        """How many devices' rows a traced step sees: what counts tokens of one is multiplied."""
        return 1 if self.steps_alone else self.row_devices

    @property
    def batch_sharding(self) -> NamedSharding:
        """[E, B, ...]: experts over "expert", rows over "data" and "fsdp"."""
        return NamedSharding(self.mesh, PartitionSpec("expert", ROWS))

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def share(self) -> Share:
        """What this process reads: no more than its devices need, when that is a block."""
        shape = (self.experts, self.batch)
        index = self.batch_sharding.addressable_devices_indices_map(shape).values()
        bounds = [[i[axis].indices(shape[axis])[:2] for i in index] for axis in (0, 1)]
        (e0, e1), (r0, r1) = ((min(a for a, _ in b), max(z for _, z in b)) for b in bounds)
        rows = r1 - r0
        whole = self.batch % rows or r0 % rows
        return Share(slice(e0, e1), 0 if whole else r0 // rows, 1 if whole else self.batch // rows)

    def shardings(self, state: Any) -> Any:
        """Where the leaves of a stacked state (arrays or shapes) lie under `jit`."""
        return partition.shardings(self.mesh, state, small=self.small)

    def shapes(self, make: Callable[[jax.Array], Any], keys: jax.Array) -> Any:
        """What `init` would give, as `jax.ShapeDtypeStruct`s; under `jit` with their shardings."""

        def found():
            shapes = jax.eval_shape(jax.vmap(make), keys)
            if self.mode == "pmap":
                return shapes
            return jax.tree.map(
                lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
                shapes,
                self.shardings(shapes),
            )

        return programs.once(make, ("shapes", self, keys.shape), found)

    def init(self, make: Callable[[jax.Array], Any], keys: jax.Array) -> Any:
        """Runs `make(key)` for each expert's key on the devices: stacked state [E, ...]."""

        def build():
            if self.mode == "pmap":
                return jax.jit(jax.vmap(make))
            shards = jax.tree.map(lambda x: x.sharding, self.shapes(make, keys))
            return jax.jit(jax.vmap(make), out_shardings=shards)

        state = programs.once(make, ("init", self, keys.shape), build)(keys)
        return state if self.mode == "jit" else self.spread(state)

    def spread(self, state: Any) -> Any:
        """Stacked state [E, ...], on a host or as `gather` gives it -> the layout of a step."""
        if self.mode == "jit":
            return jax.tree.map(_place, state, self.shardings(state))
        sharding = NamedSharding(self.mesh, PartitionSpec("data"))
        copies = len(self.mesh.local_devices)

        def repeat(x):
            local = np.broadcast_to(np.asarray(x)[None], (copies, *np.shape(x)))
            return jax.make_array_from_process_local_data(sharding, local)

        return jax.tree.map(repeat, state)

    def gather(self, state: Any) -> Any:
        """The reverse of `spread`: stacked state [E, ...], independent of mode and devices.

        Under `jit` its parts stay where they are, maybe on other processes: see `to_host`.
        """
        if self.mode == "jit":
            return state
        first = lambda x: x.addressable_shards[0].data[0]
        if jax.process_count() == 1:
            return jax.tree.map(first, state)
        # An array on one process's device is no array of the run: Orbax would refuse it.
        return jax.tree.map(lambda x: np.asarray(first(x)), state)

    def to_host(self, tree: Any) -> Any:
        """numpy arrays [E, ...] on every process; all must call it.

        tree: stacked arrays as `gather` gives them.  One leaf at a time passes through the
        devices whole.
        """
        if jax.process_count() == 1:
            return jax.device_get(tree)

        def fetch(x):
            if isinstance(x, jax.Array) and not x.is_fully_replicated:
                x = multihost_utils.process_allgather(x, tiled=True)
            return np.asarray(x)

        return jax.tree.map(fetch, tree)

    def put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array | np.ndarray]:
        """This process's `share` [e, b, ...] -> the global batch, in the form that a step takes."""
        if self.mode == "pmap":
            return {k: _fold_rows(v, len(self.mesh.local_devices)) for k, v in batch.items()}
        share = self.share
        first_row = share.block * (self.batch // share.blocks)

        def place(x):
            shape = (self.experts, self.batch, *x.shape[2:])

            def part(index):
                (e0, e1, _), (r0, r1, _) = (i.indices(n) for i, n in zip(index[:2], shape))
                return x[
                    e0 - share.experts.start : e1 - share.experts.start,
                    r0 - first_row : r1 - first_row,
                ]

            return jax.make_array_from_callback(shape, self.batch_sharding, part)

        return {k: place(v) for k, v in batch.items()}

    def put_whole(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array | np.ndarray]:
        """A batch [E, N, ...] that every process has whole, in the form that `put` gives.

        N: any multiple of `row_devices`.
        """
        if self.mode == "jit":
            return jax.tree.map(lambda x: _place(x, self.batch_sharding), batch)
        devices = list(self.mesh.devices.flat)
        mine = [i for i, d in enumerate(devices) if d.process_index == jax.process_index()]
        return {k: _fold_rows(v, len(devices))[mine] for k, v in batch.items()}


def _place(x, sharding):
    if isinstance(x, jax.Array) and x.sharding == sharding:
        return x
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def _fold_rows(x: np.ndarray, devices: int) -> np.ndarray:
    """[E, b, ...] -> [devices, E, b / devices, ...]."""
    return np.moveaxis(x.reshape(x.shape[0], devices, -1, *x.shape[2:]), 1, 0)
