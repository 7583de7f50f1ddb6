"""How a step is mapped over experts and devices: the one place that says jit, pmap or mesh.

State leaves carry a leading expert axis [E, ...] and batches are [E, B, L]; E may be 1.
`jit`: one program over a `Mesh` with axes ("data", "fsdp", "expert") that split experts, rows and
the parts of the state (`parallel.partition`).  `pmap`: every device holds all experts and a share
of the rows.  Where devices share no weights, in both, each runs the step of its own experts and
rows, as a single device would, and gradients are added with `psum`; with "fsdp" the compiler splits
one step for all and adds the collectives.  All equal a single device (tests/parallel/test_plan.py).
Not in the paper.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cr_jax.data.batches import Share
from cr_jax.errors import UserError
from cr_jax.parallel import partition
from cr_jax.parallel.over_experts import over_experts, rows_stay
from cr_jax.parallel.partition import AXES, ROWS
from cr_jax.parallel.program import Program, reserved

AGREE_EVERY = 8  # steps


@dataclasses.dataclass(frozen=True)
class Plan:
    """Devices laid out for a run.  Make one with `make_plan`."""

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
        shapes = jax.eval_shape(jax.vmap(make), keys)
        if self.mode == "pmap":
            return shapes
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            shapes,
            self.shardings(shapes),
        )

    def init(self, make: Callable[[jax.Array], Any], keys: jax.Array) -> Any:
        """Runs `make(key)` for each expert's key on the devices: stacked state [E, ...]."""
        stacked = jax.vmap(make)
        if self.mode == "jit":
            shards = self.shardings(jax.eval_shape(stacked, keys))
            return jax.jit(stacked, out_shardings=shards)(keys)
        return self.spread(jax.jit(stacked)(keys))

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
        """numpy arrays [E, ...] on process 0, None leaves on the others; all must call it.

        tree: stacked arrays as `gather` gives them.  One leaf at a time passes through the
        devices whole.
        """
        if jax.process_count() == 1:
            return jax.device_get(tree)

        def fetch(x):
            if isinstance(x, jax.Array) and not x.is_fully_replicated:
                x = multihost_utils.process_allgather(x, tiled=True)
            return np.asarray(x) if jax.process_index() == 0 else None

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

    def compile_step(
        self,
        make_step: Callable[[str | None], Callable],
        experts_by: Literal["vmap", "map"],
        state: Any,
        batch: Any,
    ) -> Program:
        """Compiles step(state, batch, progress [E]) -> (state, sums [E]); the state is donated.

        make_step(axis_name) gives one expert's pure `train_step`; state and batch: arrays in the
        layout of `init` and `put`, or under `jit` shapes.
        """
        side_by_side = self.mesh.shape["expert"]
        own = lambda: over_experts(make_step("data"), self.experts // side_by_side, experts_by)
        if self.mode == "jit":
            shards = self.shardings(state)
            if self.steps_alone and jax.device_count() > 1:
                places = (jax.tree.map(lambda s: s.spec, shards), self.batch_sharding.spec)
                step = jax.shard_map(
                    own(),
                    mesh=self.mesh,
                    in_specs=(*places, PartitionSpec("expert")),
                    out_specs=(places[0], PartitionSpec("expert")),
                    check_vma=False,
                )
            else:
                step = rows_stay(
                    over_experts(make_step(None), self.experts, experts_by, side_by_side, "expert"),
                    self.mesh,
                )
            compiled = (
                jax.jit(
                    step,
                    donate_argnums=0,
                    in_shardings=(shards, self.batch_sharding, self.replicated),
                    out_shardings=(shards, self.replicated),
                )
                .lower(state, batch, jax.ShapeDtypeStruct((self.experts,), jnp.float32))
                .compile()
            )
            return Program(compiled, self.experts, reserved(compiled))
        mapped, ahead = (
            jax.pmap(
                own(),
                "data",
                in_axes=(0, 0, None),
                donate_argnums=0,
                devices=list(self.mesh.devices.flat),
            ),
            jax.process_count() == 1,
        )
        if ahead:  # of several processes JAX's compiled pmap takes no arrays of one's own devices
            mapped = mapped.lower(state, batch, np.zeros(self.experts, np.float32)).compile()

        def run(state, batch, progress):
            state, sums = mapped(state, batch, progress)
            return state, jax.tree.map(lambda x: x.addressable_shards[0].data[0], sums)

        return Program(run, self.experts, None, ahead)

    def compile_sums(
        self,
        make_sums: Callable[[str | None], Callable],
        experts_by: Literal["vmap", "map"],
        params: Any,
        batch: Any,
    ) -> Callable[[Any, Any], Any]:
        """Compiles sums(params, batch) -> sums [E] that every process can read; nothing is donated.

        make_sums(axis_name) gives one expert's pure function, which adds over the devices of that
        axis itself; params and batch as in `compile_step`, the batch as `put_whole` gives it.
        """
        side_by_side, none = self.mesh.shape["expert"], np.zeros(self.experts, np.float32)

        def one(axis_name):
            sums = make_sums(axis_name)
            return lambda params, batch, _: sums(params, batch)

        own = lambda: over_experts(one("data"), self.experts // side_by_side, experts_by)
        if self.mode == "pmap":
            mapped = jax.pmap(
                own(), "data", in_axes=(0, 0, None), devices=list(self.mesh.devices.flat)
            )
            if jax.process_count() == 1:
                mapped = mapped.lower(params, batch, none).compile()
            return lambda params, batch: jax.tree.map(
                lambda x: x.addressable_shards[0].data[0], mapped(params, batch, none)
            )
        shards = jax.tree.map(lambda x: x.sharding, params)
        if self.steps_alone and jax.device_count() > 1:
            run = jax.shard_map(
                own(),
                mesh=self.mesh,
                check_vma=False,
                out_specs=PartitionSpec("expert"),
                in_specs=(
                    jax.tree.map(lambda s: s.spec, shards),
                    self.batch_sharding.spec,
                    PartitionSpec("expert"),
                ),
            )
        else:
            run = rows_stay(
                over_experts(one(None), self.experts, experts_by, side_by_side, "expert"), self.mesh
            )
        compiled = (
            jax.jit(
                run,
                in_shardings=(shards, self.batch_sharding, self.replicated),
                out_shardings=self.replicated,
            )
            .lower(params, batch, none)
            .compile()
        )
        return lambda params, batch: compiled(params, batch, none)


def make_plan(
    mode: Literal["jit", "pmap"],
    experts: int,
    batch: int,
    mesh_expert: int = 1,
    devices=None,
    mesh_fsdp: int = 1,
) -> Plan:
    """Lays out all devices: mesh_expert x mesh_fsdp of them, the rest along "data".

    Raises `UserError` when experts or rows do not divide over them.
    """
    devices = list(jax.devices() if devices is None else devices)
    count = len(devices)
    for name, size in (("mesh_expert", mesh_expert), ("mesh_fsdp", mesh_fsdp)):
        if mode == "pmap" and size != 1:
            raise UserError(f"config.{name} needs config.parallel='jit': pmap splits rows only")
        if count % size:
            raise UserError(f"config.{name}={size} must divide the {count} devices")
    if count % (mesh_expert * mesh_fsdp):
        raise UserError(
            f"config.mesh_expert={mesh_expert} x mesh_fsdp={mesh_fsdp} must divide "
            f"the {count} devices"
        )
    if experts % mesh_expert:
        raise UserError(f"config.mesh_expert={mesh_expert} must divide the {experts} experts")
    rows = count // mesh_expert
    if batch % rows:
        raise UserError(
            f"config.train.batch={batch} must be a multiple of the {rows} devices "
            "along the data axis" + ("" if mesh_fsdp == 1 else " and the fsdp axis")
        )
    # Neighbours share the parts of one expert, over the fastest links; experts never talk to
    # each other, so they may lie furthest apart.
    grid = np.asarray(devices).reshape(mesh_expert, rows // mesh_fsdp, mesh_fsdp)
    # Auto axes: explicit ones break the embedding gather under jit.
    mesh = Mesh(grid.transpose(1, 2, 0), AXES, axis_types=(AxisType.Auto,) * 3)
    return Plan(mode, mesh, experts, batch)


def agreed(step: int, stop: bool, save: bool, look: bool = False) -> tuple[bool, bool, bool]:
    """(some process wants to stop, process 0 wants to save, and to validate), the same answer in
    every process.

    Each has its own clock and gets its own signals; two that save at different steps would wait
    for each other for ever.  Several processes ask each other every `AGREE_EVERY` steps.
    """
    if jax.process_count() == 1:
        return stop, save, look
    if step % AGREE_EVERY:
        return False, False, False
    wishes = multihost_utils.process_allgather(np.array([stop, save, look]))
    return bool(wishes[:, 0].any()), bool(wishes[0, 1]), bool(wishes[0, 2])


def expert_keys(seed: int, names) -> jax.Array:
    """One key per expert, a function of the seed and the expert's name only.

    Training an expert alone or beside others starts from the same weights.
    """
    root = jax.random.key(seed)
    number = lambda n: int.from_bytes(hashlib.sha256(n.encode()).digest()[:4], "big")
    return jnp.stack([jax.random.fold_in(root, number(n)) for n in names])


def _place(x, sharding):
    if isinstance(x, jax.Array) and x.sharding == sharding:
        return x
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def _fold_rows(x: np.ndarray, devices: int) -> np.ndarray:
    """[E, b, ...] -> [devices, E, b / devices, ...]."""
    return np.moveaxis(x.reshape(x.shape[0], devices, -1, *x.shape[2:]), 1, 0)
