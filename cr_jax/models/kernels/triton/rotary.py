"""q and k normalised per head and rotated, v beside them: one pass over the joined product."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from cr_jax.models.kernels.triton.launch import EPS, Launch, call, like, rows_of
from cr_jax.models.kernels.triton.product import joined

# As in `norm`: the fastest of six pairs for 512 wide rows; others are up to 10 % slower.
MOST, WARPS = 2048, 4


def heads(x, kernel, positions, count):
    """`kernels.heads` without a context."""
    half = x.shape[-1] // count // 2
    frequency = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions.astype(jnp.float32)[:, None] * frequency[None, :]
    product = joined(x, kernel).reshape(-1, 3, count, 2, half)
    parts = _heads(product, jnp.cos(angle), jnp.sin(angle))
    return tuple(part.reshape(*x.shape[:-1], count, 2 * half) for part in parts)


def _turn(a, b, cos, sin):
    return a * cos - b * sin, a * sin + b * cos


def _halves(ref, *part):
    """A head's two halves of part q, k or v, or of a reference to one of them: float32."""
    return (
        ref[(slice(None), *part, slice(None), i, slice(None))].astype(jnp.float32) for i in (0, 1)
    )


def _mean(a, b):
    """Mean over a head, of which a and b are halves."""
    return (jnp.sum(a, -1, keepdims=True) + jnp.sum(b, -1, keepdims=True)) / (2 * a.shape[-1])


def _tables(cos_ref, sin_ref):
    return cos_ref[...][:, None, :], sin_ref[...][:, None, :]


def _forward_kernel(x_ref, cos_ref, sin_ref, *out_refs):
    cos, sin = _tables(cos_ref, sin_ref)
    for part, out_ref in enumerate(out_refs):
        a, b = _halves(x_ref, part)
        if part < 2:  # q and k
            scale = lax.rsqrt(_mean(a * a, b * b) + EPS)
            a, b = _turn(a * scale, b * scale, cos, sin)
        out_ref[:, :, 0, :] = a.astype(out_ref.dtype)
        out_ref[:, :, 1, :] = b.astype(out_ref.dtype)


def _backward_kernel(x_ref, cos_ref, sin_ref, *refs):
    *g_refs, out_ref = refs
    cos, sin = _tables(cos_ref, sin_ref)
    for part, g_ref in enumerate(g_refs):
        da, db = _halves(g_ref)
        if part < 2:
            a, b = _halves(x_ref, part)
            scale = lax.rsqrt(_mean(a * a, b * b) + EPS)
            a, b = a * scale, b * scale
            da, db = _turn(da, db, cos, -sin)
            mean = _mean(da * a, db * b)
            da, db = scale * (da - a * mean), scale * (db - b * mean)
        out_ref[:, part, :, 0, :] = da.astype(out_ref.dtype)
        out_ref[:, part, :, 1, :] = db.astype(out_ref.dtype)


def _blocks(x, cos):
    """(grid, block of the product, block of q, k or v, block of a table); L is the tables' rows."""
    n, parts, count, _, half = x.shape
    length = cos.shape[0]
    rows = rows_of(length, 2 * count * half, MOST)
    return (
        (n // rows,),
        pl.BlockSpec((rows, parts, count, 2, half), lambda i: (i, 0, 0, 0, 0)),
        pl.BlockSpec((rows, count, 2, half), lambda i: (i, 0, 0, 0)),
        pl.BlockSpec((rows, half), lambda i: (i % (length // rows), 0)),
    )


def _forward(x, cos, sin):
    grid, whole, one, table = _blocks(x, cos)
    out = like(x, (x.shape[0], *x.shape[2:]))
    launch = Launch("qk_norm_rope", grid, WARPS)
    ins = [whole, table, table]
    return tuple(call(launch, _forward_kernel, ins, [one] * 3, [out] * 3)(x, cos, sin))


def _backward(x, cos, sin, gradients):
    grid, whole, one, table = _blocks(x, cos)
    launch = Launch("qk_norm_rope_gradient", grid, WARPS)
    ins = [whole, table, table] + [one] * 3
    return call(launch, _backward_kernel, ins, whole, like(x))(x, cos, sin, *gradients)


@jax.custom_vjp
def _heads(x, cos, sin):
    return _forward(x, cos, sin)


_heads.defvjp(
    lambda x, cos, sin: (_forward(x, cos, sin), (x, cos, sin)),
    lambda kept, g: (_backward(*kept, g), None, None),
)
