"""Plain latent queries: the control for rotary values (`config.model.rotary_values=False`)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cr_jax.config import ModelConfig
from cr_jax.models.bottlenecks.interface import Bottleneck
from cr_jax.models.kernels import project, rms_norm
from cr_jax.models.layers import Attention, SwiGlu, fan_in


class Refine(nn.Module):
    """Latents look at the encoder's states once: cross-attention, then a feed-forward layer."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        latents: Float[Array, "B M D"],
        h: Float[Array, "B L D"],
        lengths: Int[Array, " B"] | None,
    ) -> Float[Array, "B M D"]:
        c = self.config
        centre = (jnp.arange(c.latents) * c.window) // c.latents + c.window // (2 * c.latents)
        context = (rms_norm(h), jnp.arange(c.window))
        x = latents + Attention(c)(rms_norm(latents), centre, lengths, context)
        return x + SwiGlu(c)(rms_norm(x))


def _lengths(mask):
    return None if mask is None else jnp.sum(mask, axis=-1, dtype=jnp.int32)


class PlainQuery(Bottleneck):
    """M learned latent queries read the window by cross-attention; the decoder reads [z, m].

    Paper section 1: z (8 latents) and an auxiliary signal m of positions enter the decoder.  A sum
    over attended tokens forgets their order, so it waits long on the majority rate.
    """

    rate_unit = "latents"

    @property
    def prefix(self) -> int:
        return self.config.latents

    @property
    def rates(self) -> int:
        return self.config.latents

    def forward_flops(self) -> float:
        """2 (2 M d^2 + 2 L d^2 + 2 M L d + 3 M d f + 2 M d Dz): one cross-attention."""
        c = self.config
        d, m = c.d_model, c.latents
        attention = 2 * (m + c.window) * d * d + 2 * m * c.window * d
        return 2.0 * (attention + 3 * m * d * c.d_ff + 2 * m * d * c.d_latent)

    def setup(self):
        c = self.config
        self.queries = self.param("queries", nn.initializers.normal(1.0), (c.latents, c.d_model))
        self.refine = Refine(c)
        self.narrow = self.param("narrow", fan_in(), (c.d_model, c.d_latent))
        self.widen = self.param("widen", fan_in(), (c.d_latent, c.d_model))
        self.slots = self.param("slots", nn.initializers.normal(0.1), (c.latents, c.d_model))
        self.positions = self.param("positions", nn.initializers.normal(0.1), (c.window, c.d_model))

    def compress(
        self, h: Float[Array, "B L D"], mask: Bool[Array, "B L"] | None = None
    ) -> Float[Array, "B M Dz"]:
        start = jnp.broadcast_to(
            self.queries.astype(h.dtype)[None], (h.shape[0], *self.queries.shape)
        )
        return project(rms_norm(self.refine(start, h, _lengths(mask))), self.narrow)

    def expand(
        self, z: Float[Array, "B M Dz"], rate: Int[Array, " B"] | None = None
    ) -> Float[Array, "B T D"]:
        c = self.config
        latents = project(z, self.widen) + self.slots.astype(z.dtype)[None]
        blank = jnp.broadcast_to(
            self.positions.astype(z.dtype)[None], (z.shape[0], c.window, c.d_model)
        )
        return jnp.concatenate([latents, blank], axis=1)

    def rate_mask(self, rate: Int[Array, " B"]) -> Bool[Array, "B M 1"]:
        return (jnp.arange(self.config.latents)[None, :] < rate[:, None])[:, :, None]
