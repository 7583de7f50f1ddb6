"""Which expert rebuilds a text best, and is that good enough?  Paper, routing rule.

`tokens [B, L] -> nll [E, B, L] -> residual [E] -> compared [E] -> argmin`.  No gate is trained.
The scores are those of training: the same model and `objective.token_scores`, with a leading
expert axis.
Letters: E experts, B windows, L tokens per window.  Sees no files.
"""

import contextlib
import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cr_jax.bank import ExpertBank
from cr_jax.calibration import p_sums
from cr_jax.calls import (
    check_sizes,
    rebuilt_rows,
    residual_rows,
    rows_per_call,
    score_rows,
    selected,
    whole_number,
)
from cr_jax.comparison import compared, excess
from cr_jax.config import SEEN
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.routes import Route, WindowRoutes
from cr_jax.scoring import Scores, lowest, residual_means, residual_sums
from cr_jax.spool import Spool
from cr_jax.stopping import LOOK, LeaderTest, check_stop
from cr_jax.text_windows import windows_of_text

Text = str | os.PathLike | Iterable[str]


def score(bank: ExpertBank, text: Text | Windows, *, expert_chunk: int = 4, batch: int = 64,
          chunk: int = 8192) -> Float[np.ndarray, "E B L"]:
    """The residual in nats of every token by every expert: what `route` of the same text compares.

    NaN at padding and where the bank's rule scores none; `np.nanmean(score(bank, text), (1, 2))`
    are the route's residuals.  All of the text's scores stand in memory at once: `route` a large
    file instead.  `UserError` as in `route`, or when windows are not the bank's.
    """
    _check_bank(bank)
    check_sizes(expert_chunk=expert_chunk, batch=batch, chunk=chunk)
    if not isinstance(text, Windows):
        found = list(blocks(bank, text, batch))
        if not found:
            raise UserError("the text is empty: give at least one token to score")
        text = Windows(*(np.concatenate([getattr(block, field) for block in found])
                         for field in ("tokens", "mask", "document")))
    residual = score_stats(bank, text, expert_chunk=expert_chunk, batch=batch,
                           chunk=chunk).residual
    return np.where(text.mask[None], residual, np.nan)


def score_stats(bank: ExpertBank, windows: Windows, *, expert_chunk: int = 4, batch: int = 64,
                chunk: int = 8192) -> Scores:
    """nll, residual and whether it was rebuilt exactly (the terms of TRA) of every token.

    Padding carries numbers of no meaning.  `batch` windows at a time, all of one shape, so that
    one compilation serves.  `UserError` when the bank is empty or the windows are not the bank's.
    """
    _check_bank(bank)
    check_sizes(expert_chunk=expert_chunk, batch=batch, chunk=chunk)
    return score_rows(bank, windows, rows_per_call(len(windows.tokens), batch), expert_chunk,
                      chunk)


def route(bank: ExpertBank, text: Text | Windows, *, alpha: float = 0.05, head: int = 0,
          stop: float = 0.0, tra_of_all: bool = False, expert_chunk: int = 4, batch: int = 64,
          chunk: int = 8192, on_block: Callable[[Windows], Any] = lambda block: None) -> Route:
    """Sends one document to the expert with the lowest residual (paper, routing rule), or the
    lowest `compared` where the bank's rule has excess.

    text: a str is the text itself, a `pathlib.Path` a file; pieces of str, or windows.  Files and
    pieces may be of any size: memory is bounded.  Tokens are made of the bank's form of the text
    (`data.text_form`): how line ends and accents are written does not matter.  head: judge by the
    first so many windows and read no further; 0: by all.  stop: score no further once the winner is
    certain to so much (`cr_jax.stopping`; 0.99, say); the rest is only counted, and all else that
    the route says is of the windows scored.  tra_of_all: TRA by every expert, not by the nearest
    alone; only under the paper's rule, whose residual sees all tokens too, is it free, and then
    always there.
    on_block: called with each block of windows once all experts have scored it.  "Unknown"
    when even the winner's p-value is below `alpha` (Not in the paper: the paper says only that
    all residuals are then high); a text too short for a p-value is not judged (`Route.known`).
    `UserError` when the text is empty or the bank has no experts.
    """
    _check_bank(bank)
    check_alpha(alpha)
    check_sizes(expert_chunk=expert_chunk, batch=batch, chunk=chunk)
    check_stop(stop)
    batch = min(batch, LOOK) if stop else batch
    cut, tra_of_all = blocks(bank, text, batch, head), (
        tra_of_all or bank.scoring.residual_rule == SEEN)
    with contextlib.nullcontext(cut) if tra_of_all else Spool(cut) as document:
        return judge(bank, document, alpha=alpha, stop=stop, tra_of_all=tra_of_all,
                     expert_chunk=expert_chunk, batch=batch, chunk=chunk, on_block=on_block)


def judge(bank: ExpertBank, document: Iterable[Windows], *, alpha: float, stop: float,
          tra_of_all: bool, expert_chunk: int, batch: int, chunk: int,
          on_block: Callable[[Windows], Any]) -> Route:
    """`route` of a document's blocks, which must be a `Spool` unless `tra_of_all`."""
    totals, test, rows = Totals(bank), LeaderTest(len(bank.names), stop), None
    unread, read = iter(document), 0
    for block in unread:
        # The first block says how large blocks are: only the last can be smaller.
        rows = rows or rows_per_call(len(block.tokens), batch)
        correct = None
        if tra_of_all:
            scores = score_rows(bank, block, rows, expert_chunk, chunk)
            nats, counts = residual_sums(scores.residual, block.mask, bank.scoring)
            correct = (scores.correct & block.mask).sum(-1)
        else:
            nats, counts = residual_rows(bank.model, bank.weights, block, rows,
                                         scoring=bank.scoring, expert_chunk=expert_chunk,
                                         chunk=chunk)
        nats = totals.add(block, nats, counts, correct)
        read += 1
        on_block(block)
        if stop:
            test.add(nats[:, counts > 0])
            if test.certain():
                break
    found = totals.route(alpha)
    if stop:
        left = sum(int(block.mask.any(-1).sum()) for block in unread)
        found = dataclasses.replace(found, of_windows=found.windows + left)
    if tra_of_all:
        return found
    # The winner is known only now, so the text is read again, by one expert.
    one = selected(bank, np.array([bank.index(found.nearest)]))
    right = sum(int(rebuilt_rows(one.model, one.params, block, rows, chunk=chunk).sum())
                for block in itertools.islice(document, read))
    return dataclasses.replace(found, tra={found.nearest: right / found.tokens})


def route_all(bank: ExpertBank, windows: Windows, *, expert_chunk: int = 4, batch: int = 64,
              chunk: int = 8192) -> WindowRoutes:
    """Routes every window on its own; "unknown" is p_values[expert, window] < alpha.

    A p-value is NaN where a window is shorter than every calibrated length.  Where the bank's rule
    scores none of its tokens residuals are NaN too, and the expert is -1.
    """
    _check_bank(bank)
    check_sizes(expert_chunk=expert_chunk, batch=batch, chunk=chunk)
    residuals = residual_means(*residual_rows(
        bank.model, bank.weights, windows, rows_per_call(len(windows.tokens), batch),
        scoring=bank.scoring, expert_chunk=expert_chunk, chunk=chunk))
    lengths = windows.mask.sum(-1)
    return WindowRoutes(residuals, lowest(compared(bank, residuals, lengths)),
                        p_values(bank, residuals, lengths))


class Totals:
    """Running sums of one document; what `route` says does not depend on how it was cut."""

    def __init__(self, bank: ExpertBank):
        self.bank = bank
        experts = len(bank.names)
        self.residual, self.excess, self.correct = np.zeros(experts), np.zeros(experts), None
        self.windows = self.tokens = self.scored = 0
        self.p = [(0.0, 0, 0, 0)] * experts

    def add(self, windows: Windows, residual: Float[np.ndarray, "E B"],
            counts: Int[np.ndarray, " B"], correct: Int[np.ndarray, "E B"] | None = None
            ) -> Float[np.ndarray, "E B"]:
        """Adds a block of windows, scored by all experts of the bank.

        residual: nats over the `counts` scored tokens of each window; correct: its tokens that
        were rebuilt exactly, where that is known.  -> nats by which experts are compared: the
        residual, with its excess where the bank's rule has it.
        """
        lengths = windows.mask.sum(-1)
        self.residual += residual.sum(-1)
        self.scored += int(counts.sum())
        if correct is not None:
            self.correct = correct.sum(-1) + (0 if self.correct is None else self.correct)
        self.windows += int((lengths > 0).sum())
        self.tokens += int(lengths.sum())
        means = residual_means(residual, counts)
        p = p_values(self.bank, means, lengths)
        parts = [p_sums(row, lengths) for row in p]
        self.p = [(a + x, b + y, max(c, z), n + m)
                  for (a, b, c, n), (x, y, z, m) in zip(self.p, parts, strict=True)]
        if not self.bank.scoring.excess:
            return residual
        more = counts * excess(self.bank, means, lengths)
        self.excess += more.sum(-1)
        return residual + more

    def route(self, alpha: float) -> Route:
        """Where the sums say that the document goes; `tra` is empty where it was not counted."""
        if not self.tokens:
            raise UserError("the text is empty: give at least one token to route")
        if not self.scored:
            raise UserError("the text is too short: the bank's rule scores a sample of the "
                            f"positions and none of its {self.tokens}")
        residuals = self.residual / self.scored
        if not np.isfinite(residuals).any():
            raise UserError("no expert of the bank has a finite residual: its parameters are of no "
                            "use; train it again")
        added = self.excess / self.scored
        ranked_by = residuals + added if self.bank.scoring.excess else residuals
        ranked = np.argsort(ranked_by, kind="stable")
        margin = ranked_by[ranked[1]] - ranked_by[ranked[0]] if len(ranked) > 1 else math.inf
        by_name = lambda values: dict(zip(self.bank.names, map(float, values), strict=True))
        p_values = by_name(self.bank.calibration[name].document_p(*sums)
                           for name, sums in zip(self.bank.names, self.p, strict=True))
        nearest = self.bank.names[ranked[0]]
        return Route(
            # not >=: a text that cannot be judged (NaN) is not called unknown
            expert=None if p_values[nearest] < alpha else nearest, nearest=nearest,
            margin=float(margin), residuals=by_name(residuals),
            tra={} if self.correct is None else by_name(self.correct / self.tokens),
            p_values=p_values, windows=self.windows, tokens=self.tokens,
            excess=by_name(added) if self.bank.scoring.excess else {})


def blocks(bank: ExpertBank, text: Text | Windows, batch: int, head: int = 0
           ) -> Iterator[Windows]:
    """A document as blocks of `batch` windows, the last one smaller; `head` windows, 0: all."""
    if not whole_number(head) or head < 0:
        raise UserError(f"head={head!r} windows of a text: give 0 for all, or more")
    found = ((text.take(slice(i, i + batch)) for i in range(0, len(text), batch))
             if isinstance(text, Windows) else
             windows_of_text(bank.tokenizer, text, bank.model.window, batch, bank.text_form))
    left = head
    for block in found:
        if head and left <= len(block):
            yield block.take(slice(left))
            return
        left -= len(block)
        yield block


def p_values(bank: ExpertBank, residuals: Float[np.ndarray, "E B"],
             lengths: Int[np.ndarray, " B"]) -> Float[np.ndarray, "E B"]:
    """Conformal p-value of each window by each expert; NaN where there is no residual."""
    p = np.stack([bank.calibration[n].p_value(r, lengths)
                  for n, r in zip(bank.names, residuals, strict=True)])
    return np.where(np.isfinite(residuals), p, np.nan)


def check_alpha(alpha: float) -> None:
    """`UserError` unless it is a share."""
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha is a share and must lie in [0, 1], got {alpha}")


def _check_bank(bank: ExpertBank) -> None:
    if not bank.names:
        raise UserError("the bank has no experts: train or add one first")
