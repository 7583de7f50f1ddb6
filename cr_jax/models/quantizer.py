"""Quantisers of z: integers put on after training, finite scalars learnt in training.

Not in the paper, which counts latents and not bits.  `Quantizer` is a finite scalar quantiser
(FSQ, arXiv 2309.15505): every number of z is bounded by tanh and rounded to one of `levels` values,
with a straight-through gradient.  Unlike there, the bounding is undone after rounding, so that a
compressor trained without it starts near its own latents (`insert`, then fine-tune).  All
functions work per channel: N latent vectors, Dz channels.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from cr_jax.config import ModelConfig

Numbers = Array | np.ndarray
Finite = dict[str, Any]  # {"log_scale" [Dz], "shift" [Dz]}: the parameters of a `Quantizer`


class Quantizer(nn.Module):
    """z -> z with at most `config.levels` values per channel; keeps shape and dtype."""

    config: ModelConfig

    @nn.compact
    def __call__(self, z: Float[Numbers, "... Dz"]) -> Float[Array, "... Dz"]:
        width = (self.config.d_latent,)
        # Fresh latents have variance near 1; tanh's cells fit a Gaussian of 0.6 times their scale.
        finite = {
            "log_scale": self.param("log_scale", nn.initializers.constant(0.5), width),
            "shift": self.param("shift", nn.initializers.zeros, width),
        }
        return quantize(z, finite, self.config.levels).astype(z.dtype)


def quantize(z: Float[Numbers, "... Dz"], finite: Finite, levels: int) -> Float[Array, "... Dz"]:
    """float32 values of the codes of z; differentiable in z and `finite`, straight through."""
    bounded = _bound(z, finite)
    centre = (2 * _cell(bounded, levels) + 1) / levels - 1
    # The sum's second term is exactly 0: values of one code stay equal to the last bit.
    return _unbound(centre + (bounded - jax.lax.stop_gradient(bounded)), finite)


def finite_codes(
    z: Float[Numbers, "... Dz"], finite: Finite, levels: Integer[Array, ""] | int
) -> Int[Array, "... Dz"]:
    """Which of `levels` equal cells of (-1, 1) holds tanh(z / scale - shift): 0 .. levels - 1."""
    return _cell(_bound(z, finite), levels).astype(jnp.int32)


def finite_values(
    codes: Integer[Numbers, "... Dz"], finite: Finite, levels: Integer[Array, ""] | int
) -> Float[Array, "... Dz"]:
    """The number that each code stands for: its cell's centre, with the bounding undone."""
    return _unbound((2 * codes.astype(jnp.float32) + 1) / levels - 1, finite)


def _bound(z, finite):
    scale, shift = (_along(finite[n], z) for n in ("log_scale", "shift"))
    return jnp.tanh(z.astype(jnp.float32) * jnp.exp(-scale) - shift)


def _cell(bounded, levels):
    return jnp.clip(jnp.floor((bounded + 1) * (levels / 2)), 0, levels - 1)


def _unbound(centre, finite):
    scale, shift = (_along(finite[n], centre) for n in ("log_scale", "shift"))
    return (jnp.arctanh(centre) + shift) * jnp.exp(scale)


def _along(x, z):
    return x.reshape((1,) * (z.ndim - 1) + (-1,))


@jax.jit
def fit_finite(z: Float[Numbers, "N Dz"], levels: Integer[Array, ""] | int) -> Finite:
    """Per channel: its mean, and of 32 scales the one with the least squared error on z."""
    z = z.astype(jnp.float32)
    deviation, mean = jnp.std(z, 0) + 1e-6, jnp.mean(z, 0)

    def make(factor):
        scale = factor * deviation
        return {"log_scale": jnp.log(scale), "shift": mean / scale}

    def error(factor):
        finite = make(factor)
        return _error(z, finite_values(finite_codes(z, finite, levels), finite, levels))

    factors = jnp.geomspace(0.5, 5.0, 32)
    return make(factors[jnp.argmin(jax.lax.map(error, factors), 0)])


def insert(params, z: Float[Numbers, "N Dz"], levels: int):
    """Parameters of a compressor without levels -> with them, fitted on latents z."""
    return {**params, "params": {**params["params"], "quantizer": fit_finite(z, levels)}}


@dataclasses.dataclass(frozen=True)
class Symmetric:
    """Signed integers with one scale per channel: z is about scale * (code - top)."""

    scale: Any  # float32 [Dz]
    top: int  # 2^(bits - 1) - 1; codes are 0 .. 2 top

    def codes(self, z: Float[Numbers, "N Dz"]) -> Int[Array, "N Dz"]:
        """0 .. 2 top; what lies outside goes to the ends."""
        return _symmetric_codes(z, self.scale, self.top)

    def values(self, codes: Integer[Numbers, "N Dz"]) -> Float[Array, "N Dz"]:
        """The number that each code stands for, float32."""
        return (jnp.asarray(codes, jnp.float32) - self.top) * self.scale[None]


def fit_symmetric(z: Float[Numbers, "N Dz"], bits: int, clip: bool = True) -> Symmetric:
    """Scales of `bits`-bit integers, 2 or more.

    clip: of 48 ranges up to the largest |z| the one with the least squared error, per channel;
    otherwise the largest |z| itself.
    """
    top = 2 ** (bits - 1) - 1
    return Symmetric(_symmetric_scale(z, top, clip), top)


@jax.jit
def _symmetric_codes(z, scale, top):
    top = jnp.asarray(top, jnp.float32)
    return (jnp.clip(jnp.round(z.astype(jnp.float32) / scale[None]), -top, top) + top).astype(
        jnp.int32
    )


@jax.jit
def _symmetric_scale(z, top, clip):
    z, top = z.astype(jnp.float32), jnp.asarray(top, jnp.float32)
    largest = jnp.max(jnp.abs(z), 0) + 1e-12

    def error(share):
        scale = share * largest / top
        codes = _symmetric_codes(z, scale, top).astype(jnp.float32)
        return _error(z, (codes - top) * scale[None])

    shares = jnp.geomspace(0.03, 1.0, 48)
    best = shares[jnp.argmin(jax.lax.map(error, shares), 0)]
    return jnp.where(clip, best, 1.0) * largest / top


def _error(z, rounded):
    return jnp.sum(jnp.square(z - rounded), 0)
