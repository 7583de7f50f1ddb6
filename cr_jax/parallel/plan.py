"""How a step is mapped over experts and devices: the one place that says jit, pmap or shard_map.

State leaves carry a leading expert axis [E, ...] and batches are [E, B, L]; E may be 1.
`jit`: one program over a `Mesh` with axes ("data", "fsdp", "expert") that split experts, rows and
the parts of the state (`parallel.partition`).  `pmap`: every device holds all experts and a share
of the rows.  Where devices share no weights, in both, each runs the step of its own experts and
rows, as a single device would, and gradients are added with `psum`; with "fsdp" the compiler splits
one step for all and adds the collectives.  All equal a single device (tests/parallel/test_plan.py).
Where arrays lie: `parallel.layout`.  Not in the paper.
"""

import hashlib
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, PartitionSpec

from cr_jax.errors import UserError
from cr_jax.parallel import programs
from cr_jax.parallel.layout import Layout
from cr_jax.parallel.over_experts import over_experts, rows_stay
from cr_jax.parallel.partition import AXES
from cr_jax.parallel.program import Program, reserved

AGREE_EVERY = 8  # steps


class Plan(Layout):
    """A layout and the programs that run on it.  Make one with `make_plan`."""

    def compile_step(
        self,
        make_step: Callable[[str | None], Callable],
        experts_by: Literal["vmap", "map"],
        state: Any,
        batch: Any,
    ) -> Program:
        """Compiles step(state, batch, progress [E]) -> (state, sums [E]); the state is donated.

        make_step(axis_name) gives one expert's pure `train_step`; state and batch: arrays in the
        layout of `init` and `put`, or under `jit` shapes.  A program that this process has compiled
        for an equal `functools.partial` is not compiled again (`parallel.programs`).
        """
        key = ("step", self, experts_by, programs.shapes(state), programs.shapes(batch))
        build = lambda: self._step(make_step, experts_by, state, batch)
        return programs.once(make_step, key, build)

    def _step(self, make_step, experts_by, state, batch) -> Program:
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
        Kept as those of `compile_step` are.
        """
        key = ("sums", self, experts_by, programs.shapes(params), programs.shapes(batch))
        build = lambda: self._sums(make_sums, experts_by, params, batch)
        return programs.once(make_sums, key, build)

    def _sums(self, make_sums, experts_by, params, batch) -> Callable[[Any, Any], Any]:
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
