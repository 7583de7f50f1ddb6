"""The compressor: `tokens [B, L] -> encode -> z [B, M, Dz] -> decode -> h [B, L, D]`.

Paper section 1.  `decode` sees z, positions and how long the window is, nothing else, and runs
once, in parallel, without teacher forcing.  It stops before the vocabulary: `models.objective`
multiplies h by `head(params)` in chunks, so [B, L, V] logits never stand in memory at once.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cr_jax.config import ModelConfig, TransformerConfig, check_model
from cr_jax.models.bottlenecks import check_bottleneck, make_bottleneck
from cr_jax.models.kernels import project, rms_norm
from cr_jax.models.layers import Stack, compute_dtype, fan_in, row_kernels
from cr_jax.models.quantizer import Quantizer


class Autoencoder(nn.Module):
    """One domain's compressor.  Pure: `Autoencoder(config).apply(params, ...)`."""

    config: ModelConfig

    def setup(self):
        c = self.config
        self.embedding = self.param(
            "embedding", nn.initializers.normal(1.0), (c.vocab_size, c.d_model)
        )
        self.hidden_token = self.param("hidden_token", nn.initializers.normal(1.0), (c.d_model,))
        self.encoder = Stack(c, c.encoder_blocks, causal=c.predictive)
        if c.predictive:
            # A matrix of its own: the states still carry the token that they stand on.
            self.predictor = self.param("predictor", fan_in(), (c.d_model, c.d_model))
            self.start = self.param("start", nn.initializers.normal(1.0), (c.d_model,))
        self.bottleneck = make_bottleneck(c)
        if c.levels:
            self.quantizer = Quantizer(c)
        self.decoder = Stack(c, c.decoder_blocks)
        if not c.tie_embeddings:
            # Starts as the transposed embedding: copying is then the linear path's first answer.
            self.head_kernel = self.param("head", lambda key: self.embedding.T * c.d_model**-0.5)

    def __call__(
        self,
        tokens: Int[Array, "B L"],
        mask: Bool[Array, "B L"] | None = None,
        rate: Int[Array, " B"] | None = None,
        hidden: Bool[Array, "B L"] | None = None,
    ) -> tuple[Float[Array, "B L D"], Float[Array, "B M Dz"]]:
        """Encode, then decode: (h, z).  See `encode` and `decode` for the arguments."""
        z = self.encode(tokens, mask, hidden)
        return self.decode(z, mask, rate), z

    def encode(
        self,
        tokens: Int[Array, "B L"],
        mask: Bool[Array, "B L"] | None = None,
        hidden: Bool[Array, "B L"] | None = None,
    ) -> Float[Array, "B M Dz"]:
        """Windows -> latents; each number one of `config.levels` values where that is set.

        `mask`: True on real tokens, which come first; ids under False change nothing.
        `hidden`: True where the encoder must not see the token (denoising, Not in the paper).
        """
        return self._compress(self._states(tokens, mask, hidden), mask)

    def predict(
        self, tokens: Int[Array, "B L"], mask: Bool[Array, "B L"] | None = None
    ) -> Float[Array, "B L D"]:
        """States before the vocabulary, row i of which has seen tokens before i only.

        Needs `config.predictive`.  Not in the paper: predictive coding by the compressor's own
        encoder, so that a window also has a code length under the expert.
        """
        return self._predict(self._states(tokens, mask, None))

    def rebuild_and_predict(
        self,
        tokens: Int[Array, "B L"],
        mask: Bool[Array, "B L"] | None = None,
        rate: Int[Array, " B"] | None = None,
        hidden: Bool[Array, "B L"] | None = None,
    ) -> tuple[Float[Array, "B L D"], Float[Array, "B L D"]]:
        """What `__call__` and `predict` give, of one pass through the encoder: for training."""
        states = self._states(tokens, mask, hidden)
        return self.decode(self._compress(states, mask), mask, rate), self._predict(states)

    def _states(self, tokens, mask, hidden):
        """The encoder's normalised states [B, L, D]."""
        c = self.config
        # The gather reads float32 rows so that its gradient is a float32 scatter-add: half
        # precision atomics are an order of magnitude slower on GPUs.
        x = self.embedding[tokens].astype(compute_dtype(c))
        if hidden is not None:
            x = jnp.where(hidden[..., None], self.hidden_token.astype(x.dtype), x)
        lengths = None if mask is None else jnp.sum(mask, axis=-1, dtype=jnp.int32)
        form = row_kernels(c)
        return rms_norm(self.encoder(rms_norm(x, form), jnp.arange(c.window), lengths), form)

    def _compress(self, states, mask):
        z = self.bottleneck.compress(states, mask)
        return self.quantizer(z) if self.config.levels else z

    def _predict(self, states):
        after = project(states, self.predictor)
        first = jnp.broadcast_to(self.start.astype(after.dtype), after[:, :1].shape)
        return rms_norm(jnp.concatenate([first, after[:, :-1]], axis=1), row_kernels(self.config))

    def decode(
        self,
        z: Float[Array, "B M Dz"],
        mask: Bool[Array, "B L"] | None = None,
        rate: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B L D"]:
        """Latents -> states before the vocabulary.

        `mask` carries the window's length only.  `rate`: how much of z is kept per window, in
        the bottleneck's units (`rates`); the rest is not read.  None keeps everything.
        """
        c, prefix = self.config, self.bottleneck.prefix
        z = z.astype(compute_dtype(c))
        if rate is not None:
            z = jnp.where(self.bottleneck.rate_mask(rate), z, 0)
        x = self.bottleneck.expand(z, rate)
        lengths = None if mask is None else prefix + jnp.sum(mask, axis=-1, dtype=jnp.int32)
        positions = jnp.arange(-prefix, c.window)
        return rms_norm(self.decoder(x, positions, lengths)[:, prefix:], row_kernels(c))


def head(config: TransformerConfig, params) -> Float[Array, "D V"]:
    """The vocabulary matrix that `objective` multiplies h by; also a language model's."""
    tree = params["params"]
    if not config.tie_embeddings:
        return tree["head"]
    return tree["embedding"].T * config.d_model**-0.5


def init(config: ModelConfig, key: PRNGKeyArray):
    """Fresh float32 parameters of one compressor; call it under `jax.jit` or `eval_shape`."""
    check_model(config)
    check_bottleneck(config)
    tokens = jnp.zeros((1, config.window), jnp.int32)
    hidden = jnp.zeros((1, config.window), bool)
    return Autoencoder(config).init(key, tokens, None, None, hidden)


@functools.lru_cache  # a run asks several times, and a trace takes a third of a second
def count_parameters(config: ModelConfig) -> int:
    """Number of parameters, without allocating any.

    >>> count_parameters(ModelConfig(vocab_size=50304, bottleneck="fold"))
    90112512
    """
    shapes = jax.eval_shape(lambda k: init(config, k), jax.random.key(0))
    return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
