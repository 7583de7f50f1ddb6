"""A Transformer that sees the first few positions and the last ones: the baseline of equal state.

Attention sinks (arXiv 2309.17453) with a sliding window, both at their true rotary positions, which
is what the model was trained with.  It sees `sinks` first positions and the last `2 chunk - sinks`,
itself among them: as many keys and values a layer as a window and its compressed positions.
`chunk=0` sees everything: the plain Transformer in either style of `layer`, with a static cache.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cr_jax.config import LmConfig
from cr_jax.errors import UserError
from cr_jax.models.lm.chunked import through
from cr_jax.models.lm.layer import KeysValues, Model, attend


class SlidingCache(NamedTuple):
    """layers: (keys, values) of each, [B, S, G, K]; of a window, S = 2 chunk places in a ring."""

    layers: tuple[Any, ...]
    length: Any  # int32 [B]: positions read, the start among them


class Sliding(Model):
    """Pure: `apply(params, tokens)`."""

    def __call__(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """States before the vocabulary; states[:, i] has seen tokens before i only."""
        return self._states(self.shifted(tokens)[:, :-1])[0]

    def prefill(
        self, tokens: Int[Array, "B L"], mask: Bool[Array, "B L"], length: int
    ) -> tuple[Float[Array, "B T D"], SlidingCache]:
        """(states [B, L + 1, D], a cache of `length` >= L + 1 positions, or of its window)."""
        states, kept = self._states(self.shifted(tokens))
        seen = 1 + jnp.sum(mask, axis=-1, dtype=jnp.int32)
        places = jnp.arange(2 * self.config.chunk or length)
        # The last position of each place; what lies beyond the text is written before it is read.
        at = places[None] + 0 * seen[:, None]
        if self.config.chunk:
            sinks = self.config.sinks
            ring = len(places) - sinks
            turns = jnp.maximum(seen[:, None] - 1 - places[None], 0) // ring
            at = jnp.where(places[None] < sinks, at, at + turns * ring)
        at = jnp.minimum(at, states.shape[1] - 1)
        take = jax.vmap(lambda x, i: x[i])
        return states, SlidingCache(tuple((take(k, at), take(v, at)) for k, v in kept), seen)

    def step(
        self, token: Int[Array, " B"], cache: SlidingCache
    ) -> tuple[Float[Array, "B D"], SlidingCache]:
        """(states that predict the token after this one, the cache with it)."""
        c, at = self.config, cache.length
        size = cache.layers[0][0].shape[1]
        ring = size - c.sinks
        place = jnp.where(at < size, at, c.sinks + (at - c.sinks) % ring) if c.chunk else at
        put = jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0))

        def own(i, q, k, v):
            old = cache.layers[i]
            pair = tuple(put(x, new, place) for x, new in zip(old, (k, v), strict=True))
            return attend(c, q, KeysValues(*pair, jnp.minimum(at + 1, size))), pair

        x = self.embedded(token[:, None], at[:, None])
        x, kept = through(c, self.blocks(), x, at[:, None], own, lambda i, q: None)
        return self.finished(x)[:, 0], SlidingCache(tuple(kept), at + 1)

    def sync(self, cache: SlidingCache) -> SlidingCache:
        """Nothing is ever due."""
        return cache

    def _states(self, ids):
        x, kept = self._through(self.embedded(ids, jnp.arange(ids.shape[1])))
        return self.finished(x), kept

    def _through(self, x):
        c, count = self.config, x.shape[1]
        at = jnp.arange(count)
        mask = None
        if c.chunk and count > 2 * c.chunk:
            back = at[:, None] - at[None]
            near = (back < 2 * c.chunk - c.sinks) | (at[None] < c.sinks)
            mask = ((back >= 0) & near)[None, None]

        def own(i, q, k, v):
            return attend(c, q, KeysValues(k, v), causal=mask is None, mask=mask), (k, v)

        return through(c, self.blocks(), x, at, own, lambda i, q: None)


def check(config: LmConfig, where: str = "config.lm") -> None:
    """`UserError` for more sinks than a window has places."""
    if config.chunk and config.sinks >= 2 * config.chunk:
        raise UserError(
            f"{where}.sinks={config.sinks} must be fewer than the 2 x chunk={2 * config.chunk} "
            "positions that are seen"
        )


def forward_flops(config: LmConfig, window: int) -> float:
    """Operations of a forward pass per token, as `training.speed` counts them."""
    c, d = config, config.d_model
    width = (c.kv_heads or c.heads) * (d // c.heads)
    matrices = 2.0 * (2 * d * d + 2 * d * width + 3 * d * c.d_ff)
    seen = min(window, 2 * c.chunk or window)
    return c.blocks * (matrices + 4.0 * d * seen) + 2.0 * d * c.vocab_size
