"""The fold: each position has its own linear read-out of its latent."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cr_jax.errors import UserError
from cr_jax.models.bottlenecks.interface import Bottleneck
from cr_jax.models.kernels import project
from cr_jax.models.layers import fan_in


class Fold(Bottleneck):
    """Each position has its own linear read-out of its latent (Not in the paper).

    Attention need not learn to address, so copying is learnt in seconds where learned queries
    wait on a plateau: D -> r channels per token, L/M tokens side by side -> one latent.
    """

    rate_unit = "channels of a latent"

    @property
    def span(self) -> int:
        """Most window positions of a latent; some have one less when M does not divide L."""
        return -(-self.config.window // self.config.latents)

    def _dealt(self) -> np.ndarray:
        """[M * span]: the window position of each place in the latents' rows, L where it is empty.

        Latent m has the positions from floor(m L / M) on: none is left without.
        """
        c = self.config
        edges = np.arange(c.latents + 1) * c.window // c.latents
        places = edges[:-1, None] + np.arange(self.span)
        return np.where(places < edges[1:, None], places, c.window).reshape(-1)

    @property
    def rates(self) -> int:
        return self.config.d_latent

    def check(self) -> None:
        if self.config.fold_channels < 1:
            raise UserError(
                f"config.model.fold_channels must be at least 1, got {self.config.fold_channels}"
            )

    def forward_flops(self) -> float:
        """2 (2 L d r + 2 M ceil(L/M) r Dz), of r channels per token."""
        c = self.config
        per_latent = self.span * c.fold_channels * c.d_latent
        return 4.0 * (c.window * c.d_model * c.fold_channels + c.latents * per_latent)

    def setup(self):
        c, row = self.config, self.span * self.config.fold_channels
        self.narrow = self.param("narrow", fan_in(), (c.d_model, c.fold_channels))
        self.fold = self.param("fold", fan_in(), (row, c.d_latent))
        self.unfold = self.param("unfold", fan_in(), (c.d_latent, row))
        self.widen = self.param("widen", fan_in(), (c.fold_channels, c.d_model))
        self.positions = self.param("positions", nn.initializers.normal(0.1), (c.window, c.d_model))

    def compress(
        self, h: Float[Array, "B L D"], mask: Bool[Array, "B L"] | None = None
    ) -> Float[Array, "B M Dz"]:
        c = self.config
        x = project(h, self.narrow)
        if mask is not None:
            x = jnp.where(mask[..., None], x, 0)
        if c.window % c.latents:
            x = jnp.pad(x, ((0, 0), (0, 1), (0, 0)))[:, self._dealt()]
        x = x.reshape(x.shape[0], c.latents, self.span * c.fold_channels)
        return project(x, self.fold)

    def expand(
        self, z: Float[Array, "B M Dz"], rate: Int[Array, " B"] | None = None
    ) -> Float[Array, "B L D"]:
        c = self.config
        x = project(z, self.unfold)
        x = x.reshape(z.shape[0], self.span * c.latents, c.fold_channels)
        if c.window % c.latents:
            x = x[:, np.flatnonzero(self._dealt() < c.window)]
        return project(x, self.widen) + self.positions.astype(z.dtype)[None]

    def rate_mask(self, rate: Int[Array, " B"]) -> Bool[Array, "B 1 Dz"]:
        return (jnp.arange(self.config.d_latent)[None, :] < rate[:, None])[:, None, :]
