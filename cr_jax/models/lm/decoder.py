"""The plain decoder: causal self-attention over all earlier tokens, with a static key-value cache.

Pre-norm blocks with parameter-free RMSNorm, QK-norm, RoPE and SwiGLU, as in the compressor.
Grouped queries: `kv_heads` of keys and values serve `heads` of queries.
Letters: B texts, L tokens, D width, H heads, G heads of keys and values, K head width, S cache
length, N blocks.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cr_jax.config import LmConfig
from cr_jax.errors import UserError
from cr_jax.models import kernels
from cr_jax.models.kernels import add_norm, project, rms_norm
from cr_jax.models.layers import SwiGlu, attention_kernel, compute_dtype, fan_in, row_kernels


class Cache(NamedTuple):
    """Keys and values of what was read: `length` positions of each text, the start among them."""

    keys: Any  # [N, B, S, G, K]
    values: Any  # [N, B, S, G, K]
    length: Any  # int32 [B]


class CausalAttention(nn.Module):
    """Self-attention; without a cache over all positions given, with one over what it holds too."""

    config: LmConfig
    out_scale: float = 1.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        positions: Int[Array, " L"] | Int[Array, "B L"],
        past: tuple[Float[Array, "B S G K"], Float[Array, "B S G K"]] | None = None,
    ) -> tuple[Float[Array, "B L D"], tuple[Float[Array, "B T G K"], Float[Array, "B T G K"]]]:
        """past: keys and values into which this one position (L = 1) is written before it reads.

        -> (what it adds to the stream, keys and values: of all positions, or the past with them).
        """
        c, d = self.config, self.config.d_model
        groups = c.kv_heads or c.heads
        if groups == c.heads:
            # Three matrices, not one [D, 3D]: Muon orthogonalises each.
            kernel = self.param("qkv", fan_in(), (3, d, d))
            form = row_kernels(c) if past is None else "xla"
            q, k, v = kernels.heads(x, kernel, positions, c.heads, form)
        else:
            width = groups * (d // c.heads)
            q_kernel = self.param("q", fan_in(), (d, d))
            kv_kernel = self.param("kv", fan_in(), (2, d, width))
            q = _heads(project(x, q_kernel), c.heads)
            k, v = (_heads(project(x, kv_kernel[i]), groups) for i in (0, 1))
            q, k = (kernels.rotate(rms_norm(y), positions) for y in (q, k))
        if past is None:
            y = jax.nn.dot_product_attention(
                q, k, v, is_causal=True, implementation=attention_kernel(c)
            )
        else:
            k, v = (_write(old, new, positions[:, 0]) for old, new in zip(past, (k, v)))
            y = jax.nn.dot_product_attention(
                q, k, v, key_value_seq_lengths=positions[:, 0] + 1, implementation="xla"
            )
        out = self.param("out", fan_in(self.out_scale), (d, d))
        return project(y.reshape(x.shape), out), (k, v)


class DecoderBlock(nn.Module):
    """Attention, then SwiGLU, in the form that `nn.scan` takes.

    It carries (stream, what is still to be added to it, or None), as `layers.Block` does.
    """

    config: LmConfig
    out_scale: float
    keep: bool  # give back keys and values, for a cache

    @nn.compact
    def __call__(self, carry: Any, past: Any, positions: Any) -> tuple[Any, Any]:
        form = row_kernels(self.config)
        x, normed = add_norm(*carry, form)
        y, held = CausalAttention(self.config, self.out_scale, name="attention")(
            normed, positions, past
        )
        x, normed = add_norm(x, y, form)
        y = SwiGlu(self.config, self.out_scale, name="mlp")(normed)
        return ((x + y, None) if carry[1] is None else (x, y)), held if self.keep else None


class Decoder(nn.Module):
    """One expert's language model.  Pure: `Decoder(config).apply(params, tokens)`."""

    config: LmConfig

    def setup(self):
        c = self.config
        self.embedding = self.param(
            "embedding", nn.initializers.normal(1.0), (c.vocab_size, c.d_model)
        )
        self.start = self.param("start", nn.initializers.normal(1.0), (c.d_model,))
        if not c.tie_embeddings:
            # Zeros: the first answer is the uniform distribution, not a copy of the last token.
            self.head_kernel = self.param(
                "head", nn.initializers.zeros_init(), (c.d_model, c.vocab_size)
            )
        block = DecoderBlock
        if c.remat:
            block = nn.remat(DecoderBlock, prevent_cse=not c.scan)
        over = dict(variable_axes={"params": 0}, split_rngs={"params": True}, length=c.blocks)
        unroll = 1 if c.scan else c.blocks
        whole = nn.scan(block, in_axes=(nn.broadcast, nn.broadcast), unroll=unroll, **over)
        cached = nn.scan(DecoderBlock, in_axes=(0, nn.broadcast), unroll=unroll, **over)
        # The same parameters three times: without a cache, filling one, reading one.
        self.blocks = whole(c, 0.5 / c.blocks, False)
        self.fill_blocks = whole(c, 0.5 / c.blocks, True, parent=None)
        self.step_blocks = cached(c, 0.5 / c.blocks, True, parent=None)

    def __call__(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """States before the vocabulary; states[:, i] has seen tokens before i only.

        No mask: padding comes last, where no token sees it.
        """
        x = self._inputs(tokens[:, :-1])
        form = row_kernels(self.config)
        later = form == "triton" and not self.config.remat
        carry = (rms_norm(x, form), jnp.zeros_like(x) if later else None)
        (x, y), _ = self.blocks(carry, None, jnp.arange(x.shape[1]))
        return rms_norm(x if y is None else x + y, form)

    def prefill(
        self, tokens: Int[Array, "B L"], mask: Bool[Array, "B L"], length: int
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """(states [B, L + 1, D], a cache of `length` >= L + 1 positions).

        mask: True on real tokens, which come first.  states[:, i] predicts token i; row b's last
        one that means anything, states[b, mask[b].sum()], predicts what follows its text.
        """
        x = self._inputs(tokens)
        carry = (rms_norm(x), None)
        (x, _), (k, v) = self._bound("fill_blocks")(carry, None, jnp.arange(x.shape[1]))
        room = ((0, 0), (0, 0), (0, length - x.shape[1]), (0, 0), (0, 0))
        seen = 1 + jnp.sum(mask, axis=-1, dtype=jnp.int32)
        return rms_norm(x), Cache(jnp.pad(k, room), jnp.pad(v, room), seen)

    def step(self, token: Int[Array, " B"], cache: Cache) -> tuple[Float[Array, "B D"], Cache]:
        """(states that predict the token after this one, the cache with it).

        A full cache is the caller's to avoid: `cache.length` must stay below S.
        """
        x = rms_norm(self._embedded(token[:, None]))
        (x, _), (k, v) = self._bound("step_blocks")(
            (x, None), (cache.keys, cache.values), cache.length[:, None]
        )
        return rms_norm(x)[:, 0], Cache(k, v, cache.length + 1)

    def _bound(self, name: str):
        """The blocks in another form, on the parameters of `self.blocks`."""
        form, variables = getattr(self, name), {"params": self.variables["params"]["blocks"]}
        return lambda *args: form.apply(variables, *args)

    def _embedded(self, tokens):
        # float32 rows: the gather's gradient is then a float32 scatter-add.
        return self.embedding[tokens].astype(compute_dtype(self.config))

    def _inputs(self, tokens):
        """The start vector, then the tokens' embeddings."""
        x = self._embedded(tokens)
        first = jnp.broadcast_to(self.start.astype(x.dtype), (len(tokens), 1, x.shape[-1]))
        return jnp.concatenate([first, x], axis=1)


def check(config: LmConfig, where: str = "config.lm") -> None:
    """`UserError` for a style that the decoder has not."""
    if config.style != "rms":
        raise UserError(
            f"{where}.style={config.style!r}: kind='decoder' has style='rms' alone; kind='sliding' "
            "with chunk=0 is the plain Transformer in both"
        )


def forward_flops(config: LmConfig, window: int) -> float:
    """Operations of a forward pass per token of `window`, as `training.speed` counts them.

        2 (n (2 d^2 + 2 d g + 3 d f + 2 T d) + d V)

    of n blocks whose keys and values have width g; T: the window.
    """
    c, d = config, config.d_model
    keys = (c.kv_heads or c.heads) * (d // c.heads)
    block = 2 * d * d + 2 * d * keys + 3 * d * c.d_ff + 2 * window * d
    return 2.0 * (c.blocks * block + d * c.vocab_size)


def _heads(x, count: int):
    return x.reshape(*x.shape[:-1], count, x.shape[-1] // count)


def _write(cache, new, at):
    """new [B, 1, G, K] into cache [B, S, G, K], row b at place at[b]."""
    put = lambda row, x, i: jax.lax.dynamic_update_slice_in_dim(row, x, i, axis=0)
    return jax.vmap(put)(cache, new.astype(cache.dtype), at)
