"""Latent queries with rotary values: the default bottleneck.

A sum over attended tokens forgets their order.  So each token's value is turned by its position
before the sum, and turned back where a position reads it; R(i) turns the pair of numbers
(k, K/2 + k) of a head by theta_k i:

    z_m = W_o concat_h sqrt(S) sum_i softmax_i(q_mh . k_ih / sqrt(K) + b_hmi) R(i) (W_v h_i)_h
    x_i = p_i + W_b concat_h R(-i) sum_m softmax_m(q'_ih . k'_mh / sqrt(K) + b'_him) (W_r z_m)_h

theta_k = pi (2k + 1) / S, with S = ceil(L / M) tokens per latent: the S/2 complex sums of one real
channel over one slice are an orthogonal transform of it, which R(-i) undoes.  So copying is what
the first step starts from, and attention need not learn to address before anything is learnt.
The D/2 pairs of all heads share the spectra: `spectrum` says which is which.  Not in the paper,
which has latent queries and does not say what keeps their order.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import initializers
from jaxtyping import Array, Bool, Float, Int

from cr_jax.models.bottlenecks import spectrum
from cr_jax.models.bottlenecks.interface import Bottleneck
from cr_jax.models.kernels import project, rms_norm
from cr_jax.models.layers import fan_in

ELSEWHERE = -6.0  # positional bias at the start between a latent and other latents' slices


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
        c, unit = self.config, initializers.normal(1.0)
        d, latent = c.d_model, c.d_latent
        transform = c.value_start == "transform"
        self.queries = self.param("queries", unit, (c.latents, d))
        self.keys = self.param("keys", fan_in(), (d, d))
        self.values = self.param(
            "values", self._one_spectrum_a_channel if transform else fan_in(), (d, d))
        self.write = self.param("write", self._whole_pairs, (d, latent))
        self.places = self.param("places", unit, (c.window, d))
        self.latent_keys = self.param("latent_keys", fan_in(), (latent, d))
        self.read = self.param(
            "read", lambda key: jnp.asarray(spectrum.whole_pairs(d, c.heads, latent).T))
        gain = (1 + spectrum.channels(d, self.span)[-1]) ** 0.5 / 4
        self.back = self.param("back", lambda key: (
            gain * self.values.T if transform else fan_in()(key, (d, d))))
        self.positions = self.param("positions", initializers.normal(0.1), (c.window, d))
        if c.positional_bias == "learned":
            self.write_bias, self.read_bias = (
                self.param(name, lambda key, name=name: self._start_bias(name))
                for name in ("write_bias", "read_bias"))
        if c.value_frequencies == "learned":
            self.theta = self.param("theta", lambda key: jnp.asarray(
                spectrum.angles(2, d, self.span)[1], jnp.float32))

    def compress(
        self, h: Float[Array, "B L D"], mask: Bool[Array, "B L"] | None = None
    ) -> Float[Array, "B M Dz"]:
        v = self._turned(self._split(project(h, self.values)), 1)
        weights = self._weights(
            "mhk,blhk->bhml", self.queries, project(h, self.keys), self._bias("write_bias"),
            None if mask is None else mask[:, None, None])
        z = self.span**0.5 * jnp.einsum("bhml,blhk->bmhk", weights, v)
        return project(z.reshape(*z.shape[:2], -1), self.write)

    def expand(
        self, z: Float[Array, "B M Dz"], rate: Int[Array, " B"] | None = None
    ) -> Float[Array, "B L D"]:
        kept = None if rate is None else self.rate_mask(rate)[:, None, None, :, 0]
        weights = self._weights(
            "lhk,bmhk->bhlm", self.places, project(z, self.latent_keys),
            self._bias("read_bias"), kept)
        x = jnp.einsum("bhlm,bmhk->blhk", weights, self._split(project(z, self.read)))
        x = self._turned(x, -1)
        x = project(x.reshape(*x.shape[:2], -1), self.back)
        return x + self.positions.astype(x.dtype)[None]

    def rate_mask(self, rate: Int[Array, " B"]) -> Bool[Array, "B M 1"]:
        return (jnp.arange(self.config.latents)[None, :] < rate[:, None])[:, :, None]

    def _split(self, x):
        """[..., D] -> [..., H, K]."""
        return x.reshape(*x.shape[:-1], self.config.heads, -1)

    def _weights(self, product, queries, keys, bias, visible):
        """Softmax over the last axis, float32 inside; learned queries, RMS-normalised like keys."""
        k = self._split(keys)
        # The norm of the keys is a factor of the few scores, not one more pass over the keys.
        norm = jax.lax.rsqrt(jnp.mean(jnp.square(k.astype(jnp.float32)), -1) + 1e-6)
        q = rms_norm(self._split(queries)) * k.shape[-1] ** -0.5
        scores = jnp.einsum(product, q.astype(k.dtype), k, preferred_element_type=jnp.float32)
        scores = scores * norm.swapaxes(1, 2)[:, :, None] + bias[None]
        if visible is not None:
            scores = jnp.where(visible, scores, jnp.finfo(jnp.float32).min)
        return jax.nn.softmax(scores, axis=-1).astype(k.dtype)

    def _turned(self, x, sign):
        """R(sign i) on the pairs of x [B, L, H, K]."""
        cos, sin = (self._split(jnp.asarray(t, jnp.float32))[None] for t in self._table())
        a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
        turned = [a * cos - b * (sign * sin), b * cos + a * (sign * sin)]
        return jnp.concatenate(turned, axis=-1).astype(x.dtype)

    def _table(self):
        """Cosine and sine of each pair's angle at each position, [L, D/2]."""
        c = self.config
        if c.value_frequencies == "learned":
            angle = jnp.arange(c.window, dtype=jnp.float32)[:, None] * self.theta[None]
            return jnp.cos(angle), jnp.sin(angle)
        if c.value_frequencies == "rope":
            angle = spectrum.rope_angles(c.window, c.d_model, c.heads)
        else:
            angle = spectrum.angles(c.window, c.d_model, self.span)
        return np.cos(angle), np.sin(angle)

    def _bias(self, name):
        """[H, M, L] to write, [H, L, M] to read; also one head's, or a number, where all agree."""
        if self.config.positional_bias == "none":
            return jnp.zeros((1, 1, 1))
        if self.config.positional_bias == "learned":
            return getattr(self, name)
        return self._start_bias(name)

    def _start_bias(self, name):
        c = self.config
        own = np.arange(c.latents)[:, None] == spectrum.slices(c.window, c.latents)
        bias = np.tile(np.where(own, 0.0, ELSEWHERE).astype(np.float32), (c.heads, 1, 1))
        return jnp.asarray(bias if name == "write_bias" else bias.swapaxes(1, 2))

    def _one_spectrum_a_channel(self, key, shape):
        """Start of W_v: the pairs of a channel see one random direction of h, as a real signal."""
        d = self.config.d_model
        channel = spectrum.channels(d, self.span)
        directions = jax.random.normal(key, (d, channel[-1] + 1)) * d**-0.5
        real = directions[:, channel] * spectrum.sizes(d, self.span)[None]
        return jnp.zeros(shape).at[:, spectrum.place(d, self.config.heads)[0]].set(real)

    def _whole_pairs(self, key, shape):
        """Start of W_o: what z has numbers for; random for numbers beyond, which nothing reads."""
        d, latent = shape
        first = spectrum.whole_pairs(d, self.config.heads, latent)
        return jnp.where(np.arange(latent)[None] < d, first, fan_in()(key, shape))
