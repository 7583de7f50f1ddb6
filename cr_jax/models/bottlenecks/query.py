"""Latent queries with rotary values: the default bottleneck.

A sum over attended tokens forgets their order.  So each token's value is turned by its position
before the sum, and turned back where a position reads it; R(i) turns the pair of numbers
(k, K/2 + k) of a head by theta_k i:

    z_m = W_o concat_h sqrt(S) sum_i softmax_i(q_mh . k_ih / sqrt(K) + b_hmi) R(i) (W_v h_i)_h
    x_i = p_i + W_b concat_h R(-i) sum_m softmax_m(q'_ih . k'_mh / sqrt(K) + b'_him) (W_r z_m)_h

theta_k = pi (2k + 1) / S, with S = ceil(L / M) tokens per latent: the S/2 complex sums of one real
channel over one slice of the window are an orthogonal transform of it, which R(-i) undoes.  With
queries of zero and biases that keep each latent to its slice, that is what training starts from:
copying need not wait until attention has learnt to address.  `spectrum` says which pair has which
frequency and channel.  Keys are RMS-normalised.  Not in the paper, which has latent queries and
does not say what keeps their order.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import initializers
from jaxtyping import Array, Bool, Float, Int

from cr_jax.models.bottlenecks import spectrum
from cr_jax.models.bottlenecks.interface import Bottleneck
from cr_jax.models.kernels import project
from cr_jax.models.layers import fan_in

ELSEWHERE = 0.02  # attention that all other slices together get at first, beside 1 for the own
GAIN = 0.7  # of W_b's start: x then has an RMS of 0.35, beside the positions' 0.1


class Query(Bottleneck):
    """One cross-attention into M latents, one out of them."""

    rate_unit = "latents"

    @property
    def rates(self) -> int:
        return self.config.latents

    @property
    def span(self) -> int:
        """S, most positions of a latent's slice; some have one less when M does not divide L."""
        return -(-self.config.window // self.config.latents)

    def forward_flops(self) -> float:
        """2 (3 L d^2 + 4 M L d + 3 M d Dz)."""
        c = self.config
        d, m = c.d_model, c.latents
        return 2.0 * (3 * c.window * d * d + 4 * m * c.window * d + 3 * m * d * c.d_latent)

    def setup(self):
        c, d, latent = self.config, self.config.d_model, self.config.d_latent
        transform = c.value_start == "transform"
        # Without biases only their queries tell latents apart.
        query = initializers.normal(1.0 if c.positional_bias == "none" else 0.0)
        self.queries = self.param("queries", query, (c.latents, d))
        self.keys = self.param("keys", fan_in(), (d, d))
        self.values = self.param(
            "values",
            spectrum.one_direction_a_channel(c.heads, self.span) if transform else fan_in(),
            (d, d),
        )
        self.write = self.param("write", self._whole_pairs, (d, latent))
        self.places = self.param("places", query, (c.window, d))
        self.latent_keys = self.param("latent_keys", fan_in(), (latent, d))
        self.read = self.param("read", lambda key: spectrum.whole_pairs(d, c.heads, latent).T)
        self.back = self.param(
            "back", lambda key: GAIN * self.values.T if transform else fan_in()(key, (d, d))
        )
        self.positions = self.param("positions", initializers.normal(0.1), (c.window, d))
        if c.positional_bias == "learned":
            self.write_bias = self.param("write_bias", lambda key: self._own_slices())
            self.read_bias = self.param("read_bias", lambda key: self._own_slices().mT)
        if c.value_frequencies == "learned":
            self.theta = self.param("theta", lambda key: spectrum.angles(2, d, self.span)[1])

    def compress(
        self, h: Float[Array, "B L D"], mask: Bool[Array, "B L"] | None = None
    ) -> Float[Array, "B M Dz"]:
        weights = self._attention(
            "mhk,blhk->bhml",
            self.queries,
            project(h, self.keys),
            self._bias("write"),
            None if mask is None else mask[:, None, None],
        )
        values = self._turned(self._split(project(h, self.values)), 1)
        z = self.span**0.5 * jnp.einsum("bhml,blhk->bmhk", weights, values)
        return project(z.reshape(*z.shape[:2], -1), self.write)

    def expand(
        self, z: Float[Array, "B M Dz"], rate: Int[Array, " B"] | None = None
    ) -> Float[Array, "B L D"]:
        weights = self._attention(
            "lhk,bmhk->bhlm",
            self.places,
            project(z, self.latent_keys),
            self._bias("read"),
            None if rate is None else self.rate_mask(rate).mT[:, None],
        )
        x = jnp.einsum("bhlm,bmhk->blhk", weights, self._split(project(z, self.read)))
        x = self._turned(x, -1)
        x = project(x.reshape(*x.shape[:2], -1), self.back)
        return x + self.positions.astype(x.dtype)[None]

    def rate_mask(self, rate: Int[Array, " B"]) -> Bool[Array, "B M 1"]:
        return (jnp.arange(self.config.latents)[None, :] < rate[:, None])[:, :, None]

    def _split(self, x):
        """[..., D] -> [..., H, K]."""
        return x.reshape(*x.shape[:-1], self.config.heads, -1)

    def _attention(self, product, queries, keys, bias, visible):
        """Softmax over the last axis; float32, but for the products with keys [B, ., D]."""
        q, k = self._split(queries.astype(keys.dtype)), self._split(keys)
        # The keys' norm is a factor of the few scores, not one more pass over the keys.
        squares = jnp.sum(jnp.square(k.astype(jnp.float32)), -1).mT[:, :, None]
        scores = jnp.einsum(product, q, k, preferred_element_type=jnp.float32)
        scores = scores * jax.lax.rsqrt(squares + 1e-6 * k.shape[-1]) + bias[None]
        if visible is not None:
            scores = jnp.where(visible, scores, jnp.finfo(jnp.float32).min)
        return jax.nn.softmax(scores, axis=-1).astype(k.dtype)

    def _turned(self, x, sign):
        """R(sign i) on the pairs of x [B, L, H, K]."""
        cos, sin = jnp.cos(angle := self._split(self._angles())[None]), jnp.sin(angle)
        a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        turned = [a * cos - b * (sign * sin), b * cos + a * (sign * sin)]
        return jnp.concatenate(turned, axis=-1).astype(x.dtype)

    def _angles(self):
        """Of each pair at each position, [L, D/2]."""
        c = self.config
        if c.value_frequencies == "learned":
            return jnp.arange(c.window, dtype=jnp.float32)[:, None] * self.theta[None]
        if c.value_frequencies == "rope":
            return spectrum.rope_angles(c.window, c.d_model, c.heads)
        return spectrum.angles(c.window, c.d_model, self.span)

    def _bias(self, side):
        """[H, M, L] to write, [H, L, M] to read."""
        if self.config.positional_bias == "learned":
            return getattr(self, f"{side}_bias")
        bias = self._own_slices() * (self.config.positional_bias == "fixed")
        return bias if side == "write" else bias.mT

    def _own_slices(self):
        c = self.config
        own = jnp.arange(c.latents)[:, None] == spectrum.slices(c.window, c.latents)[None]
        bias = jnp.where(own, 0.0, math.log(ELSEWHERE / max(c.latents - 1, 1)))
        return jnp.tile(bias, (c.heads, 1, 1))

    def _whole_pairs(self, key, shape):
        """The identity as far as z goes; random for more numbers, which nothing reads at first."""
        d, latent = shape
        kept = spectrum.whole_pairs(d, self.config.heads, latent)
        return jnp.where(np.arange(latent)[None] < d, kept, fan_in()(key, shape))
