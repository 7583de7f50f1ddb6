"""A text cut where its domain changes: spans of tokens, each of one expert or unknown.

    text -> windows -> nats of each token by each expert -> spans.spans -> each span judged alone

A fixed window that mixes two domains belongs to neither (the limit that the paper names).  Here
every expert's cost of every token is kept, a switch between experts has a price, and the cheapest
path says where the switches are.  Where a span begins to cost its expert more than 95 % of its own
text does, it is cut once more, by the same path between the expert and that limit: unknown text
that follows known text has no other expert to switch to.  Then each span is encoded anew, from its
own first token, by its own expert, which knows it or does not.  Not in the paper.
Letters: E experts, T tokens.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float, Int, Int32

from cr_jax.bank import ExpertBank, selected
from cr_jax.data.windows import Windows, windows_of
from cr_jax.errors import UserError
from cr_jax.router import score_bank, score_tokens
from cr_jax.routing import spans as paths
from cr_jax.routing.document import Text, Totals, blocks, counts_surprise
from cr_jax.routing.options import RouteOptions, SegmentOptions
from cr_jax.routing.result import Route
from cr_jax.scoring.batching import BatchSizes, check_bank
from cr_jax.scoring.bigram import bigram_nats

# Called with tokens as they are settled, in order, and their nats by the expert of their span.
OnTokens = Callable[[Int32[np.ndarray, " T"], Float[np.ndarray, " T"]], None]


@dataclasses.dataclass(frozen=True)
class Segment:
    """One span of a text.

    start, end: its tokens; characters, lines: the same, ends left out (lines from 1), in the form
    of the text that the bank reads.  route: of the span alone, by its own expert: `expert` is None
    where that does not know it.  margin: nats/token to the expert that is next best on the span.
    saved: nats that the switch before it saves, of the tokens that were in memory; None before the
    first.
    """

    start: int
    end: int
    characters: tuple[int, int]
    lines: tuple[int, int]
    route: Route
    margin: float
    saved: float | None

    @property
    def expert(self) -> str | None:
        """None: unknown."""
        return self.route.expert

    @property
    def nearest(self) -> str:
        return self.route.nearest


def segment(
    bank: ExpertBank,
    text: Text,
    options: SegmentOptions | None = None,
    sizes: BatchSizes | None = None,
) -> list[Segment]:
    """All spans of a text, which they cover.  Text and errors as in `router.route`."""
    return list(segments(bank, text, options, sizes))


def segments(
    bank: ExpertBank,
    text: Text,
    options: SegmentOptions | None = None,
    sizes: BatchSizes | None = None,
    on_tokens: OnTokens | None = None,
) -> Iterator[Segment]:
    """The spans of a text of any length one by one, in bounded memory.

    A span comes once it has ended and `options.delay` more tokens were read; on_tokens has had its
    tokens by then, and may have had later ones.
    """
    options, sizes = options or SegmentOptions(), sizes or BatchSizes.for_device()
    check_bank(bank)
    work = _Cutter(bank, options, sizes, on_tokens)
    # A block is long beside the delay, so that little is decoded twice.
    rows = -(-4 * options.delay // bank.model.window)
    for block in blocks(bank, text, rows):
        yield from work.read(block)
    yield from work.rest()
    if not work.place.tokens:
        raise UserError("the text is empty: give at least one token to segment")


def token_costs(
    bank: ExpertBank, block: Windows, options: SegmentOptions, sizes: BatchSizes
) -> Float[np.ndarray, "E T"]:
    """nats of each real token of consecutive windows by each expert.

    With `options.reset` the windows near a switch are scored again from half a window later on.
    """
    window, ids = bank.model.window, block.tokens[block.mask]
    if options.evidence == "bigrams":
        flat = windows_of(ids, window, bank.tokenizer.pad_id)
        return bigram_nats(bank.bigram_table, flat.tokens)[:, flat.mask]
    cost = _nats(bank, windows_of(ids, window, bank.tokenizer.pad_id), sizes)
    half = window // 2
    if not options.reset or len(ids) <= half:
        return cost
    later = windows_of(ids[half:], window, bank.tokenizer.pad_id)
    middles = window * np.arange(1, len(later) + 1)
    near = np.abs(middles[:, None] - _edges(bank, cost, options)[None]) <= window
    again = np.flatnonzero(near.any(1))
    if len(again):
        at = half + np.arange(later.mask.size).reshape(later.mask.shape)[again]
        at = at[later.mask[again]]
        cost[:, at] = np.minimum(cost[:, at], _nats(bank, later.take(again), sizes))
    return cost


def _edges(
    bank: ExpertBank, cost: Float[np.ndarray, "E T"], options: SegmentOptions
) -> Int[np.ndarray, " _"]:
    """Places of tokens near which the text may go over to another domain, known or not."""
    # Half the cost of a switch: what may become one when its windows are read again.
    switch = np.full((len(cost),) * 2, options.switch / 2, np.float32)
    found = paths.spans(cost, switch, options.minimum)
    who = np.repeat([span.expert for span in found], [span.end - span.start for span in found])
    over = cost[who, np.arange(len(who))] - _limits(bank)[who]
    starts = np.arange(0, len(who), bank.model.window)
    known = np.add.reduceat(over, starts) < 0
    turns = starts[1:][known[1:] != known[:-1]]
    return np.concatenate([[span.start for span in found[1:]], turns]).astype(int)


def _limits(bank: ExpertBank) -> Float[np.ndarray, " E"]:
    """nats/token of a window above which each expert does not know it."""
    window = np.array([bank.model.window])
    return np.array([float(bank.calibration[n].limit(window)[0]) for n in bank.names])


def _nats(bank, windows, sizes):
    return score_tokens(bank, windows, sizes, seen=False).residual[:, windows.mask]


@dataclasses.dataclass
class _Place:
    """How far a text was read, in tokens, characters and lines."""

    tokens: int = 0
    characters: int = 0
    line: int = 1
    ended: bool = False  # the line before: a line feed was the last character

    def after(self, tokenizer, ids) -> "_Place":
        data = tokenizer.to_bytes(ids)
        # Of a character that is cut, its first byte counts.
        starts = sum((byte & 0xC0) != 0x80 for byte in data)
        return _Place(
            self.tokens + len(ids),
            self.characters + starts,
            self.line + data.count(b"\n"),
            data.endswith(b"\n"),
        )


class _Cutter:
    """Reads blocks of a text and gives its spans as they are settled."""

    def __init__(self, bank, options, sizes, on_tokens):
        self.bank, self.options, self.sizes = bank, options, sizes
        self.on_tokens = on_tokens
        self.ids = np.zeros(0, np.int32)  # not settled yet
        self.cost = np.zeros((len(bank.names), 0), np.float32)
        self.switch = np.full((len(bank.names),) * 2, options.switch, np.float32)
        self.limits = _limits(bank)
        self.place, self.open = _Place(), None

    def read(self, block: Windows) -> Iterator[Segment]:
        cost = token_costs(self.bank, block, self.options, self.sizes)
        self.ids = np.concatenate([self.ids, block.tokens[block.mask]])
        self.cost = np.concatenate([self.cost, cost], axis=1)
        if len(self.ids) > 2 * self.options.delay:
            yield from self._settle(len(self.ids) - self.options.delay)

    def rest(self) -> Iterator[Segment]:
        yield from self._settle(len(self.ids))
        if self.open:
            yield self.open.closed(self.place)
            self.open = None

    def _settle(self, upto: int) -> Iterator[Segment]:
        """Gives the spans that end before token `upto`; the one beyond it stays open."""
        for (start, end, expert), above, gain in self._cut():
            if start >= upto:
                break
            end = min(end, upto)
            if self.open is None or (self.open.expert, self.open.above) != (expert, above):
                if self.open:
                    yield self.open.closed(self.place)
                self.open = _Open(self, (expert, above), self.place, gain)
            self.open.add(self.ids[start:end], self.cost[:, start:end])
            if self.on_tokens:
                self.on_tokens(self.ids[start:end], self.cost[expert, start:end])
            self.place = self.place.after(self.bank.tokenizer, self.ids[start:end])
        self.ids, self.cost = self.ids[upto:], self.cost[:, upto:]

    def _cut(self) -> Iterator[tuple[paths.Span, bool, float | None]]:
        """(span, whether it costs more than its expert's limit, what its switch saves)."""
        before = self.open.expert if self.open else None
        found = paths.spans(self.cost, self.switch, self.options.minimum, before)
        gains = [None, *paths.saved(self.cost, self.switch, found)][: len(found)]
        for span, gain in zip(found, gains, strict=True):
            if self.options.evidence == "bigrams":  # limits are of the experts' residuals
                yield span, False, gain
                continue
            own = self.cost[span.expert, span.start : span.end]
            cost = np.stack([own, np.full(len(own), self.limits[span.expert], own.dtype)])
            goes_on = not span.start and before == span.expert
            switch = self.switch[0, 0] * np.ones((2, 2), np.float32)
            parts = paths.spans(
                cost, switch, self.options.minimum, int(self.open.above) if goes_on else None
            )
            for part, more in zip(parts, [gain, *paths.saved(cost, switch, parts)], strict=True):
                start, end = span.start + part.start, span.start + part.end
                yield paths.Span(start, end, span.expert), bool(part.expert), more


class _Open:
    """A span that may go on: what its own expert makes of it so far."""

    def __init__(
        self, cutter: _Cutter, whose: tuple[int, bool], begin: _Place, saved: float | None
    ):
        self.cutter, self.begin, self.saved = cutter, begin, saved
        self.expert, self.above = whose
        self.own = selected(cutter.bank, np.array([self.expert]))
        self.totals = Totals(self.own, RouteOptions(alpha=cutter.options.alpha))
        self.waiting = np.zeros(0, np.int32)
        self.nats = np.zeros(len(cutter.bank.names))
        self.leading = 0  # line feeds that it begins with, of lines before its own

    def add(self, ids: Int32[np.ndarray, " T"], cost: Float[np.ndarray, "E T"]) -> None:
        if not self.nats.any():
            data = self.own.tokenizer.to_bytes(ids[:16])
            self.leading = len(data) - len(data.lstrip(b"\n"))
        self.nats += cost.sum(1, dtype=np.float64)
        self.waiting = np.concatenate([self.waiting, ids])
        size = self.cutter.sizes.windows * self.own.model.window
        while len(self.waiting) >= size:
            self._judge(self.waiting[:size])
            self.waiting = self.waiting[size:]

    def _judge(self, ids):
        windows = windows_of(ids, self.own.model.window, self.own.tokenizer.pad_id)
        rows = self.cutter.sizes.rows(len(windows))
        surprise = counts_surprise(self.own)
        sums = score_bank(self.own, windows, self.cutter.sizes, rows=rows, surprise=surprise)
        self.totals.add(windows, sums)

    def closed(self, end: _Place) -> Segment:
        if len(self.waiting):
            self._judge(self.waiting)
        begin, tokens = self.begin, end.tokens - self.begin.tokens
        rest = np.delete(self.nats, self.expert)
        margin = (rest.min() - self.nats[self.expert]) / tokens if len(rest) else math.inf
        return Segment(
            begin.tokens,
            end.tokens,
            (begin.characters, end.characters),
            (min(begin.line + self.leading, end.line), end.line + (not end.ended)),
            self.totals.route(),
            float(margin),
            self.saved,
        )


def experts_of(found: Iterable[Segment]) -> list[str]:
    """The nearest expert of each token."""
    return [s.nearest for s in found for _ in range(s.end - s.start)]
