"""Latents as they are kept: numbers of 32, 16, 8 or 4 bits, and back.

    z [B, M, Dz] -> stored -> Codes -> values -> z

Integers are signed and symmetric, with one scale per latent: of 24 ranges the one with the least
squared error, so that a window can be written without any other.  Not in the paper; what fidelity
each keeps is in results/bits.json.  Letters: B windows, M latents, Dz their width.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

BITS = {"float32": 32, "bfloat16": 16, "int8": 8, "int4": 4}


class Codes(NamedTuple):
    """numbers: [B, M, Dz], of int4 two in a byte, uint8 [B, M, (Dz + 1) // 2]; scale: float32
    [B, M], of none but integers [B, 0]."""

    numbers: Any
    scale: Any


@functools.partial(jax.jit, static_argnames="dtype")
def stored(z: Float[Array, "B M Dz"], dtype: str) -> Codes:
    """Codes of latents, in one of `BITS`."""
    z = z.astype(jnp.float32)
    if BITS[dtype] > 8:
        return Codes(z.astype(dtype), jnp.zeros((len(z), 0), jnp.float32))
    top = 2 ** (BITS[dtype] - 1) - 1
    scale = _scale(z, top)
    steps = jnp.clip(jnp.round(z / scale[..., None]), -top, top).astype(jnp.int8)
    return Codes(_packed(steps) if dtype == "int4" else steps, scale)


@functools.partial(jax.jit, static_argnames=("dtype", "width"))
def values(codes: Codes, dtype: str, width: int) -> Float[Array, "B M Dz"]:
    """float32 latents of width Dz that the codes stand for."""
    if BITS[dtype] > 8:
        return codes.numbers.astype(jnp.float32)
    steps = _unpacked(codes.numbers)[..., :width] if dtype == "int4" else codes.numbers
    return steps.astype(jnp.float32) * codes.scale[..., None]


def shapes(dtype: str, latents: int, width: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """Field of `Codes` -> (shape of one window, dtype of the array)."""
    numbers = (
        ((latents, (width + 1) // 2), "uint8") if dtype == "int4" else ((latents, width), dtype)
    )
    scales = latents if BITS[dtype] <= 8 else 0
    return {"numbers": numbers, "scale": ((scales,), "float32")}


def _scale(z, top: int):
    largest = jnp.max(jnp.abs(z), -1) + 1e-12  # a latent of zeros has a scale too

    def error(share):
        scale = (share * largest / top)[..., None]
        steps = jnp.clip(jnp.round(z / scale), -top, top)
        return jnp.sum(jnp.square(z - steps * scale), -1)

    shares = jnp.geomspace(0.3, 1.0, 24)
    best = shares[jnp.argmin(jax.lax.map(error, shares), 0)]
    return best * largest / top


def _packed(steps):
    """int8 in [-8, 7] -> two in a byte, the first in the low half."""
    even = jnp.pad(steps, ((0, 0), (0, 0), (0, steps.shape[-1] % 2)))
    half = (even & 0xF).astype(jnp.uint8)
    return half[..., ::2] | (half[..., 1::2] << 4)


def _unpacked(packed):
    halves = jnp.stack([packed & 0xF, packed >> 4], -1).reshape(*packed.shape[:-1], -1)
    return ((halves.astype(jnp.int8) ^ 8) - 8).astype(jnp.int8)
