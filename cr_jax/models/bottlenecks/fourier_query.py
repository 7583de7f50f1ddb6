"""Latent queries whose values carry Fourier features of their position.

A sum over attended tokens forgets their order.  So the r numbers v_i = W_v h_i of a token are each
turned by its position, at every frequency theta_f = pi (2f + 1) / L, f < L/2, before a latent sums
them.  Each pair g of numbers of latent m is one complex number at a frequency f of its own:

    s_mf = sqrt(2/L) sum_t a_mt e^(i theta_f t) v_t,    a_mt = n softmax_t(q_m . h_t / sqrt(D))
    z_mg = B_mg . s_mf                                               B_mg: mixes the r channels
    x_t  = p_t + W_b sqrt(2/L) sum_mg Re(e^(-i theta_f t) B'_mg z_mg)

n: how many tokens the window has, so that weights are 1 while queries are 0, as at the start.  The
spectrum of a real channel over the whole window is L numbers, an orthogonal transform of it.  The
M Dz/2 pairs of all latents are numbered together: pair j starts with frequency j mod L/2 of channel
floor(j / (L/2)).  So every latent sees the whole window, with M = 1 as with many, and the first k
latents hold the first channels of every token: exactly a model of k latents.  Heads attend on
their own and have their own channels; a position reads all latents, by where it stands alone.
Not in the paper, which has latent queries and does not say what keeps their order.
"""

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Bool, Float, Int

from cr_jax.errors import UserError
from cr_jax.models.bottlenecks.interface import Bottleneck
from cr_jax.models.kernels import project
from cr_jax.models.layers import fan_in


class FourierQuery(Bottleneck):
    """See the module's docstring."""

    rate_unit = "latents"
    nested_latents = True

    @property
    def rates(self) -> int:
        return self.config.latents

    @property
    def frequencies(self) -> int:
        """F = L/2; of an odd window the last one, pi, is real."""
        return -(-self.config.window // 2)

    @property
    def pairs(self) -> int:
        """P = Dz/2, rounded up: complex numbers of a latent."""
        return -(-self.config.d_latent // 2)

    @property
    def channels(self) -> int:
        """r, a multiple of the heads: `fold_channels`, more if z has numbers for more."""
        c = self.config
        needed = -(-c.latents * self.pairs // self.frequencies)
        return c.heads * -(-max(c.fold_channels, min(needed, c.d_model)) // c.heads)

    def check(self) -> None:
        if self.config.window > 1 << 15:
            raise UserError(
                f"config.model.window={self.config.window} is too long for "
                f"bottleneck=fourier_query, whose tables go up to {1 << 15:,} tokens; "
                "cut the text into shorter windows"
            )

    def forward_flops(self) -> float:
        """2 (2 L d r + L M H d + 2 L (M P + F) r)."""
        c = self.config
        learned = c.window * c.d_model * (2 * self.channels + c.latents * c.heads)
        return 2.0 * learned + self._transforms_flops()

    def training_flops(self) -> float:
        return 3.0 * self.forward_flops() - self._transforms_flops()  # tables have no gradient

    def _transforms_flops(self):
        c = self.config
        return 4.0 * c.window * (c.latents * self.pairs + self.frequencies) * self.channels

    def setup(self):
        c, d, r = self.config, self.config.d_model, self.channels
        self.queries = self.param("queries", initializers.zeros, (d, c.heads * c.latents))
        self.values = self.param("values", fan_in(), (d, r))
        self.mix = self.param("mix", lambda key: self._one_channel_a_pair())
        self.unmix = self.param("unmix", lambda key: self._one_channel_a_pair())
        self.back = self.param("back", lambda key: self.values.T)
        self.positions = self.param("positions", initializers.normal(0.1), (c.window, d))

    def compress(
        self, h: Float[Array, "B L D"], mask: Bool[Array, "B L"] | None = None
    ) -> Float[Array, "B M Dz"]:
        c, b = self.config, h.shape[0]
        scores = c.d_model**-0.5 * project(h, self.queries).astype(jnp.float32)
        count = jnp.full((1, 1, 1), c.window, jnp.float32)
        if mask is not None:
            scores = jnp.where(mask[..., None], scores, jnp.finfo(jnp.float32).min)
            count = jnp.sum(mask, axis=1, dtype=jnp.float32)[:, None, None]
        weights = (count * jax.nn.softmax(scores, axis=1)).astype(h.dtype)
        v = project(h, self.values).reshape(b, c.window, c.heads, 1, -1)
        v = (weights.reshape(b, c.window, c.heads, c.latents, 1) * v).swapaxes(2, 3)
        v = v.reshape(b, c.window, c.latents, self.channels)
        table = self._table(h.dtype)[:, :, self._pair_numbers() % self.frequencies]
        spectra = jnp.einsum("clmg,blmr->cbmgr", table, v)
        z = jnp.sum(_product(self.mix.astype(h.dtype)[:, None], spectra), axis=-1)
        return jnp.moveaxis(z, 0, -1).reshape(b, c.latents, -1)[..., : c.d_latent]

    def expand(
        self, z: Float[Array, "B M Dz"], rate: Int[Array, " B"] | None = None
    ) -> Float[Array, "B L D"]:
        c, b = self.config, z.shape[0]
        z = jnp.pad(z, ((0, 0), (0, 0), (0, c.d_latent % 2))).reshape(b, c.latents, -1, 2)
        z = jnp.moveaxis(z, -1, 0)[..., None]
        spectra = self._summed(_product(self.unmix.astype(z.dtype)[:, None], z))
        x = project(jnp.einsum("clf,cbfr->blr", self._table(z.dtype), spectra), self.back)
        return x + self.positions.astype(x.dtype)[None]

    def rate_mask(self, rate: Int[Array, " B"]) -> Bool[Array, "B M 1"]:
        return (jnp.arange(self.config.latents)[None, :] < rate[:, None])[:, :, None]

    def _table(self, dtype):
        """[2, L, F]: cosines and sines of an orthogonal transform."""
        window = self.config.window
        odd = 2 * jnp.arange(self.frequencies)[None] + 1
        # Whole turns are taken off as integers.
        turned = jnp.arange(window)[:, None] * odd % (2 * window)
        angle = jnp.pi / window * turned.astype(jnp.float32)
        size = jnp.where(odd == window, 1.0, 2.0**0.5) / window**0.5  # the frequency pi is real
        return jnp.stack([size * jnp.cos(angle), size * jnp.sin(angle)]).astype(dtype)

    def _summed(self, x):
        """[2, B, M, P, r] -> [2, B, F, r]: sums over the pairs of each frequency."""
        x = x.reshape(*x.shape[:2], -1, self.channels)
        turns = -(-x.shape[2] // self.frequencies)
        x = jnp.pad(x, ((0, 0), (0, 0), (0, turns * self.frequencies - x.shape[2]), (0, 0)))
        return jnp.sum(x.reshape(*x.shape[:2], turns, self.frequencies, -1), axis=2)

    def _one_channel_a_pair(self):
        """[2, M, P, r], real and imaginary: pair j has channel floor(j / F); heads share them."""
        shape = (self.config.latents, self.pairs)
        count = min(-(-shape[0] * shape[1] // self.frequencies), self.channels)
        channel = self._pair_numbers() // self.frequencies % count * (self.channels // count)
        real = jax.nn.one_hot(channel, self.channels)
        return jnp.stack([real, jnp.zeros_like(real)])

    def _pair_numbers(self):
        """[M, P]"""
        return jnp.arange(self.config.latents)[:, None] * self.pairs + jnp.arange(self.pairs)[None]


def _product(a, b):
    """Of complex numbers, whose parts are the first axis."""
    return jnp.stack([a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]])
