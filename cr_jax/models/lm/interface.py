"""Which kinds of language model there are, and what all of them share."""

import math
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from cr_jax.config import LmConfig, check_lm
from cr_jax.errors import UserError
from cr_jax.models.autoencoder import head as head  # one for both kinds of model
from cr_jax.models.lm.decoder import Decoder

KINDS: Mapping[str, Callable[[LmConfig], nn.Module]] = {"decoder": Decoder}


def make_lm(config: LmConfig) -> nn.Module:
    """The module that the config names.  `UserError` for sizes that make none, or no such kind."""
    check_lm(config)
    if config.kind not in KINDS:
        raise UserError(f"config.lm.kind must be one of {', '.join(KINDS)}; got {config.kind!r}")
    return KINDS[config.kind](config)


def init(config: LmConfig, key: PRNGKeyArray):
    """Fresh float32 parameters of one language model; call it under `jax.jit` or `eval_shape`."""
    return make_lm(config).init(key, jnp.zeros((1, 2), jnp.int32))


def count_lm_parameters(config: LmConfig) -> int:
    """Number of parameters, without allocating any."""
    shapes = jax.eval_shape(lambda k: init(config, k), jax.random.key(0))
    return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))


def cache_bytes(config: LmConfig, length: int) -> int:
    """Bytes of the cache of one text of `length` positions, counted from its shapes."""
    net = make_lm(config)

    def fill(key):
        params = net.init(key, jnp.zeros((1, 2), jnp.int32))
        tokens = jnp.zeros((1, 1), jnp.int32)
        return net.apply(params, tokens, jnp.ones((1, 1), bool), length, method="prefill")[1]

    cache = jax.eval_shape(fill, jax.random.key(0))
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(cache))
