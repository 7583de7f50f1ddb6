"""Pure Linen modules: encoder, bottleneck, decoder; language models in `models.lm`."""

from cr_jax.models.autoencoder import Autoencoder, count_parameters, head, init
from cr_jax.models.bottlenecks import (
    BOTTLENECKS,
    check_bottleneck,
    check_latents,
    make_bottleneck,
    register_bottleneck,
)

__all__ = [
    "BOTTLENECKS",
    "Autoencoder",
    "check_bottleneck",
    "check_latents",
    "count_parameters",
    "head",
    "init",
    "make_bottleneck",
    "register_bottleneck",
]
