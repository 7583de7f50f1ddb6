"""Pure Linen modules: encoder, bottleneck, decoder; a causal language model to compare with."""

from cr_jax.models.autoencoder import Autoencoder, count_parameters, head, init
from cr_jax.models.bottlenecks import (
    BOTTLENECKS,
    check_bottleneck,
    check_latents,
    make_bottleneck,
    register_bottleneck,
)
from cr_jax.models.lm.transformer import CausalLm, count_lm_parameters, init_lm

__all__ = [
    "BOTTLENECKS",
    "Autoencoder",
    "CausalLm",
    "check_bottleneck",
    "check_latents",
    "count_lm_parameters",
    "count_parameters",
    "head",
    "init",
    "init_lm",
    "make_bottleneck",
    "register_bottleneck",
]
