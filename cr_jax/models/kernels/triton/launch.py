"""Starting a Pallas kernel over rows: block sizes, and interpretation on a CPU."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas.triton import CompilerParams

EPS = 1e-6  # of `kernels.rms_norm`


@dataclasses.dataclass(frozen=True)
class Launch:
    """name: shows in profiles; grid: how many programs; warps: of each; aliases: place of an input
    -> place of the output that is written over it."""

    name: str
    grid: tuple[int, ...]
    warps: int
    aliases: Mapping[int, int] = dataclasses.field(default_factory=dict)


def call(launch: Launch, kernel, ins: Sequence[pl.BlockSpec], outs, shapes):
    """`pl.pallas_call` for Triton."""
    how = (
        {"interpret": True}
        if jax.default_backend() == "cpu"
        else {"compiler_params": CompilerParams(num_warps=launch.warps, num_stages=1)}
    )
    return pl.pallas_call(
        kernel,
        grid=launch.grid,
        in_specs=list(ins),
        out_specs=outs,
        out_shape=shapes,
        input_output_aliases=dict(launch.aliases),
        name=launch.name,
        **how,
    )


def rows_of(count: int, width: int, most: int) -> int:
    """Rows of a block: a power of two that divides `count`, of at most `most` numbers in all."""
    return math.gcd(count, 1 << max(0, (most // width).bit_length() - 1))


def like(x: jax.Array, shape: tuple[int, ...] | None = None) -> jax.ShapeDtypeStruct:
    """An output of x's dtype, and of its shape unless another is given."""
    return jax.ShapeDtypeStruct(x.shape if shape is None else shape, x.dtype)
