"""Which windows a training step sees: a pure function of (seed, step)."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int32, Int64

from cr_jax.data.corpus import Corpus
from cr_jax.data.permutation import mix, permute
from cr_jax.errors import UserError

if TYPE_CHECKING:
    import grain

MODES = ("packed", "padded")
_BLOCK = 4096  # rows over which the shares of a mixture are exact
_STEPS = 1 << 40  # Grain wants a length; no run gets there


@dataclasses.dataclass(frozen=True)
class Mixture:
    """One expert's training text from several corpora. Not in the paper.

    `weights`: the share of rows from each corpus (any positive scale); None takes them in
    proportion to their tokens.
    """

    corpora: Sequence[Corpus]
    weights: Sequence[float | int] | None = None


@dataclasses.dataclass(frozen=True)
class Windowing:
    """How an expert's text becomes the windows that it is trained on.

    window: L, tokens; seed: an expert's order follows from (seed, name); mode: "packed" or
    "padded" (`WindowBatches`); pad_id: the id of padding.  `UserError` for another mode, or a
    window below 1.
    """

    window: int
    seed: int = 0
    mode: str = "packed"
    pad_id: int = 0

    def __post_init__(self):
        if self.mode not in MODES:
            raise UserError(f"window mode {self.mode!r} is unknown; use {' or '.join(MODES)}")
        if self.window < 1:
            raise UserError(f"window {self.window} must be 1 or more")


@dataclasses.dataclass(frozen=True)
class Share:
    """Which part of every global batch [E, B, ...] one process supplies.

    Experts `experts`, by place, and of their rows block `block` of `blocks` equal ones.
    """

    experts: slice = dataclasses.field(default_factory=lambda: slice(None))
    block: int = 0
    blocks: int = 1


ALL = Share()


def count_tokens(source: Corpus | Mixture) -> int:
    """Tokens of an expert's training text, each counted once."""
    return sum(len(c.tokens) for c in _corpora(source))


def epoch_positions(source: Corpus | Mixture, windowing: Windowing) -> float:
    """Positions of training windows, padding too, in which an expert's text is read once.

    Packed windows have no padding: as many as tokens.  Padded ones of a mixture: on average over
    its shares.  0 for a text without a real token.
    """
    corpora = _corpora(source)
    if windowing.mode == "packed":
        return float(sum(len(c.tokens) for c in corpora))
    lengths = [np.diff(c.starts) - 1 for c in corpora]  # without the token that ends a document
    real = np.array([n.sum() for n in lengths], float)
    padded = (
        np.array([(-(-n // windowing.window)).sum() for n in lengths], float) * windowing.window
    )
    if not real.all():
        return 0.0  # refused when its windows are cut
    shares = _shares(source)
    return float(real.sum() / (shares @ (real / padded)))


def content(source: Corpus | Mixture) -> str:
    """SHA-256 (hex) of an expert's training tokens: the same text, wherever its files lie."""
    digest = hashlib.sha256()
    for corpus in _corpora(source):
        digest.update(f"{len(corpus.tokens)} {corpus.tokens.dtype}\n".encode())
        digest.update(np.ascontiguousarray(corpus.tokens).data)
    return digest.hexdigest()


def _corpora(source: Corpus | Mixture) -> Sequence[Corpus]:
    return source.corpora if isinstance(source, Mixture) else [source]


def _shares(source: Corpus | Mixture) -> np.ndarray:
    """Each corpus's share of an expert's rows; they add up to 1."""
    corpora = _corpora(source)
    weights = source.weights if isinstance(source, Mixture) else None
    shares = np.array([len(c.tokens) for c in corpora] if weights is None else weights, float)
    if shares.shape != (len(corpora),) or not len(corpora):
        raise UserError(
            f"a mixture has {len(corpora)} corpora but {shares.size} weights; "
            "give one weight for each"
        )
    if not (np.isfinite(shares).all() and (shares > 0).all()):
        raise UserError("mixture weights must be positive numbers; leave out what gets none")
    return shares / shares.sum()


class _Rows:
    """Row n = 0, 1, 2, ... of one corpus: epoch after epoch, each in its own random order."""

    def __init__(self, corpus: Corpus, windowing: Windowing, key: int):
        self._tokens = corpus.tokens
        self._window, self._pad_id = windowing.window, windowing.pad_id
        self._key = key
        self._total = len(corpus.tokens)
        self._padded = windowing.mode == "padded"
        if self._padded:
            self._starts, self._lengths = cut_documents(corpus.starts, self._window)
            self.count = len(self._starts)
        else:
            self.count = max(1, self._total // self._window)
        if not self.count or not self._total:
            raise UserError("a corpus has no tokens to train on; check the data sources")

    def __call__(
        self, rows: Int64[np.ndarray, " N"]
    ) -> tuple[Int32[np.ndarray, "N L"], Bool[np.ndarray, "N L"]]:
        epoch, place = np.divmod(rows, self.count)
        place = permute(place, self.count, mix(self._key, epoch))
        columns = np.arange(self._window)
        if self._padded:
            starts = self._starts[place]
            mask = columns < self._lengths[place, None]
            index = np.where(mask, starts[:, None] + columns, 0)
            found = self._tokens[index].astype(np.int32)
            return np.where(mask, found, np.int32(self._pad_id)), mask
        # The corpus is a ring that each epoch cuts at another place, so that an epoch has every
        # token at most once, at an ever different position in its window.
        phase = (mix(self._key, epoch, 1) % np.uint64(self._total)).astype(np.int64)
        starts = (phase + place * self._window) % self._total
        tokens = np.empty((len(rows), self._window), np.int32)
        inside = starts + self._window <= self._total
        if inside.any():
            view = np.lib.stride_tricks.sliding_window_view(self._tokens, self._window)
            tokens[inside] = view[starts[inside]]
        index = (starts[~inside, None] + columns) % self._total
        tokens[~inside] = self._tokens[index]
        return tokens, np.ones(tokens.shape, bool)


def cut_documents(
    starts: Int64[np.ndarray, " documents_plus_1"], window: int
) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """(first token, length <= window) of the windows of each document, without its `end_id`."""
    lengths = np.diff(starts) - 1
    counts = -(-lengths // window)
    document = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    first = starts[:-1][document] + number * window
    return first, np.minimum(window, lengths[document] - number * window)


class _Expert:
    """The rows of one expert: of one corpus, or of a mixture in fixed shares."""

    def __init__(self, source: Corpus | Mixture, windowing: Windowing, key: int):
        corpora, shares = _corpora(source), _shares(source)
        self.parts = [
            _Rows(corpus, windowing, int(mix(key, i))) for i, corpus in enumerate(corpora)
        ]
        # Every block of rows has the same number of rows from each corpus, in a random order.
        exact = shares * (_BLOCK - len(corpora))
        counts = np.floor(exact).astype(np.int64) + 1
        counts[np.argsort(counts - 1 - exact, kind="stable")[: _BLOCK - counts.sum()]] += 1
        self._counts = counts
        self._bounds = np.cumsum(counts)
        self._key = int(mix(key, 1 << 32))

    def __call__(
        self, rows: Int64[np.ndarray, " N"]
    ) -> tuple[Int32[np.ndarray, "N L"], Bool[np.ndarray, "N L"]]:
        if len(self.parts) == 1:
            return self.parts[0](rows)
        block, place = np.divmod(rows, _BLOCK)
        place = permute(place, _BLOCK, mix(self._key, block))
        part = np.searchsorted(self._bounds, place, side="right")
        inner = block * self._counts[part] + place - (self._bounds - self._counts)[part]
        found = [(part == i, rows_of(inner[part == i])) for i, rows_of in enumerate(self.parts)]
        tokens = np.empty((len(rows), found[0][1][0].shape[1]), np.int32)
        mask = np.empty(tokens.shape, bool)
        for chosen, (some_tokens, some_mask) in found:
            tokens[chosen], mask[chosen] = some_tokens, some_mask
        return tokens, mask


class WindowBatches:
    """A Grain random-access source whose element i is the whole batch of step i.

    A pure function of (seed, i).  Not in the paper.

    Element: {"tokens": int32 [e, b, L], in padded mode "mask": bool}, the `share` of a global batch
    [E, B, L] that does not depend on it.  An expert's rows come from its own corpus only: trained
    alone or beside others it reads the same.

    packed: windows of L consecutive tokens of the concatenated documents, as a ring; every epoch
    has each token at most once (all but T mod L of them), in a new order and with a new phase.
    padded: each document is cut into windows of at most L, filled up with `pad_id`; every epoch
    has each window once, in a new order.

    Args:
        corpora: each expert's `Corpus` or `Mixture` by its name, E of them.
        batch: B, rows per step and expert over all processes.
        windowing: how text is cut, and in which order windows come.
        share: what is read here.
    UserError for sizes that do not fit.
    """

    def __init__(
        self,
        corpora: Mapping[str, Corpus | Mixture],
        batch: int,
        windowing: Windowing,
        share: Share = ALL,
    ):
        if batch < 1:
            raise UserError(f"batch {batch} must be 1 or more")
        if batch % share.blocks or not 0 <= share.block < share.blocks:
            raise UserError(
                f"batch {batch} cannot be shared by process {share.block} of "
                f"{share.blocks}; make it a multiple of the number of processes"
            )
        if not corpora:
            raise UserError("no corpus to train on; name at least one data source")
        self._experts = [
            _Expert(corpus, windowing, int(mix(windowing.seed, *name.encode())))
            for name, corpus in list(corpora.items())[share.experts]
        ]
        self._batch, self._padded = batch, windowing.mode == "padded"
        rows = batch // share.blocks
        self._rows = np.arange(share.block * rows, (share.block + 1) * rows)

    def __len__(self) -> int:
        return _STEPS

    def parts(self, expert: int) -> "list[_Rows]":
        """The rows of each of an expert's corpora."""
        return self._experts[expert].parts

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        rows = int(step) * self._batch + self._rows
        found = [expert(rows) for expert in self._experts]
        batch = {"tokens": np.stack([tokens for tokens, _ in found])}
        if self._padded:
            batch["mask"] = np.stack([mask for _, mask in found])
        return batch


def sample(
    name: str, source: Corpus | Mixture, windowing: Windowing, tokens: int = 0
) -> tuple[Int32[np.ndarray, "N L"], Bool[np.ndarray, "N L"]]:
    """(tokens, mask) of an expert's training windows in random order, one corpus after the other.

    Each token comes at most once, whatever a mixture's shares, but where a corpus is shorter than
    a window.  `tokens`: at most about so many; 0: all of them.
    """
    parts = WindowBatches({name: source}, 1, windowing).parts(0)
    most = sum(part.count for part in parts)
    share = min(1.0, tokens / windowing.window / most) if tokens else 1.0
    cut = [part(np.arange(max(1, int(part.count * share)))) for part in parts]
    rows, mask = (np.concatenate(x) for x in zip(*cut, strict=True))
    return rows, mask


def train_iterator(batches: WindowBatches, start_step: int = 0) -> "grain.DatasetIterator":
    """Iterates over the batches from `start_step` on.

    `get_state()` is {"next_index": step}, `set_state()` goes on from there exactly, also on another
    number of processes.
    """
    import grain  # it brings Orbax along: most of a second that routing a file need not wait for

    # One thread keeps a few batches ahead; more would only fight for the interpreter's lock.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    iterator = iter(grain.MapDataset.source(batches).to_iter_dataset(options))
    if start_step:
        iterator.set_state({"next_index": int(start_step)})
    return iterator
