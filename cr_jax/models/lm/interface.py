"""Which kinds of language model there are, and what all of them share.

To add one: `register_lm(name, Kind(module, flops, check))`, and `config.lm.kind=NAME` trains it.
A kind made of `layer.Model` and the functions of `layer` needs to say only what attends to what;
`sliding` is a whole one on a page.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from cr_jax.config import LmConfig, check_lm
from cr_jax.errors import UserError
from cr_jax.models.autoencoder import head as head  # one for both kinds of model
from cr_jax.models.lm import (
    chunked,
    chunked_model,
    decoder,
    recurrent,
    sliding,
    tconstformer,
    tlinformer,
)
from cr_jax.models.lm.decoder import Decoder


def unchecked(config: LmConfig, where: str = "config.lm") -> None:
    """The check of a kind that takes all sizes that `check_lm` takes."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """module(config): the Linen module, with the methods that `models.lm` lists.

    flops(config, window): operations of a forward pass per token of a training window, vocabulary
    included.  check(config, where): `UserError` for sizes that make none.
    """

    module: Callable[[LmConfig], nn.Module]
    flops: Callable[[LmConfig, int], float]
    check: Callable[[LmConfig, str], None] = unchecked


def _chunked(module: type[chunked_model.ChunkedModel]) -> Kind:
    flops = functools.partial(chunked.forward_flops, form=module.form)
    return Kind(module, flops, chunked_model.check)


KINDS: dict[str, Kind] = {
    "decoder": Kind(Decoder, decoder.forward_flops, decoder.check),
    "sliding": Kind(sliding.Sliding, sliding.forward_flops, sliding.check),
    "tlinformer": _chunked(tlinformer.TLinFormer),
    "tconstformer": _chunked(tconstformer.TConstFormer),
    "recurrent": _chunked(recurrent.Recurrent),
}


def register_lm(name: str, kind: Kind) -> None:
    """Makes `config.lm.kind` accept `name`.  `UserError` for a name that is taken."""
    if not name.isidentifier() or name in KINDS:
        raise UserError(
            f"a kind of language model cannot be named {name!r}: a name is one word, and taken are "
            f"{', '.join(KINDS)}"
        )
    KINDS[name] = kind


def kind_of(config: LmConfig, where: str = "config.lm") -> Kind:
    """What the config names.  `UserError` when there is no such kind."""
    if config.kind not in KINDS:
        raise UserError(
            f"{where}.kind must be one of {', '.join(KINDS)}; got {config.kind!r}; one of your own "
            "must be registered first, by importing its module"
        )
    return KINDS[config.kind]


def make_lm(config: LmConfig) -> nn.Module:
    """The module that the config names.  `UserError` for sizes that make none, or no such kind."""
    check_lm(config)
    kind = kind_of(config)
    kind.check(config, "config.lm")
    return kind.module(config)


def forward_flops(config: LmConfig, window: int) -> float:
    """Operations of a forward pass per token of windows of `window` tokens."""
    return kind_of(config).flops(config, window)


def init(config: LmConfig, key: PRNGKeyArray):
    """Fresh float32 parameters of one language model; call it under `jax.jit` or `eval_shape`."""
    return make_lm(config).init(key, jnp.zeros((1, 2), jnp.int32))


@functools.lru_cache
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
