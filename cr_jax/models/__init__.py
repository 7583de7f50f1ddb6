"""Pure Linen modules: encoder, bottleneck, decoder."""

from cr_jax.models.autoencoder import Autoencoder, count_parameters, head, init
from cr_jax.models.bottleneck import BOTTLENECKS

__all__ = ["BOTTLENECKS", "Autoencoder", "count_parameters", "head", "init"]
