"""A causal language model of one compressor's size, from the same blocks.

`tokens [B, L] -> h [B, L, D]`, where h_t has seen tokens 0..t-1 only and predicts token t, so all L
tokens of a window are scored, as a compressor scores them.  Not in the paper: the expert of
likelihood routing (DEMix, arXiv 2108.05036; Branch-Train-Merge, arXiv 2208.03306).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cr_jax.config import ModelConfig, check_model
from cr_jax.models.kernels import rms_norm
from cr_jax.models.layers import Stack, compute_dtype, row_kernels


class CausalLm(nn.Module):
    """One domain's language model.  Pure: `CausalLm(config).apply(params, tokens)`.

    Of `config` it reads the widths, heads, vocabulary and encoder_blocks + decoder_blocks, the
    depth; `models.head(config, params)` is its vocabulary matrix.  L may be any length.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """States before the vocabulary.  No mask: padding comes last, where no token sees it."""
        c = self.config
        table = self.param("embedding", nn.initializers.normal(1.0), (c.vocab_size, c.d_model))
        start = self.param("start", nn.initializers.normal(1.0), (c.d_model,))
        if not c.tie_embeddings:
            # Zeros: the first answer is the uniform distribution, not a copy of the last token.
            self.param("head", nn.initializers.zeros_init(), (c.d_model, c.vocab_size))
        # float32 rows, as in the compressor: the gather's gradient is a float32 scatter-add.
        before = table[tokens[:, :-1]].astype(compute_dtype(c))
        first = jnp.broadcast_to(start.astype(before.dtype), (len(tokens), 1, c.d_model))
        x = jnp.concatenate([first, before], axis=1)
        depth = c.encoder_blocks + c.decoder_blocks
        h = Stack(c, depth, causal=True, name="decoder")(
            rms_norm(x, row_kernels(c)), jnp.arange(tokens.shape[1])
        )
        return rms_norm(h, row_kernels(c))


def init_lm(config: ModelConfig, key: PRNGKeyArray):
    """Fresh float32 parameters of one language model; call it under `jax.jit` or `eval_shape`."""
    check_model(config)
    return CausalLm(config).init(key, jnp.zeros((1, config.window), jnp.int32))


def count_lm_parameters(config: ModelConfig) -> int:
    """Number of parameters, without allocating any."""
    shapes = jax.eval_shape(lambda k: init_lm(config, k), jax.random.key(0))
    return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
