"""A plain decoder that also attends to the latents of past windows, through a small adapter.

    z [B, W, M, Dz], ages [G, W] -> keys and values, once for all layers' queries
    in front of each layer: x + gate * attention(x, keys and values)

The decoder is frozen, and its own weights are those of `decoder.Decoder`, name by name.  The
adapter, `LatentReader`, has per layer a query, key, value and output matrix and a gate for each
channel, which starts at zero: until it is trained, predictions are the decoder's.  z is projected
to the decoder's width, with a vector for each of the M places of a window.  How long ago a window
was is a bias on its scores, one for each head and age, ages spaced as logarithms (as the relative
positions of arXiv 1910.10683): keys do not change as a text goes on.  Every query may also look at
a learned key whose value is zero; where nothing was before, that is all there is, so that a text
without a past is always predicted as without an adapter.  Gates of zero as in Flamingo (arXiv
2204.14198).  Not in the paper, which names latents as memory without a reader.
Letters: B texts, G segments of C tokens side by side in one text, W windows, M latents, Dz their
width, D width of the states, H heads, K head width, N layers, A ages told apart.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cr_jax.config import LmConfig
from cr_jax.errors import UserError
from cr_jax.models.kernels import project, rms_norm
from cr_jax.models.layers import compute_dtype, fan_in
from cr_jax.models.lm.layer import KeysValues, Model, attend, finish, read

AGES = 32  # told apart: 1, 2, 3, 4, ... windows ago, from 8 on four to a doubling


class LatentReader(nn.Module):
    """The adapter: all that is trained.  latents: M of a window; width: Dz."""

    config: LmConfig
    latents: int
    width: int

    def setup(self):
        c = self.config
        n, d = c.blocks, c.d_model
        zeros = nn.initializers.zeros_init()
        self.widen = self.param("widen", fan_in(), (self.width, d))
        self.place = self.param("place", nn.initializers.normal(0.02), (self.latents, d))
        self.q = self.param("q", fan_in(), (n, d, d))
        self.kv = self.param("kv", fan_in(), (n, 2, d, d))
        self.out = self.param("out", fan_in(), (n, d, d))
        self.gate = self.param("gate", zeros, (n, d))
        self.age = self.param("age", zeros, (n, AGES, c.heads))
        self.none = self.param("none", zeros, (n, d))

    def __call__(
        self, z: Float[Array, "B W M Dz"]
    ) -> list[tuple[Float[Array, "B S H K"], Float[Array, "B S H K"]]]:
        """Keys and values of each layer, S = 1 + W M; the first is what stands for no window."""
        dtype = compute_dtype(self.config)
        x = project(rms_norm(z.astype(dtype)), self.widen)
        x = rms_norm(x) + self.place.astype(dtype)[None, None]
        x = x.reshape(len(z), -1, x.shape[-1])
        return [self._keys_values(i, x) for i in range(self.config.blocks)]

    def added(
        self, i: int, x: Float[Array, "B T D"], keys_values: Any, ages: Int[Array, "#B G W"]
    ) -> Float[Array, "B T D"]:
        """What layer i's queries of G segments of T / G positions read, to be added to the stream.

        ages: of each segment how many windows ago a window was, 1 and more; below 1: not to be
        read, as what is not yet past.
        """
        keys, values = keys_values[i]
        q = rms_norm(self._heads(project(rms_norm(x), self.q[i])))
        seen = jnp.repeat(ages, self.latents, axis=-1)  # [B, G, S - 1]
        bias = jnp.where((seen > 0)[..., None], self.age[i][bucket(seen)], -jnp.inf)
        bias = jnp.pad(bias, ((0, 0), (0, 0), (1, 0), (0, 0)))  # what stands for none: always
        bias = jnp.repeat(bias.transpose(0, 3, 1, 2), x.shape[1] // ages.shape[1], axis=2)
        # By hand: cuDNN wants heads, lengths and biases that these are not.
        scores = jnp.einsum("bthk,bshk->bhts", q, keys).astype(jnp.float32)
        weights = jax.nn.softmax(scores * q.shape[-1] ** -0.5 + bias, axis=-1).astype(x.dtype)
        y = jnp.einsum("bhts,bshk->bthk", weights, values).reshape(x.shape)
        return self.gate[i].astype(x.dtype)[None, None] * project(y, self.out[i])

    def _keys_values(self, i: int, x):
        k = rms_norm(self._heads(project(x, self.kv[i, 0])))
        v = self._heads(project(x, self.kv[i, 1]))
        none = self._heads(jnp.broadcast_to(self.none[i].astype(x.dtype), (len(x), 1, x.shape[-1])))
        return jnp.concatenate([none, k], 1), jnp.pad(v, ((0, 0), (1, 0), (0, 0), (0, 0)))

    def _heads(self, x):
        return x.reshape(*x.shape[:-1], self.config.heads, -1)


class _Frozen(Model):
    """The decoder's layers with something added in front of each: `added(i, x)`."""

    def __call__(self, tokens: Int[Array, "R C"], added: Any) -> Float[Array, "R C D"]:
        c, at = self.config, jnp.arange(tokens.shape[1])
        x = self.embedded(self.shifted(tokens)[:, :-1], at)
        for i, weights in enumerate(self.blocks()):
            x = x + added(i, x)
            q, k, v = read(c, weights, x, at)
            x = finish(c, weights, x, attend(c, q, KeysValues(k, v), causal=True))
        return self.finished(x)


def make_reader(config: LmConfig, latents: int, width: int) -> LatentReader:
    """The adapter of a decoder.  `UserError` for another kind of language model."""
    if config.kind != "decoder":
        raise UserError(
            f"latents are read by language models of kind 'decoder'; these are {config.kind!r}"
        )
    return LatentReader(config, latents, width)


def init(config: LmConfig, latents: int, width: int, key: Any) -> Any:
    """Fresh float32 parameters of an adapter; call it under `jax.jit` or `eval_shape`."""
    return make_reader(config, latents, width).init(key, jnp.zeros((1, 1, latents, width)))


def states(
    config: LmConfig,
    params: Any,
    reader: Any,
    tokens: Int[Array, "B T"],
    z: Float[Array, "B W M Dz"],
    ages: Int[Array, "#B G W"],
) -> Float[Array, "B T D"]:
    """States before the vocabulary; states[:, i] has seen earlier tokens of its own segment, and
    the windows that its segment's ages say are past.

    A row's tokens are G segments of equal length, each read from its own start; params: the
    decoder's, reader: the adapter's.
    """
    net = make_reader(config, *z.shape[2:])
    keys_values = net.apply(reader, z)
    segments = ages.shape[1]
    rows = lambda x: x.reshape(-1, x.shape[1] // segments, *x.shape[2:])
    whole = lambda x: x.reshape(tokens.shape + x.shape[2:])

    def added(i, x):
        return rows(net.apply(reader, i, whole(x), keys_values, ages, method="added"))

    return whole(_Frozen(config).apply(params, rows(tokens), added))


def bucket(ages: Int[Array, "..."]) -> Int[Array, "..."]:
    """The place in [0, AGES) of an age of 1 or more: 1 to 8 apart, then four to a doubling."""
    doublings = jnp.log2(jnp.maximum(ages, 8).astype(jnp.float32) / 8)
    far = 8 + jnp.floor(4 * doublings + 1e-4).astype(jnp.int32)
    return jnp.clip(jnp.where(ages <= 8, ages, far) - 1, 0, AGES - 1)


def forward_flops(config: LmConfig, latents: int, width: int, windows: int) -> tuple[float, float]:
    """(operations per token that reads so many windows, per window that is projected)."""
    d, n, seen = config.d_model, config.blocks, 1 + windows * latents
    each = 2.0 * n * (2 * d * d + 2 * seen * d)
    return each, 2.0 * latents * (width * d + n * 2 * d * d)
