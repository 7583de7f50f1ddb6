"""One document: its blocks of windows, and the running sums that its route follows from.

Letters: E experts, B windows.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from cr_jax.bank import ExpertBank, selected
from cr_jax.config import SEEN
from cr_jax.data.spool import Spool
from cr_jax.data.text_stream import windows_of_text
from cr_jax.data.windows import Tail, Windows, windows_of
from cr_jax.errors import UserError
from cr_jax.routing.content import Content
from cr_jax.routing.early_stop import LOOK, LeaderTest
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.ranking import one_sided_p_values, typicality_penalty
from cr_jax.routing.result import SURPRISING, TOO_HIGH, TOO_LOW, TOO_NEAR, Route
from cr_jax.scoring.batching import BatchSizes, check_bank
from cr_jax.scoring.calibration import p_sums, two_sided
from cr_jax.scoring.own_documents import SURPRISE_FROM, Witnesses, margins_of
from cr_jax.scoring.residuals import WindowSums, residual_means

Text = str | os.PathLike | Iterable[str]  # a str is the text itself, a path a file
Score = Callable[..., WindowSums]  # `cr_jax.router.score_bank`, which imports this module
READ = 1024  # windows of a text that is read as a whole


def block_sizes(options: RouteOptions, sizes: BatchSizes) -> BatchSizes:
    """`sizes` whose `windows` is that of a document's blocks: fewer where each block is a look."""
    return dataclasses.replace(sizes, windows=min(sizes.windows, LOOK)) if options.stop else sizes


def scored_blocks(
    bank: ExpertBank, text: Text | Windows, options: RouteOptions, size: int
) -> Iterator[Windows]:
    """The `blocks` of what the options let be read: all, the beginning, or the end."""
    found = blocks(bank, text, size, options.max_windows)
    return last_blocks(bank, found, options.last_tokens, size) if options.last_tokens else found


def last_blocks(
    bank: ExpertBank, blocks: Iterable[Windows], count: int, size: int
) -> Iterator[Windows]:
    """The last `count` tokens of a document in windows that begin with them; of a shorter one all
    of its tokens."""
    tail = Tail(count)
    for block in blocks:
        tail.add(block)
    if tail.count:
        cut = windows_of(tail.ids, bank.model.window, bank.tokenizer.pad_id)
        for i in range(0, len(cut), size):
            yield cut.take(slice(i, i + size))


def blocks(
    bank: ExpertBank, text: Text | Windows, size: int, max_windows: int = 0
) -> Iterator[Windows]:
    """A document as blocks of `size` windows, the last one smaller; max_windows 0: all of it.

    `UserError` for a list, which may be meant as many texts.
    """
    check_one(text)
    found = (
        (text.take(slice(i, i + size)) for i in range(0, len(text), size))
        if isinstance(text, Windows)
        else windows_of_text(bank.tokenizer, text, bank.model.window, size, bank.text_form)
    )
    left = max_windows
    for block in found:
        if max_windows and left <= len(block):
            yield block.take(slice(left))
            return
        left -= len(block)
        yield block


def check_one(text: Any) -> None:
    """`UserError` for a list or tuple, at once: it would be read as pieces of one text."""
    if isinstance(text, list | tuple) and not isinstance(text, Windows):
        raise UserError(
            "a list is many texts: give it to cr_jax.route_many; one text in pieces is a generator"
        )


def opened(bank: ExpertBank, text: Text | Windows, options: RouteOptions, sizes: BatchSizes):
    """Context manager of a document's blocks, which can be read twice where TRA is measured."""
    check_bank(bank)
    check_one(text)
    cut = scored_blocks(bank, text, options, block_sizes(options, sizes).windows)
    return contextlib.nullcontext(cut) if options.tra == "none" else Spool(cut)


def whole(bank: ExpertBank, text: Text | Windows) -> Windows:
    """All windows of a text at once.  `UserError` when it is empty."""
    check_bank(bank)
    check_one(text)
    if isinstance(text, Windows):
        return text
    found = list(windows_of_text(bank.tokenizer, text, bank.model.window, READ, bank.text_form))
    if not found:
        raise UserError("the text is empty: give at least one token to score")
    return Windows(
        *(
            np.concatenate([getattr(block, field) for block in found])
            for field in ("tokens", "mask", "document")
        )
    )


def judge(
    bank: ExpertBank,
    blocks: Iterable[Windows],
    options: RouteOptions,
    score: Score,
    sizes: BatchSizes,
    on_block: Callable[[Windows], Any] | None = None,
) -> Route:
    """Where a document goes.  blocks: its windows, which can be read twice if TRA is measured;
    score: `router.score_bank`; on_block: called with each block
    once it is scored.  `UserError` when the document is empty.
    """
    sizes, surprise = block_sizes(options, sizes), counts_surprise(bank)
    totals, unread, rows, read = Totals(bank, options), iter(blocks), 0, 0
    for block in unread:
        # The first block says how large blocks are: only the last can be smaller.
        rows = rows or sizes.rows(len(block.tokens))
        totals.add(block, score(bank, block, sizes, rows=rows, surprise=surprise))
        read += 1
        if on_block:
            on_block(block)
        if totals.certain():
            break
    found = totals.route()
    if options.stop:
        rest = blocks.rest(read) if isinstance(blocks, Spool) else unread
        left = sum(int(block.mask.any(-1).sum()) for block in rest)  # counted, not kept
        found = dataclasses.replace(found, of_windows=found.windows + left)
    if options.tra == "none":
        return found
    names = bank.names if options.tra == "all" else (found.nearest,)
    again = itertools.islice(blocks, read)
    return dataclasses.replace(
        found, tra=tra(bank, names, again, functools.partial(score, sizes=sizes, rows=rows))
    )


def counts_surprise(bank: ExpertBank) -> bool:
    """Whether a document's verdict weighs its surprise: own documents say how large it may be."""
    own = (e.own_documents for e in bank.experts)
    return any(o is not None and bool(o.surprises) for o in own)


def tra(
    bank: ExpertBank, names: Iterable[str], blocks: Iterable[Windows], score: Score
) -> dict[str, float]:
    """Share of a text's tokens that each of these experts rebuilds exactly, all tokens seen (paper,
    section 1).  Arguments as in `judge`."""
    names = tuple(names)
    some = selected(bank, np.array([bank.index(name) for name in names]))
    right, tokens = np.zeros(len(names)), 0
    for block in blocks:
        right += score(some, block, rule=SEEN).exact.sum(-1)
        tokens += int(block.mask.sum())
    return dict(zip(names, map(float, right / tokens), strict=True))


def route_of(bank: ExpertBank, windows: Windows, sums: WindowSums, options: RouteOptions) -> Route:
    """Where a document goes whose windows are scored already, without TRA.  sums: of each window
    by every expert of the bank, with surprises where the bank's verdicts weigh them
    (`counts_surprise`), otherwise a `ValueError`.  `UserError` when the document is empty."""
    if sums.surprise is None and counts_surprise(bank):
        raise ValueError("this bank weighs surprises: score its documents with surprise=True")
    totals = Totals(bank, options)
    totals.add(windows, sums)
    return totals.route()


class Totals:
    """Running sums of one document; what `route` says does not depend on how it was cut."""

    def __init__(self, bank: ExpertBank, options: RouteOptions):
        self.bank, self.options = bank, options
        experts = len(bank.names)
        self.residual, self.penalty = np.zeros(experts), np.zeros(experts)
        self.surprise = np.zeros(experts)
        self.windows = self.tokens = 0
        self.p = [(0.0, 0, 0, 0, 0.0)] * experts  # of `Calibration.document_p`
        self.content = Content(bank.tokenizer)
        self.test = LeaderTest(experts, options.stop) if options.stop else None

    def add(self, windows: Windows, sums: WindowSums) -> None:
        """Adds a block of windows, scored by all experts of the bank."""
        lengths, nats = windows.mask.sum(-1), np.asarray(sums.residual, np.float64)
        self.residual += nats.sum(-1)
        self.surprise += np.nan if sums.surprise is None else np.sum(sums.surprise, -1, np.float64)
        self.windows += int((lengths > 0).sum())
        self.tokens += int(lengths.sum())
        means = residual_means(nats, lengths)
        parts = [
            (*p_sums(high, lengths), p_sums(low, lengths)[0])
            for high, low in zip(*one_sided_p_values(self.bank, means, lengths), strict=True)
        ]
        self.p = [
            (a + x, b + y, max(c, z), n + m, d + w)
            for (a, b, c, n, d), (x, y, z, m, w) in zip(self.p, parts, strict=True)
        ]
        self.content.add(windows)
        if self.bank.scoring.typicality_weight:
            penalty = lengths * typicality_penalty(self.bank, means, lengths)
            self.penalty += penalty.sum(-1)
            nats = nats + penalty
        if self.test:
            self.test.add(nats[:, lengths > 0])

    def certain(self) -> bool:
        """Whether no more needs to be scored; looks once more (`LeaderTest.certain`)."""
        return self.test is not None and self.test.certain()

    def route(self) -> Route:
        """Where the sums say that the document goes, without TRA."""
        if not self.tokens:
            raise UserError("the text is empty: give at least one token to route")
        residuals = self.residual / self.tokens
        if not np.isfinite(residuals).any():
            raise UserError(
                "no expert of the bank has a finite residual: its parameters are of no "
                "use; train it again"
            )
        penalty = self.penalty / self.tokens
        weight = self.bank.scoring.typicality_weight
        score = residuals + penalty if weight else residuals
        ranked = np.argsort(score, kind="stable")
        numbers = (residuals, margins_of(residuals, self.bank.rivals), self.surprise / self.tokens)
        documents = [Witnesses(*map(float, row)) for row in zip(*numbers, strict=True)]
        sides = [self._sides(e, document) for e, document in enumerate(documents)]
        p = self._by_name([two_sided(high, low) for _, high, low in sides])
        first = int(ranked[0])
        nearest, witnesses = self.bank.names[first], self._each(first, documents[first])
        reason = self._reason(p[nearest], sides[first], witnesses)
        return Route(
            expert=None if reason else nearest,
            nearest=nearest,
            reason=reason,
            margin=float(score[ranked[1]] - score[ranked[0]]) if len(ranked) > 1 else math.inf,
            residuals=self._by_name(residuals),
            p_values=p,
            windows=self.windows,
            tokens=self.tokens,
            typicality_penalty=self._by_name(penalty) if weight else {},
            witnesses={k: x for k, x in witnesses._asdict().items() if math.isfinite(x)},
        )

    def _sides(self, expert: int, document: Witnesses) -> tuple[float, float, float | None]:
        """One-sided p-values of the document by one expert: of its residual alone, too high; of its
        witnesses together, where own documents were measured; of its residual, too low."""
        name, own = self.bank.names[expert], self.bank.experts[expert].own_documents
        alone, low = self.bank.calibration[name].document_sides(*self.p[expert])
        if own is None:
            return alone, alone, low
        together = own.high_p(document, self.tokens // self.bank.model.window, alone)
        return alone, alone if math.isnan(together) else together, low

    def _each(self, expert: int, document: Witnesses) -> Witnesses:
        """The one-sided p-value of every witness by one expert; NaN where there is none."""
        own = self.bank.experts[expert].own_documents
        if own is None:
            return Witnesses(math.nan, math.nan)
        return own.each_p(document, self.tokens // self.bank.model.window)

    def _reason(
        self, p: float, sides: tuple[float, float, float | None], witnesses: Witnesses
    ) -> str:
        """`Route.reason` by the sides and the witnesses of the nearest expert."""
        alpha = self.options.alpha
        if not alpha or math.isnan(p):  # a text too short to judge is not unknown
            return ""
        if self.content.lacking or p >= alpha:
            return self.content.lacking
        alone, together, _ = sides
        if two_sided(alone, 1.0) < alpha:
            return TOO_HIGH
        if two_sided(together, 1.0) >= alpha:
            return TOO_LOW
        joined = self.tokens // self.bank.model.window >= SURPRISE_FROM  # `OwnDocuments.high_p`
        return SURPRISING if joined and witnesses.surprise < witnesses.margin else TOO_NEAR

    def _by_name(self, values) -> dict[str, float]:
        return dict(zip(self.bank.names, map(float, values), strict=True))
