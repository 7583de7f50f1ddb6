"""What per-token scores of all experts say of a window beyond their sums, in numbers per window.

Not in the paper.  A known text is its expert's at nearly every token; text that no expert knows is
won now by one, now by another.  Scores of tokens are read a block of windows at a time and only
these numbers are kept.

    Windows -> score -> nats [E, B, L] -> statistics -> TokenStatistics, some 5 E^2 numbers a window
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.studies.capacity.text_statistics import repetition
from cr_jax.studies.unknown.own_text import OwnText

CLIP = 2.0  # nats; a single token weighs no more than this in a comparison of two experts
CLEAR = 1.0  # nats; by so much another expert must be ahead at a token to have won it
DEAREST = 0.05  # share of a window's tokens
BLOCK = 64  # windows whose per-token scores stand in memory at once


@dataclasses.dataclass(frozen=True)
class TokenStatistics:
    """Of N windows by E experts; nats/token where nothing else is said.

    Of a pair [e, o, n] and the difference d = nats by e - nats by o at each token of window n:
    clipped: mean of d held within +-`CLIP`; share: share of tokens with d > `CLEAR`; excess: mean
    of max(0, d).  rival_excess, rival_lead [e, x, n]: o is the best expert at each token but e and
    x (x = e: but e): mean of max(0, d), and of -d.
    """

    residual: Float[np.ndarray, "E N"]
    deviation: Float[np.ndarray, "E N"]  # of the nats of tokens, within the window
    dearest: Float[np.ndarray, "E N"]  # mean of the `DEAREST` tokens
    clipped: Float[np.ndarray, "E E N"]
    share: Float[np.ndarray, "E E N"]
    excess: Float[np.ndarray, "E E N"]
    rival_excess: Float[np.ndarray, "E E N"]
    rival_lead: Float[np.ndarray, "E E N"]
    distinct: Float[np.ndarray, " N"]  # log of the share of distinct tokens
    novel: Float[np.ndarray, "E N"] | None = None  # `OwnText.novel`, where it was asked for
    surprise: Float[np.ndarray, "E N"] | None = None  # `residuals.TokenScores`, where there is one

    def __len__(self) -> int:
        return self.residual.shape[1]

    def take(self, at) -> "TokenStatistics":
        """The windows at `at` (a slice, indices or a mask)."""
        return _each(lambda x: x[..., at], [self])


def join(parts: Sequence[TokenStatistics]) -> TokenStatistics:
    """The windows of all parts, in order."""
    return _each(lambda *x: np.concatenate(x, -1), parts)


def _each(of: Callable[..., np.ndarray], parts: Sequence[TokenStatistics]) -> TokenStatistics:
    """of(a field of all parts) -> the field; None stays None."""
    fields = {f.name: [getattr(p, f.name) for p in parts] for f in dataclasses.fields(parts[0])}
    return TokenStatistics(**{n: None if x[0] is None else of(*x) for n, x in fields.items()})


def most_windows(experts: int, kinds: int, limit: int = 256, memory: int = 2**30) -> int:
    """Windows of each of `kinds` domains so that all their statistics fit `memory` bytes; at least
    16, at most `limit`."""
    return int(np.clip(memory // (4 * 5 * experts**2 * max(1, kinds)), 16, limit))


class Nats(NamedTuple):
    """Of every token by every expert; what stands at padding is not read."""

    residual: Float[np.ndarray, "E B L"]
    surprise: Float[np.ndarray, "E B L"] | None = None

    def take(self, at: Bool[np.ndarray, " B"]) -> "Nats":
        return Nats(*(None if x is None else x[:, at] for x in self))


def measure(
    score: Callable[[Windows], Nats],
    windows: Windows,
    lengths: Sequence[int] = (),
    causal: bool = False,
    own_text: OwnText | None = None,
) -> dict[int, TokenStatistics]:
    """-> the statistics of whole windows, under their L, and of those that have `length` tokens cut
    to their first, where there are any.

    causal: the score of a token does not depend on later ones, so that a cut window is not scored
    again.
    own_text: the experts' own, for `novel`.
    """
    parts: dict[int, list[TokenStatistics]] = {n: [] for n in (*lengths, windows.tokens.shape[1])}
    for start in range(0, len(windows), BLOCK):
        block = windows.take(slice(start, start + BLOCK))
        nats = score(block)
        for length, found in parts.items():
            if length == block.tokens.shape[1]:
                found.append(statistics(nats, block, own_text))
            elif (long := block.mask.sum(-1) >= length).any():
                cut = block.take(np.flatnonzero(long))
                cut = dataclasses.replace(cut, mask=cut.mask & (np.cumsum(cut.mask, -1) <= length))
                found.append(statistics(nats.take(long) if causal else score(cut), cut, own_text))
    return {length: join(found) for length, found in parts.items() if found}


def statistics(nats: Nats, windows: Windows, own_text: OwnText | None = None) -> TokenStatistics:
    """Of one block.  `UserError`: fewer than three experts, or a window without tokens or with a
    token that has no finite score."""
    (nats, surprise), mask = nats, windows.mask
    experts, count = len(nats), mask.sum(-1)
    nats = np.where(mask, np.asarray(nats, np.float32), np.float32(0))
    if experts < 3 or not count.all() or not np.isfinite(nats).all():
        raise UserError(
            "statistics of tokens need three experts or more, windows of at least one token and "
            "finite scores of every token"
        )
    mean = lambda x: (x.sum(-1, dtype=np.float32) / count).astype(np.float32)  # 0 at padding
    residual = mean(nats)
    # padding sorts to the end, and is not counted
    ordered = -np.sort(np.where(mask, -nats, np.float32(np.inf)), -1)
    first = np.arange(mask.shape[1]) < np.ceil(DEAREST * count)[:, None]
    shape = (experts, experts, len(mask))
    order = np.argsort(nats, 0)[:3]
    lowest = np.take_along_axis(nats, order, 0)
    pairs = {k: np.empty(shape, np.float32) for k in _PAIRS}
    for e in range(experts):
        away = nats[e] - nats
        pairs["clipped"][e] = mean(np.clip(away, -CLIP, CLIP))
        pairs["share"][e] = mean(away > CLEAR)
        pairs["excess"][e] = mean(np.maximum(0, away))
        lead, excess = _rival(e, experts, order, lowest, nats[e], mask)
        pairs["rival_lead"][e], pairs["rival_excess"][e] = lead / count, excess / count
    return TokenStatistics(
        residual=residual,
        deviation=np.sqrt(mean(np.where(mask, (nats - residual[..., None]) ** 2, 0))),
        dearest=np.where(first, ordered, 0).sum(-1) / first.sum(-1),
        distinct=repetition(windows)[:, 0],
        novel=None if own_text is None else own_text.novel(windows),
        surprise=None if surprise is None else mean(np.where(mask, surprise, np.float32(0))),
        **pairs,
    )


_PAIRS = ("clipped", "share", "excess", "rival_excess", "rival_lead")


def _rival(e: int, experts: int, order, lowest, own, mask: Bool[np.ndarray, "B L"]):
    """(sum of rival - own, sum of max(0, own - rival)) [E, B], the rival being the best of all
    experts but e and, in row x, x.  order, lowest [3, B, L]: the three lowest of all."""
    first = order[0] == e
    best = np.where(first, order[1], order[0])
    least = np.where(first, lowest[1], lowest[0])
    second = np.where(first | (order[1] == e), lowest[2], lowest[1])
    rows = len(mask)
    place = (best * rows + np.arange(rows)[:, None]).ravel()
    sums = []
    for part in (lambda rival: rival - own, lambda rival: np.maximum(0, own - rival)):
        usual = np.where(mask, part(least), 0)
        # without x only those tokens change that x had won
        change = np.where(mask, part(second), 0) - usual
        lost = np.bincount(place, change.ravel(), experts * rows).reshape(experts, rows)
        sums.append(usual.sum(-1) + lost)
    return sums
