"""Texts under way and who speaks them: the host's side of `modular.decode`.

It holds each text's tokens, fills caches when a text begins, changes its expert or has filled its
cache, and keeps on the device the language models that speak, no others.  Not in the paper.
Letters: B texts, K experts of a text, E experts.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from cr_jax.config import LmConfig
from cr_jax.errors import UserError
from cr_jax.models.lm import grouped
from cr_jax.modular import decode
from cr_jax.modular.decode import CHUNK
from cr_jax.modular.options import LEAST


class Models(NamedTuple):
    """Language models of one shape, given out by place.

    stack: places [G] -> their parameters [G, ...], on the host or the device; count: how many
    there are.
    """

    config: LmConfig
    stack: Callable[[np.ndarray], Any]
    count: int


def stacked(config: LmConfig, params: Any) -> Models:
    """Of parameters [E, ...], on the host or the device."""
    count = len(jax.tree.leaves(params)[0])

    def stack(experts):
        whole = len(experts) == count and (experts == np.arange(count)).all()
        return params if whole else jax.tree.map(lambda x: x[experts], params)

    return Models(config, stack, count)


class Speakers:
    """B texts that go on, each spoken by K experts.

    texts: token ids so far, of each text an int32 array; what was said is added to them.
    dropped: tokens of each text that its experts do not see, because the cache is shorter.  pages:
    tokens that stand before what they do see of each (`put_before`).
    """

    def __init__(
        self,
        models: Models,
        texts: Sequence[Int[np.ndarray, " N"]],
        sampling: decode.Sampling,
        rule: decode.Rule,
        context: int = 512,
        room: int = CHUNK,
    ):
        """context: positions of a cache at most, the start among them; room: tokens that are going
        to be said, for a cache no larger than needed.
        """
        grouped.check_kind(models.config)
        if context < 2 * LEAST:
            raise UserError(f"context={context}: a cache has at least {2 * LEAST} positions")
        self.config, self.sampling, self.rule = models.config, sampling, rule
        self.texts = [np.asarray(t, np.int32) for t in texts]
        self._models = models
        # A text that is read anew needs room for a chunk after it.
        longest = 1 + max(map(len, self.texts)) + room + CHUNK
        self.length = min(context, _power(longest))
        self.dropped = np.zeros(len(self.texts), int)
        self.pages = [np.zeros(0, np.int32) for _ in self.texts]
        self._stale = np.zeros(len(self.texts), bool)  # to be read again
        self._speak_as: np.ndarray | None = None  # experts [B, K]
        self._talk: decode.Talk | None = None
        self._loaded: tuple[tuple[int, ...], grouped.Weights] | None = None

    @property
    def weights(self) -> np.ndarray:
        """Of the mixture before the next token [B, K]; they sum to 1."""
        return np.exp(np.asarray(self._talk.log_weights, np.float64))

    @property
    def states(self) -> Any:
        """What the next tokens are predicted from [B K, D], on the device."""
        return self._talk.states

    def give(self, experts: Int[np.ndarray, "B K"], log_weights: np.ndarray | None = None) -> None:
        """Says who speaks from now on; only texts whose experts change are read again.

        log_weights: of a mixture that begins [B, K]; None: all alike.
        """
        experts = np.asarray(experts, int)
        before = self._speak_as
        if before is not None and before.shape != experts.shape:
            raise UserError("the number of experts of a text cannot change on the way")
        self._speak_as = experts
        fresh = (
            np.arange(len(experts)) if before is None else (before != experts).any(1).nonzero()[0]
        )
        if log_weights is None:
            log_weights = np.full(experts.shape, -np.log(experts.shape[1]), np.float32)
        if before is None:
            self._talk = self._begun(np.asarray(log_weights, np.float32))
        elif len(fresh):
            old = self._talk.log_weights
            kept = np.isin(np.arange(len(experts)), fresh)[:, None]
            self._talk = self._talk._replace(
                log_weights=jnp.where(kept, jnp.asarray(log_weights, jnp.float32), old)
            )
        self._read(fresh)

    def put_before(self, pages: Sequence[Int[np.ndarray, " T"]]) -> None:
        """Tokens that each text's experts see before it, at most half a cache; only texts whose
        pages change are read again."""
        for b, new in enumerate(pages):
            if 2 * len(new) > self.length:
                raise UserError(f"{len(new)} tokens of pages in a cache of {self.length}: half fit")
            if not np.array_equal(new, self.pages[b]):
                self.pages[b], self._stale[b] = np.asarray(new, np.int32), True

    def unseen(self, text: int, pages: int) -> int:
        """Of a text of so many tokens, those that are dropped beside so many of pages."""
        if 1 + pages + text + CHUNK <= self.length:
            return 0
        return text - (self.length - pages) // 2

    def speak(self, limit: int) -> list[Int[np.ndarray, " N"]]:
        """The next tokens of each text, at most `limit` <= `CHUNK`: fewer where it ends, and then
        its end's id is the last.
        """
        if not 1 <= limit <= CHUNK:
            raise UserError(f"limit={limit} must lie in [1, {CHUNK}]")
        seen = np.array([len(t) + len(p) for t, p in zip(self.texts, self.pages, strict=True)])
        full = 1 + seen - self.dropped + limit > self.length
        self._read((full | self._stale).nonzero()[0])
        rows, seats = self._seats(self._speak_as.reshape(-1))
        voices = decode.Voices(self._weights(rows), seats)
        said, self._talk = decode.speak(
            self.config, voices, self._talk, self.sampling, limit, self.rule
        )
        spoken = [row[row != decode.NONE] for row in np.asarray(said)]
        self.texts = [np.concatenate(pair) for pair in zip(self.texts, spoken, strict=True)]
        return spoken

    @property
    def done(self) -> np.ndarray:
        """Whether each text has said its end."""
        return np.asarray(self._talk.done)

    def _read(self, some: np.ndarray) -> None:
        """Fills the rows of these texts; of one that leaves no room for a chunk, with its last
        half cache."""
        if not len(some):
            return
        for b in some:
            self.dropped[b] = self.unseen(len(self.texts[b]), len(self.pages[b]))
        self._stale[some] = False
        several = self._speak_as.shape[1]
        count = min(_power(len(some)), len(self.texts))
        some = np.concatenate([some, np.repeat(some[-1:], count - len(some))])
        seen = [np.concatenate([self.pages[b], self.texts[b][self.dropped[b] :]]) for b in some]
        width = min(_power(max(LEAST, 1 + max(map(len, seen)))), self.length) - 1
        tokens = np.zeros((count, width), np.int32)
        mask = np.zeros(tokens.shape, bool)
        for i, text in enumerate(seen):
            tokens[i, : len(text)], mask[i, : len(text)] = text, True
        rows = (several * some[:, None] + np.arange(several)).reshape(-1)
        filling = np.arange(len(rows)) >= several * len(np.unique(some))
        experts, seats = self._seats(self._speak_as[some].reshape(-1))
        states, cache = decode.prefill(
            self.config,
            self._weights(experts),
            seats,
            np.repeat(tokens, several, 0),
            np.repeat(mask, several, 0),
            self.length,
        )
        beyond = np.where(filling, several * len(self.texts), rows).astype(np.int32)
        self._talk = decode.with_rows(self._talk, beyond, states, cache)

    def _seats(self, experts):
        return grouped.seat(experts, self._models.count)

    def _weights(self, experts: np.ndarray) -> grouped.Weights:
        """The models of these experts on the device: those of the last call, or loaded."""
        key = tuple(experts.tolist())
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # before the next are made: never two sets in memory
            self._loaded = key, grouped.weights(self.config, self._models.stack(experts))
        return self._loaded[1]

    def _begun(self, log_weights: np.ndarray) -> decode.Talk:
        """A talk whose rows are all still to be filled."""
        c, batch, rows = self.config, len(log_weights), log_weights.size
        dtype = grouped.compute_dtype(c)
        shape = (rows, self.length, c.kv_heads or c.heads, c.d_model // c.heads)
        empty = lambda: tuple(jnp.zeros(shape, dtype) for _ in range(c.blocks))
        return decode.Talk(
            grouped.RowCache(empty(), empty(), jnp.ones(rows, jnp.int32)),
            jnp.zeros((rows, c.d_model), dtype),
            jnp.asarray(log_weights),
            jnp.zeros(batch, jnp.int32),
            jnp.zeros(batch, bool),
        )


def _power(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()
