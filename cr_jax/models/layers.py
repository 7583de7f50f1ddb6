"""Transformer parts shared by encoder and decoder: norm, rotary positions, attention, blocks.

Pre-norm blocks with parameter-free RMSNorm, QK-norm, RoPE and SwiGLU.  The paper fixes only
"Transformer"; these choices are Not in the paper.  Shapes: B batch, L window, D model width,
H heads, K head width.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cr_jax.config import ModelConfig
from cr_jax.errors import UserError


def compute_dtype(config: ModelConfig):
    """The matmul dtype: bfloat16 on accelerators, float32 on a CPU, unless the config says."""
    if config.dtype != "auto":
        return jnp.dtype(config.dtype)
    return jnp.dtype("float32" if jax.default_backend() == "cpu" else "bfloat16")


def attention_kernel(config: ModelConfig) -> str:
    """`cudnn` on a GPU in half precision, otherwise `xla`.

    `UserError` when the config asks for `cudnn` elsewhere, where JAX would raise.
    """
    half = compute_dtype(config) != jnp.float32
    able = jax.default_backend() == "gpu" and half
    if config.attention == "cudnn" and not able:
        raise UserError("config.model.attention=cudnn needs a GPU and bfloat16; use auto")
    if config.attention != "auto":
        return config.attention
    return "cudnn" if able else "xla"


def rms_norm(x: Float[Array, "... D"]) -> Float[Array, "... D"]:
    """x / rms(x) along the last axis, in float32; no learned scale."""
    wide = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + 1e-6)
    return (wide * scale).astype(x.dtype)


def rotate(x: Float[Array, "B L H K"], positions: Int[Array, " L"]) -> Float[Array, "B L H K"]:
    """Rotary position embedding (RoPE), base 10,000, halves rotated against each other."""
    half = x.shape[-1] // 2
    frequency = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions.astype(jnp.float32)[:, None] * frequency[None, :]
    cos, sin = jnp.cos(angle)[None, :, None, :], jnp.sin(angle)[None, :, None, :]
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).astype(x.dtype)


def fan_in(scale: float = 1.0):
    """Normal initialiser with variance scale / fan_in for kernels [..., in, out]."""

    def init(key, shape, dtype=jnp.float32):
        std = (scale / shape[-2]) ** 0.5
        return std * jax.random.normal(key, shape, dtype)

    return init


def project(x: Float[Array, "... D"], kernel: Float[Array, "D F"]) -> Float[Array, "... F"]:
    """x @ kernel over one flat row axis.

    With two row axes the kernel's gradient contracts over both, and XLA transposes whole
    activations for it (a tenth of a step on an H100).
    """
    flat = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


class Attention(nn.Module):
    """Multi-head attention; queries from `x`, keys and values from `context` (default: `x`).

    `causal`: position i sees positions up to i only (the language model of `models.lm`).
    """

    config: ModelConfig
    out_scale: float = 1.0
    causal: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B Q D"],
        positions: Int[Array, " Q"],
        lengths: Int[Array, " B"] | None = None,
        context: Float[Array, "B S D"] | None = None,
        context_positions: Int[Array, " S"] | None = None,
    ) -> Float[Array, "B Q D"]:
        """`lengths`: how many leading context positions are real; None: all of them."""
        c, d = self.config, self.config.d_model
        source = x if context is None else context
        source_positions = positions if context is None else context_positions
        # Three matrices, not one [D, 3D]: Muon orthogonalises each, and q, k, v come out dense.
        kernel = self.param("qkv", fan_in(), (3, d, d))
        split = lambda y: y.reshape(*y.shape[:-1], c.heads, d // c.heads)
        q = rotate(rms_norm(split(project(x, kernel[0]))), positions)
        k = rotate(rms_norm(split(project(source, kernel[1]))), source_positions)
        v = split(project(source, kernel[2]))
        y = jax.nn.dot_product_attention(
            q, k, v, key_value_seq_lengths=lengths,
            query_seq_lengths=None if lengths is None or attention_kernel(c) == "xla"
            else jnp.full_like(lengths, q.shape[1]),
            is_causal=self.causal, implementation=attention_kernel(c))
        return project(y.reshape(x.shape), self.param("out", fan_in(self.out_scale), (d, d)))


class SwiGlu(nn.Module):
    """Gated feed-forward layer: (silu(x W1) * x W2) W3."""

    config: ModelConfig
    out_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        d, f = self.config.d_model, self.config.d_ff
        up = self.param("up", fan_in(), (2, d, f))
        down = self.param("down", fan_in(self.out_scale), (f, d))
        return project(nn.silu(project(x, up[0])) * project(x, up[1]), down)


class Block(nn.Module):
    """Pre-norm Transformer block, in the form that `nn.scan` takes; bidirectional by default."""

    config: ModelConfig
    out_scale: float = 1.0
    causal: bool = False

    @nn.compact
    def __call__(self, x: Any, positions: Any, lengths: Any = None) -> tuple[Any, None]:
        """x [B, L, D] -> ([B, L, D], None)."""
        x = x + Attention(self.config, self.out_scale, self.causal, name="attention")(
            rms_norm(x), positions, lengths)
        return x + SwiGlu(self.config, self.out_scale, name="mlp")(rms_norm(x)), None


class Stack(nn.Module):
    """`depth` Transformer blocks in a row; their parameters are stacked on a leading axis.

    Stacked, so that Muon orthogonalises all blocks' matrices of a kind in one batch.
    """

    config: ModelConfig
    depth: int
    causal: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        positions: Int[Array, " L"],
        lengths: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B L D"]:
        if not self.depth:
            return x
        block = nn.remat(Block, prevent_cse=not self.config.scan) if self.config.remat else Block
        blocks = nn.scan(
            block, variable_axes={"params": 0}, split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast), length=self.depth,
            unroll=1 if self.config.scan else self.depth)
        # Output projections start small so that the residual stream, and with it the copy path
        # through the bottleneck, is what the first steps train.
        x, _ = blocks(self.config, 0.5 / self.depth, self.causal, name="blocks")(
            x, positions, lengths)
        return x
