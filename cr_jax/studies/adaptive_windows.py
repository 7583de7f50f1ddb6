"""Which windows rebuild a text of several domains, and whose?  (The paper's open question 2.)

    one expert       windows of L tokens, all by the expert with the lowest residual on the text
    fixed L, L/2 ..  windows of one size, each by the expert with the lowest residual on it
    spans            windows of at most L that begin anew at each switch, by their span's expert
    halved           spans; a window is halved, down to L/8, where its halves bring more tokens back

A window costs M latents whatever its length, so smaller windows buy accuracy with latents: every
way has its price beside its accuracy.  Encoder and decoder of an expert are both at hand, so
whether a window comes back is known without being told.  Not in the paper.
Letters: E experts, N windows, T tokens.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int

from cr_jax.bank import ExpertBank
from cr_jax.data.windows import Windows
from cr_jax.router import score_tokens
from cr_jax.scoring.batching import BatchSizes

HALVINGS = 3  # down to L / 8


@dataclasses.dataclass(frozen=True)
class Pieces:
    """Windows of one text: where each starts, its tokens, and its expert (-1: its cheapest)."""

    starts: Int[np.ndarray, " N"]
    lengths: Int[np.ndarray, " N"]
    expert: Int[np.ndarray, " N"]

    def take(self, at: Bool[np.ndarray, " N"]) -> "Pieces":
        return Pieces(self.starts[at], self.lengths[at], self.expert[at])


@dataclasses.dataclass
class _Sums:
    """Of all windows of one way to cut."""

    exact: int = 0
    nats: float = 0.0  # of rebuilding
    residual: float = 0.0  # nats, what routing compares
    windows: int = 0


def pieces(owner: Int[np.ndarray, " T"], size: int) -> Pieces:
    """Windows of at most `size` tokens that begin anew wherever the owner of a token changes.

    >>> found = pieces(np.array([4, 4, 4, 7, 7]), 2)
    >>> found.starts.tolist(), found.lengths.tolist(), found.expert.tolist()
    ([0, 2, 3], [2, 1, 2], [4, 4, 7])
    """
    edges = [0, *(np.flatnonzero(np.diff(owner)) + 1), len(owner)]
    starts = np.concatenate([np.arange(a, b, size) for a, b in itertools.pairwise(edges)])
    ends = np.append(starts[1:], len(owner))
    return Pieces(starts, ends - starts, owner[starts])


def halves(of: Pieces) -> Pieces:
    """Each window as two, the first of them no shorter; windows of one token stay."""
    first = of.lengths - of.lengths // 2
    both = Pieces(
        np.concatenate([of.starts, of.starts + first]),
        np.concatenate([first, of.lengths // 2]),
        np.tile(of.expert, 2),
    )
    return both.take(both.lengths > 0)


def rebuilt(
    bank: ExpertBank,
    texts: Sequence[Int[np.ndarray, " _"]],
    owners: Sequence[Int[np.ndarray, " _"]],
    sizes: BatchSizes | None = None,
) -> dict[str, dict[str, float]]:
    """way -> {"tra"; "nll" of rebuilding, nats/token; "bits_per_byte", the residual of each
    window's expert; "latents_per_token"} over all texts.

    texts: ids; owners: the expert of each token, by which spans are cut.
    """
    sizes, window = sizes or BatchSizes.for_device(), bank.model.window
    smallest = max(1, window >> HALVINGS)
    sums: dict[str, _Sums] = {}
    for ids, owner in zip(texts, owners, strict=True):
        anybody = np.full(len(ids), -1)
        read = _Reader(bank, ids, sizes)
        for halving in range(HALVINGS + 1):
            size = window >> halving
            if size >= smallest:
                read.add(sums.setdefault(f"fixed {size}", _Sums()), pieces(anybody, size))
        read.add(sums.setdefault("one expert", _Sums()), read.by_one(pieces(anybody, window)))
        spans = pieces(owner, window)
        read.add(sums.setdefault("spans", _Sums()), spans)
        read.add_halved(sums.setdefault("halved", _Sums()), spans, smallest)
    tokens = sum(map(len, texts))
    size = sum(len(bank.tokenizer.to_bytes(ids)) for ids in texts)
    return {
        way: {
            "tra": s.exact / tokens,
            "nll": s.nats / tokens,
            "bits_per_byte": s.residual / np.log(2) / size,
            "latents_per_token": s.windows * bank.model.latents / tokens,
        }
        for way, s in sums.items()
    }


class _Reader:
    """Scores windows of one text by their experts."""

    def __init__(self, bank, ids, sizes):
        self.bank, self.ids, self.sizes = bank, np.asarray(ids, np.int32), sizes

    def _scored(self, of: Pieces) -> Mapping[str, np.ndarray]:
        """Sums of each window by each expert [E, N]."""
        column = np.arange(self.bank.model.window)[None]
        mask = column < of.lengths[:, None]
        at = np.where(mask, of.starts[:, None] + column, 0)
        tokens = np.where(mask, self.ids[at], np.int32(self.bank.tokenizer.pad_id))
        windows = Windows(tokens.astype(np.int32), mask, np.zeros(len(mask), np.int64))
        scores = score_tokens(self.bank, windows, self.sizes)
        of_window = lambda x: np.where(mask, x, 0).sum(-1, dtype=np.float64)
        return {
            "exact": of_window(scores.correct),
            "nats": of_window(scores.nll),
            "residual": of_window(scores.residual),
        }

    def by_one(self, of: Pieces) -> Pieces:
        best = int(self._scored(of)["residual"].sum(1).argmin())
        return dataclasses.replace(of, expert=np.full(len(of.expert), best))

    def add(self, sums: _Sums, of: Pieces) -> None:
        self._count(sums, self._own(of))

    def add_halved(self, sums: _Sums, of: Pieces, smallest: int) -> None:
        self._count(sums, self._best(of, smallest))

    def _best(self, of: Pieces, smallest: int) -> dict[str, np.ndarray]:
        """Sums of each window, or of its two halves where these bring more tokens back: a short
        window is no gain for an expert that was trained on long ones."""
        best = self._own(of)
        split = (best["exact"] < of.lengths) & (of.lengths > smallest)
        if not split.any():
            return best
        parts = self._best(halves(of.take(split)), smallest)
        both = {k: np.sum(np.split(v, 2), axis=0) for k, v in parts.items()}
        gains = both["exact"] > best["exact"][split]
        for k, v in best.items():
            v[split] = np.where(gains, both[k], v[split])
        return best

    def _own(self, of: Pieces) -> dict[str, np.ndarray]:
        """Sums of each window by its own expert, or by its cheapest where it has none; 1 window."""
        scored = self._scored(of)
        expert = np.where(of.expert < 0, scored["residual"].argmin(0), of.expert)
        own = {k: np.take_along_axis(v, expert[None], 0)[0] for k, v in scored.items()}
        return {**own, "windows": np.ones(len(expert))}

    @staticmethod
    def _count(sums: _Sums, own: Mapping[str, np.ndarray]) -> None:
        sums.exact += int(own["exact"].sum())
        sums.nats += own["nats"].sum()
        sums.residual += own["residual"].sum()
        sums.windows += int(own["windows"].sum())
