"""Training rows of a stage: of the domain that has come, of those before it, or of both.

Letters: E domains in the order of arrival, B rows of a batch, L tokens.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from cr_jax.errors import UserError
from cr_jax.studies.baselines.interface import TrainingText

Rows = tuple[np.ndarray, np.ndarray]  # (tokens [B, L], domain [B])
Draw = Callable[[np.ndarray, int], Rows]  # (tokens [E, B, L], stage) -> rows of one model


class Reservoir:
    """At most `size` windows of a stream, each equally likely kept (Vitter 1985, algorithm R), with
    the domains that they are of."""

    def __init__(self, size: int, window: int, seed: int):
        self.tokens = np.zeros((size, window), np.int32)
        self.domain = np.zeros(size, np.int32)
        self.seen = 0
        self.draw = np.random.default_rng([seed, size])

    def __len__(self) -> int:
        return min(self.seen, len(self.tokens))

    def add(self, tokens: Int[np.ndarray, "B L"], domain: Int[np.ndarray, " B"]) -> None:
        for row, label in zip(tokens, domain, strict=True):
            at = self.seen if self.seen < len(self.tokens) else self.draw.integers(self.seen + 1)
            if at < len(self.tokens):
                self.tokens[at], self.domain[at] = row, label
            self.seen += 1

    def sample(self, count: int) -> Rows:
        at = self.draw.integers(len(self), size=count)
        return self.tokens[at], self.domain[at]


def new_only(tokens, stage: int) -> Rows:
    """Rows of the domain that has come."""
    return tokens[stage], np.full(tokens.shape[1], stage, np.int32)


class Replay:
    """Rows of the domain that has come, a share of them replaced by stored ones of any before."""

    def __init__(self, share: float, size: int, window: int, seed: int):
        self.share, self.kept = share, Reservoir(size, window, seed)

    def __call__(self, tokens, stage: int) -> Rows:
        new, label = new_only(tokens, stage)
        count = round(self.share * len(new)) if stage and len(self.kept) else 0
        old, of = self.kept.sample(count) if count else (new[:0], label[:0])
        fresh = new[count:], label[count:]
        self.kept.add(*fresh)
        return np.concatenate([old, fresh[0]]), np.concatenate([of, fresh[1]])


class Everything:
    """Rows of all domains that have come, each equally likely; ahead: also of those to come."""

    def __init__(self, seed: int, ahead: bool = False):
        self.draw, self.ahead = np.random.default_rng([seed, 1]), ahead

    def __call__(self, tokens, stage: int) -> Rows:
        known = len(tokens) if self.ahead else stage + 1
        domain = self.draw.integers(known, size=tokens.shape[1]).astype(np.int32)
        return tokens[domain, np.arange(tokens.shape[1])], domain


class Batches:
    """One stream of text for all stages: `stage(k)` gives an iterator of {"tokens" [K, B, L],
    "label" [K, B], "mask"} for K models, each by its own `Draw`.  `UserError` for padded text."""

    def __init__(self, text: TrainingText, batch: int, draws: list[Draw]):
        if text.mode != "packed":
            raise UserError("config.continual.rivals need packed text: set config.data.mode=packed")
        self.stream, self.draws = iter(text.batches(batch)), draws

    def stage(self, stage: int, labels: bool = False) -> Iterator[dict[str, Any]]:
        while True:
            tokens = next(self.stream)["tokens"]
            rows, of = zip(*(draw(tokens, stage) for draw in self.draws), strict=True)
            drawn = {"tokens": np.stack(rows).astype(np.int32)}
            if labels:
                drawn["mask"] = np.ones(drawn["tokens"].shape, bool)
                drawn["label"] = np.stack(of).astype(np.int32)
            yield drawn
