"""Transformer parts shared by encoder and decoder: attention, feed-forward, blocks.

Pre-norm blocks with parameter-free RMSNorm, QK-norm, RoPE and SwiGLU.  The paper fixes only
"Transformer"; these choices are Not in the paper.  Shapes: B batch, L window, D model width,
H heads, K head width.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cr_jax.config import LmConfig, TransformerConfig
from cr_jax.errors import UserError
from cr_jax.models import kernels
from cr_jax.models.kernels import add_norm, project


def _platform() -> str:
    """ "cpu", "gpu" or "tpu": where a program that is traced here will run."""
    chosen = jax.config.jax_default_device  # of `jax.default_device`: a device or a name
    return jax.default_backend() if chosen is None else getattr(chosen, "platform", chosen)


def compute_dtype(config: TransformerConfig):
    """The matmul dtype: bfloat16 on accelerators, float32 on a CPU, unless the config says."""
    if config.dtype != "auto":
        return jnp.dtype(config.dtype)
    return jnp.dtype("float32" if _platform() == "cpu" else "bfloat16")


def attention_kernel(config: TransformerConfig) -> str:
    """`cudnn` on a GPU in half precision, otherwise `xla`.

    `UserError` when the config asks for `cudnn` elsewhere, where JAX would raise.
    """
    half = compute_dtype(config) != jnp.float32
    able = _platform() == "gpu" and half
    if config.attention == "cudnn" and not able:
        raise UserError(f"{_group(config)}.attention=cudnn needs a GPU and bfloat16; use auto")
    if config.attention != "auto":
        return config.attention
    return "cudnn" if able else "xla"


def row_kernels(config: TransformerConfig, alone: bool | None = None) -> kernels.Form:
    """The form of `models.kernels` that this config takes here: `triton` wherever it can run.

    alone: as for `triton_obstacle`.  `UserError` when the config asks for `triton` where no step
    can take it.
    """
    if config.kernels == "xla":
        return "xla"
    obstacle = triton_obstacle(config, alone)
    # Beside a step of several devices (first weights, evaluation) runs the plain form.
    if (
        config.kernels == "triton"
        and obstacle
        and (alone is not None or triton_obstacle(config, True))
    ):
        raise UserError(f"{_group(config)}.kernels=triton cannot run here: {obstacle}; use auto")
    return "xla" if obstacle else "triton"


def triton_obstacle(config: TransformerConfig, alone: bool | None = None) -> str:
    """Why the Triton kernels cannot run, in a few words; empty where they can.

    They are written for half precision and powers of two, and know no mesh: in a program that the
    compiler splits over devices it would collect for them what it had split.  Where nothing
    forbids them they are tried once on the device itself.  `UserError` when that fails on one of
    several processes: they must run one program.

    alone: whether the program runs on each device by itself, as under `shard_map`; by default
    read off the trace that asks.
    """
    if _platform() != "gpu":
        return "no GPU"
    if not (_alone() if alone is None else alone):
        return f"one program for {jax.device_count()} devices"
    capability = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    major = capability.partition(".")[0]
    if not major.isdecimal() or int(major) < 8:  # AMD's are names
        return f"compute capability {capability or 'unknown'} is below 8"
    if compute_dtype(config) != jnp.bfloat16:
        return f"computes in {compute_dtype(config)}"
    if config.d_model & (config.d_model - 1):
        return f"d_model {config.d_model} is no power of two"
    if config.d_ff % 32:  # the gate reads as many numbers of a row at once as divide d_ff
        return f"d_ff {config.d_ff} is no multiple of 32"
    if kernels.missing():
        return kernels.missing()
    failed = kernels.trial.failure(config.d_model, config.heads, config.d_ff, config.vocab_size)
    if failed and jax.process_count() > 1:
        raise UserError(
            f"process {jax.process_index()}: the Triton kernels cannot be used, "
            f"{failed}, and all processes must run one program: set "
            f"{_group(config)}.kernels=xla"
        )
    return failed


def _group(config: TransformerConfig) -> str:
    return "config.lm" if isinstance(config, LmConfig) else "config.model"


def _alone() -> bool:
    mesh = jax.sharding.get_abstract_mesh()
    by_hand = mesh.axis_names and set(mesh.manual_axes) == set(mesh.axis_names)
    return jax.device_count() == 1 or bool(by_hand)


def fan_in(scale: float = 1.0):
    """Normal initialiser with variance scale / fan_in for kernels [..., in, out]."""

    def init(key, shape, dtype=jnp.float32):
        std = (scale / shape[-2]) ** 0.5
        return std * jax.random.normal(key, shape, dtype)

    return init


class Attention(nn.Module):
    """Multi-head attention; queries from `x`, keys and values from `context` (default: `x`).

    `causal`: position i sees positions up to i only (the language model of `models.lm`).
    """

    config: TransformerConfig
    out_scale: float = 1.0
    causal: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B Q D"],
        positions: Int[Array, " Q"],
        lengths: Int[Array, " B"] | None = None,
        context: tuple[Float[Array, "B S D"], Int[Array, " S"]] | None = None,
    ) -> Float[Array, "B Q D"]:
        """context: what keys and values are of, and its positions; None: x.  lengths: how many of
        its leading positions are real; None: all of them."""
        c, d = self.config, self.config.d_model
        # Three matrices, not one [D, 3D]: Muon orthogonalises each, and q, k, v come out dense.
        kernel = self.param("qkv", fan_in(), (3, d, d))
        q, k, v = kernels.heads(x, kernel, positions, c.heads, row_kernels(c), context)
        y = jax.nn.dot_product_attention(
            q,
            k,
            v,
            key_value_seq_lengths=lengths,
            query_seq_lengths=None
            if lengths is None or attention_kernel(c) == "xla"
            else jnp.full_like(lengths, q.shape[1]),
            is_causal=self.causal,
            implementation=attention_kernel(c),
        )
        return project(y.reshape(x.shape), self.param("out", fan_in(self.out_scale), (d, d)))


class SwiGlu(nn.Module):
    """Gated feed-forward layer: (silu(x W1) * x W2) W3."""

    config: TransformerConfig
    out_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        d, f = self.config.d_model, self.config.d_ff
        up = self.param("up", fan_in(), (2, d, f))
        down = self.param("down", fan_in(self.out_scale), (f, d))
        return project(kernels.gated(x, up, row_kernels(self.config)), down)


class Block(nn.Module):
    """Pre-norm Transformer block, in the form that `nn.scan` takes; bidirectional by default.

    It carries (stream, what is still to be added to it, or None): added by the next block, it is
    added and normalised in one pass.
    """

    config: TransformerConfig
    out_scale: float = 1.0
    causal: bool = False

    @nn.compact
    def __call__(self, carry: Any, positions: Any, lengths: Any = None) -> tuple[Any, None]:
        """([B, L, D], [B, L, D] or None) -> (the same, None)."""
        form = row_kernels(self.config)
        x, normed = add_norm(*carry, form)
        y = Attention(self.config, self.out_scale, self.causal, name="attention")(
            normed, positions, lengths
        )
        x, normed = add_norm(x, y, form)
        y = SwiGlu(self.config, self.out_scale, name="mlp")(normed)
        return ((x + y, None) if carry[1] is None else (x, y)), None


class Stack(nn.Module):
    """`depth` Transformer blocks in a row; their parameters are stacked on a leading axis.

    Stacked, so that Muon orthogonalises all blocks' matrices of a kind in one batch.
    """

    config: TransformerConfig
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
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=self.depth,
            unroll=1 if self.config.scan else self.depth,
        )
        # Output projections start small so that the residual stream, and with it the copy path
        # through the bottleneck, is what the first steps train.
        # Rematerialisation keeps the carry: one array a block, not two.
        later = row_kernels(self.config) == "triton" and not self.config.remat
        (x, y), _ = blocks(self.config, 0.5 / self.depth, self.causal, name="blocks")(
            (x, jnp.zeros_like(x) if later else None), positions, lengths
        )
        return x if y is None else x + y
