"""Windows [N, L] for evaluation and routing; training batches are in `batches`."""

import collections
import dataclasses

import numpy as np
from jaxtyping import Bool, Int32, Int64, Integer

from cr_jax.data.batches import MODES, cut_documents
from cr_jax.data.corpus import Corpus
from cr_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Windows:
    """N windows of L tokens. `mask` is False on padding; `document` is where a window starts."""

    tokens: Int32[np.ndarray, "N L"]
    mask: Bool[np.ndarray, "N L"]
    document: Int64[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, at: slice | Integer[np.ndarray, " n"]) -> "Windows":
        """Some of the windows, by a slice or by their places."""
        return Windows(self.tokens[at], self.mask[at], self.document[at])

    def spread(self, count: int) -> "Windows":
        """At most `count` windows, evenly spread from the first to the last."""
        return self.take(np.linspace(0, len(self) - 1, min(count, len(self))).astype(int))


class Tail:
    """The last `most` tokens of blocks that pass by, whatever their number.

    count: tokens that have passed by; ids: the last of them, int32 [min(count, most)].
    """

    def __init__(self, most: int):
        self.most, self.count = most, 0
        self._parts: collections.deque[np.ndarray] = collections.deque()
        self._kept = 0

    def add(self, block: Windows) -> None:
        """The next block of the text."""
        part = block.tokens[block.mask]
        self._parts.append(part)
        self.count += len(part)
        self._kept += len(part)
        while self._kept - len(self._parts[0]) >= self.most:
            self._kept -= len(self._parts.popleft())

    @property
    def ids(self) -> Int32[np.ndarray, " T"]:
        return np.concatenate([np.zeros(0, np.int32), *self._parts])[-self.most :]


def eval_windows(
    corpus: Corpus,
    window: int,
    *,
    limit: int | None = None,
    mode: str = "packed",
    pad_id: int = 0,
    seed: int = 0,
) -> Windows:
    """The windows of a corpus, in order. The paper's token counts are whole windows of 512 too.

    packed: the consecutive, non-overlapping windows of the whole concatenation, `end_id`s included;
    the last T mod L tokens are left out, unless the corpus is shorter than a window (then one
    padded window). padded: each document is cut into windows of at most L, without `end_id`.
    limit: at most so many, evenly spread; `seed` moves them by less than their distance.
    """
    if mode not in MODES:
        raise UserError(f"window mode {mode!r} is unknown; use {' or '.join(MODES)}")
    _check(window, limit)
    total = len(corpus.tokens)
    if mode == "padded":
        starts, lengths = cut_documents(corpus.starts, window)
    elif total < window:
        starts, lengths = np.zeros(1, np.int64), np.full(1, total)
    else:
        starts = np.arange(total // window) * window
        lengths = np.full(len(starts), window)
    if limit is not None and limit < len(starts):
        shift = np.random.default_rng(seed).random()
        chosen = ((np.arange(limit) + shift) * (len(starts) / limit)).astype(np.int64)
        starts, lengths = starts[chosen], lengths[chosen]
    return _cut(corpus.tokens, corpus.starts, starts, lengths, window, pad_id)


def windows_of(ids: Integer[np.ndarray, " T"], window: int, pad_id: int) -> Windows:
    """The consecutive windows of one document, the last one padded. UserError if it is empty.

    >>> found = windows_of(np.array([7, 8, 9], np.int32), window=2, pad_id=0)
    >>> found.tokens.tolist(), found.mask.tolist()
    ([[7, 8], [9, 0]], [[True, True], [True, False]])
    """
    _check(window, None)
    ids = np.asarray(ids)
    if not len(ids):
        raise UserError("an empty text has no windows; give at least one character")
    starts = np.arange(0, len(ids), window)
    bounds = np.array([0, len(ids)], np.int64)
    return _cut(ids, bounds, starts, np.minimum(window, len(ids) - starts), window, pad_id)


def document_windows(
    corpus: Corpus, window: int, pad_id: int, *, limit: int, most_tokens: int, least_tokens: int = 1
) -> Windows:
    """Windows of whole documents, each cut on its own: `document` tells them apart.

    At most `limit` documents, evenly spread, of at least `least_tokens` tokens and cut after
    `most_tokens`; the last window of a document is padded.  Without `end_id`s; none when no
    document is that long.
    """
    sizes = np.diff(corpus.starts) - 1
    long = np.flatnonzero(sizes >= max(1, least_tokens))
    chosen = long[np.linspace(0, long.size - 1, min(limit, long.size)).astype(int)]
    parts = [
        windows_of(corpus.tokens[s : s + min(size, most_tokens)], window, pad_id)
        for s, size in zip(corpus.starts[chosen], sizes[chosen], strict=True)
    ]
    if not parts:
        return Windows(
            np.zeros((0, window), np.int32), np.zeros((0, window), bool), np.zeros(0, np.int64)
        )
    return Windows(
        np.concatenate([p.tokens for p in parts]),
        np.concatenate([p.mask for p in parts]),
        np.repeat(chosen.astype(np.int64), [len(p) for p in parts]),
    )


def random_windows(n: int, window: int, vocab_size: int, seed: int) -> Windows:
    """`n` windows of ids drawn uniformly from range(vocab_size). Paper, results: random tokens."""
    _check(window, n)
    tokens = np.random.default_rng(seed).integers(0, vocab_size, (n, window), np.int32)
    return Windows(tokens, np.ones(tokens.shape, bool), np.arange(n, dtype=np.int64))


def _check(window: int, limit: int | None) -> None:
    if window < 1 or (limit is not None and limit < 1):
        raise UserError(f"window {window} and number of windows {limit} must be 1 or more")


def _cut(tokens, bounds, starts, lengths, window: int, pad_id: int) -> Windows:
    columns = np.arange(window)
    mask = columns < lengths[:, None]
    index = np.where(mask, starts[:, None] + columns, 0)
    ids = np.where(mask, tokens[index].astype(np.int32), np.int32(pad_id))
    document = np.searchsorted(bounds, starts, side="right") - 1
    return Windows(ids, mask, document.astype(np.int64))
