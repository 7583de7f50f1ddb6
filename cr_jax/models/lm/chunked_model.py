"""The module behind the kinds that keep compressed positions; `Form` says which one it is."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cr_jax.config import LmConfig
from cr_jax.errors import UserError
from cr_jax.models.lm import chunk_cache, chunked
from cr_jax.models.lm.chunk_cache import ChunkCache, Net
from cr_jax.models.lm.chunked import Form
from cr_jax.models.lm.layer import Model


class ChunkedModel(Model):
    """Pure: `apply(params, tokens)`; a subclass sets `form`."""

    form: ClassVar[Form]

    def __call__(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """States before the vocabulary; states[:, i] has seen tokens before i only.

        No mask: padding comes last, where no token sees it.
        """
        return self._states(self.shifted(tokens)[:, :-1])

    def prefill(
        self, tokens: Int[Array, "B L"], mask: Bool[Array, "B L"], length: int
    ) -> tuple[Float[Array, "B T D"], ChunkCache]:
        """(states [B, L + 1, D], a cache with room for `length` >= L + 1 positions, or some more).

        mask: True on real tokens, which come first.  A long text is read by `fill` at less cost.
        """
        return self._states(self.shifted(tokens)), self.fill(tokens, mask, length)[1]

    def fill(
        self, tokens: Int[Array, "B L"], mask: Bool[Array, "B L"], length: int
    ) -> tuple[Float[Array, "B D"], ChunkCache]:
        """(states that predict what follows each text, a cache): one sync and one window."""
        seen = 1 + jnp.sum(mask, axis=-1, dtype=jnp.int32)
        ids = self.shifted(tokens)
        last, cache = chunk_cache.fill(self.config, self.form, self._net(), ids, seen, length)
        return self.finished(last[:, None])[:, 0], cache

    def step(
        self, token: Int[Array, " B"], cache: ChunkCache
    ) -> tuple[Float[Array, "B D"], ChunkCache]:
        """(states that predict the token after this one, the cache with it).

        Where `chunk_cache.full` says so, `sync` comes first.
        """
        x, cache = chunk_cache.step(self.config, self.form, self._net(), token, cache)
        return self.finished(x[:, None])[:, 0], cache

    def sync(self, cache: ChunkCache) -> ChunkCache:
        """Full windows join their history, which is compressed anew."""
        return chunk_cache.sync(self.config, self.form, self._net(), cache)

    def _states(self, ids):
        x = self.embedded(ids, jnp.arange(ids.shape[1]))
        return self.finished(chunked.states(self.config, self.form, self.blocks(), x))

    def _net(self) -> Net:
        return Net(self.embedded, self.blocks())


def check(config: LmConfig, where: str = "config.lm") -> None:
    """`UserError` for chunks or stages that cannot be, or a window that is no whole chunks."""
    if config.chunk < 1:
        raise UserError(
            f"{where}.chunk={config.chunk}: kind={config.kind!r} needs a window of 1 or more tokens"
        )
    if not config.stages or config.blocks % config.stages or config.blocks < 2 * config.stages:
        raise UserError(
            f"{where}.stages={config.stages} must divide blocks={config.blocks} into stages of 2 "
            "or more layers"
        )
    if config.window % config.chunk:
        raise UserError(
            f"{where}.chunk={config.chunk} must divide the window of {config.window} tokens that "
            f"kind={config.kind!r} is trained on: its history ends at multiples of it"
        )
