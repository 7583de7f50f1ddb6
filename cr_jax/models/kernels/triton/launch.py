"""Starting a Pallas kernel over rows: block sizes, and interpretation on a CPU."""

import math
from collections.abc import Sequence

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas.triton import CompilerParams

EPS = 1e-6  # of `kernels.rms_norm`


def call(
    kernel,
    grid: tuple[int, ...],
    ins: Sequence[pl.BlockSpec],
    outs,
    shapes,
    warps: int,
    name: str,
    aliases: dict[int, int] | None = None,
):
    """`pl.pallas_call` for Triton with `warps` warps a program; `name` shows in profiles."""
    how = (
        {"interpret": True}
        if jax.default_backend() == "cpu"
        else {"compiler_params": CompilerParams(num_warps=warps, num_stages=1)}
    )
    return pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=list(ins),
        out_specs=outs,
        out_shape=shapes,
        input_output_aliases=aliases or {},
        name=name,
        **how,
    )


def rows_of(count: int, width: int, most: int) -> int:
    """Rows of a block: a power of two that divides `count`, of at most `most` numbers in all."""
    return math.gcd(count, 1 << max(0, (most // width).bit_length() - 1))


def like(x: jax.Array, shape: tuple[int, ...] | None = None) -> jax.ShapeDtypeStruct:
    """An output of x's dtype, and of its shape unless another is given."""
    return jax.ShapeDtypeStruct(x.shape if shape is None else shape, x.dtype)
