"""Models of a few hundred weights, in each form."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from cr_jax import models
from cr_jax.config import ModelConfig

# Latents do not divide the window, so the fold's padding is at work.
SMALL = ModelConfig(vocab_size=29, window=10, latents=3, d_model=16, d_latent=12, heads=2,
                    d_ff=24, encoder_blocks=1, decoder_blocks=1, fold_channels=6, dtype="float32")
FORMS = ("fold", "query", "plain_query")


def small(form: str = "fold", **changes) -> ModelConfig:
    """`plain_query`: the control of `query`, without rotary values."""
    if form == "plain_query":
        form, changes = "query", {"rotary_values": False, **changes}
    return dataclasses.replace(SMALL, bottleneck=form, **changes)


# Compiled once per model and shared by the tests: op by op a model takes seconds.
@functools.partial(jax.jit, static_argnums=0)
def _fresh(config, key):
    return models.init(config, key)


@functools.cache
def fresh(config: ModelConfig, seed: int = 0):
    """Parameters at their initial values."""
    return _fresh(config, jax.random.key(seed))


def windows(config: ModelConfig, batch: int = 4, seed: int = 0):
    """int32 ids [B, L]."""
    ids = np.random.default_rng(seed).integers(
        0, config.vocab_size, (batch, config.window), np.int32)
    return jnp.asarray(ids)


def prefix_mask(config: ModelConfig, lengths):
    """bool [B, L]: True on the first `length` positions."""
    return jnp.asarray(np.arange(config.window)[None] < np.asarray(lengths)[:, None])


def _compiled(function):
    """jit over all but the config; results as numpy, so that asserting compiles nothing."""
    program = jax.jit(function, static_argnums=0)
    return functools.wraps(function)(lambda *args: jax.device_get(program(*args)))


@_compiled
def run(config: ModelConfig, params, tokens, mask=None, rate=None, hidden=None):
    """(h, z)."""
    return models.Autoencoder(config).apply(params, tokens, mask, rate, hidden)


@_compiled
def encode(config: ModelConfig, params, tokens, mask=None, hidden=None):
    """z [B, M, Dz]."""
    return models.Autoencoder(config).apply(params, tokens, mask, hidden, method="encode")


@_compiled
def decode(config: ModelConfig, params, z, mask=None, rate=None):
    """h [B, L, D]."""
    return models.Autoencoder(config).apply(params, z, mask, rate, method="decode")


@_compiled
def logits(config: ModelConfig, params, tokens, mask=None):
    """[B, L, V], whole."""
    h, _ = models.Autoencoder(config).apply(params, tokens, mask)
    return h @ models.head(config, params)
