"""Routing among many experts at the cost of a few: their scouts say which score in full.

    windows -> scouts' residuals [E, B] -> the nearest -> the bank's residuals of these alone

A scout (`scoring.bigram`) is the smallest compressor of a domain, counted on the text that its
expert is trained on, so the choice is still made by compression: no gate is trained.  Where the
exact winner is among the kept, the answer is that of `router.route`.  How many are kept is up to
how far apart the scouts are (`cr_jax.routing.candidates`).  Not in the paper.
Letters: E experts, B windows.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cr_jax.bank import ExpertBank, cascade_file, check_scouts, selected
from cr_jax.bank.cascade_file import Choice
from cr_jax.bank.files import CASCADE
from cr_jax.config import SEEN
from cr_jax.data.spool import Spool
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.routing import candidates
from cr_jax.routing import route as router
from cr_jax.routing.candidates import column, kept, nearest
from cr_jax.routing.early_stop import LOOK, check_stop
from cr_jax.routing.result import Route, WindowRoutes
from cr_jax.routing.route import Text, Totals
from cr_jax.scoring import batching, bigram
from cr_jax.scoring.residuals import lowest, residual_means

AT_LEAST = 0.999  # agreement with exact routing that `choose_keep` asks for
# Experts that it keeps at least.  On validation text four would do; text that is less like it may
# want more, and two more experts cost less than a wrong answer.
KEEP = 6
TOKENS = 1 << 16  # that scouts read in one call


@dataclasses.dataclass(frozen=True, eq=False)
class Cascade:
    """A bank's scouts before its experts.  Scored in full, per window or document: the `keep`
    experts with the nearest scouts, and all others whose scout lies within `margin` nats/token of
    the nearest.

    head: windows of a document that the scouts read; 0: all of them.  choice: what the rest
    comes from, where it was measured.  offsets: expert -> nats/token that are taken off its scout's
    residual before scouts are compared; None: nothing.  `UserError` unless every expert has a
    scout, keep lies in [1, E], the margin is finite and not negative, and offsets are so too, one
    for each expert.
    """

    bank: ExpertBank
    keep: int
    head: int = 0
    choice: Choice | None = None
    margin: float = 0.0
    offsets: Mapping[str, float] | None = None

    def __post_init__(self):
        self._check()

    def _check(self) -> None:
        """Also before routing: experts may have come to the bank, or left it, since."""
        names = self.bank.names
        _check_scouts(self.bank)
        if not 1 <= self.keep <= len(names):
            raise UserError(f"keep={self.keep} experts: must lie in [1, {len(names)}], the number "
                            "of experts")
        if self.head < 0:
            raise UserError(f"head={self.head} windows of a document: give 0 for all, or more")
        if not 0 <= self.margin < math.inf:
            raise UserError(f"margin={self.margin} nats/token above the nearest scout: must be "
                            "finite and not negative")
        if self.offsets is not None:
            if set(self.offsets) != set(names):
                odd = ", ".join(sorted(set(self.offsets) ^ set(names)))
                raise UserError("offsets must be those of the bank's experts, one for each: see "
                                f"{odd}")
            bad = [f"{n}={x}" for n, x in self.offsets.items() if not 0 <= x < math.inf]
            if bad:
                raise UserError("offsets, in nats/token, must be finite and not negative, got "
                                f"{', '.join(bad)}")

    @classmethod
    def choose(cls, bank: ExpertBank, windows: Mapping[str, Windows], *,
               at_least: float = AT_LEAST, head: int = 0, **options) -> "Cascade":
        """A cascade that keeps as few experts as `choose_keep` allows; options as there."""
        return cls._chosen(bank, choose_keep(bank, windows, at_least=at_least, **options), head)

    @classmethod
    def load(cls, folder: str | os.PathLike, keep: int | None = None) -> "Cascade":
        """Reads a bank and, unless `keep` is given, what `save` wrote.

        keep: so many, exactly, with the offsets and the head that were saved if any were.
        `UserError` when the bank is damaged, nothing was saved, or its experts have changed since:
        then the choice says nothing about them.
        """
        bank = ExpertBank.load(folder)
        _check_scouts(bank)
        if keep is not None:
            with contextlib.suppress(UserError):  # nothing was saved, or for other experts
                choice, head = cascade_file.read(bank.folder)
                return cls(bank, keep, head, offsets=choice.offsets)
            return cls(bank, keep)
        if len(bank.names) <= KEEP and not (bank.folder / CASCADE).exists():
            raise UserError(f"{folder} has {len(bank.names)} experts, no more than a cascade "
                            "keeps: route without it, or give --keep")
        return cls._chosen(bank, *cascade_file.read(bank.folder))

    @classmethod
    def _chosen(cls, bank, choice, head):
        return cls(bank, choice.keep, head, choice, choice.margin, choice.offsets)

    def save(self) -> None:
        """Writes the choice into the bank's folder, sealed with the SHA-256 of its experts.

        `UserError` when the bank lives in memory only or is a part of what is stored, or nothing
        was measured.
        """
        if self.choice is None:
            raise UserError("how many experts this cascade keeps was not measured: make it with "
                            "Cascade.choose")
        cascade_file.write(self.bank.folder, self.choice, self.head, self.bank.names,
                             self.bank.scoring.excess)

    def route(self, text: Text | Windows, *, alpha: float = 0.05, head: int = 0,
              stop: float = 0.0, tra_of_all: bool = False, expert_chunk: int = 4,
              batch: int = 64, chunk: int = 8192,
              on_block: Callable[[Windows], Any] = lambda block: None) -> Route:
        """`router.route` among the experts whose scouts are nearest to the document.

        Scouts read the text once (its first `head` windows), then the kept experts read all of
        it; in between its tokens lie in memory or, if they are many, in a temporary file.  The
        Route's `scouts` holds every scout's nats/token, offsets not taken off, its other fields
        the kept experts' only.  Those that the margin adds are filled up by the next nearest to a
        multiple of `expert_chunk`: documents then share few programs.
        head: windows of the text that are read at all, 0: all; the scouts still read no more than
        their own.  stop, tra_of_all: as in `router.route`, of the kept experts; scouts do not stop.
        on_block: called with each block once the kept experts have scored it.
        `UserError` as in `router.route`.
        """
        self._check()
        router.check_alpha(alpha)
        batching.check_sizes(expert_chunk=expert_chunk, batch=batch, chunk=chunk)
        check_stop(stop)
        batch = min(batch, LOOK) if stop else batch
        nats, tokens, seen = np.zeros(len(self.bank.names)), 0, 0
        with Spool(router.blocks(self.bank, text, batch, head)) as spool:
            for block in spool:
                part = block.take(slice(max(0, self.head - seen) if self.head else None))
                seen += len(block.tokens)
                if len(part.tokens):
                    nats = nats + scout_sums(self.bank.scout_table, part, batch).sum(-1)
                    tokens += int(part.mask.sum())
            if not tokens:
                return Totals(self.bank).route(alpha)  # the error for a text without tokens
            residuals = nats / tokens
            kept = self._kept_of_a_document(residuals, expert_chunk)
            found = router.judge(
                selected(self.bank, kept), spool, alpha=alpha, stop=stop,
                tra_of_all=tra_of_all or self.bank.scoring.residual_rule == SEEN,
                expert_chunk=expert_chunk, batch=batch, chunk=chunk, on_block=on_block)
        by_scout = dict(zip(self.bank.names, map(float, residuals), strict=True))
        return dataclasses.replace(found, scouts=by_scout)

    def _kept_of_a_document(self, residuals, expert_chunk):
        near = self._near(residuals[:, None])
        more = int(kept(near, self.keep, self.margin).sum()) - self.keep
        count = self.keep + -(-more // expert_chunk) * expert_chunk
        # In the bank's order: ties are then broken as in exact routing.
        return np.sort(nearest(near, count)[:, 0])

    def _near(self, residuals):
        return residuals - column(self.offsets, self.bank.names)

    def route_all(self, windows: Windows, *, expert_chunk: int = 4, batch: int = 64,
                  chunk: int = 8192) -> WindowRoutes:
        """Routes every window on its own, by the experts that its scouts keep.

        Residuals are infinite, and p-values NaN, for experts that did not score a window; the
        expert is -1 where the bank's rule scores none of its tokens.
        """
        options = {"expert_chunk": expert_chunk, "batch": batch, "chunk": chunk}
        batching.check_sizes(**options)
        self._check()
        near = self._near(scout_residuals(self.bank.scout_table, windows, batch))
        chosen = kept(near, self.keep, self.margin)
        lengths = windows.mask.sum(-1)
        residuals = np.full((len(self.bank.names), len(windows.tokens)), np.inf)
        begun = []
        for e in np.flatnonzero(chosen.any(1)):
            at = np.flatnonzero(chosen[e])
            part = selected(self.bank, np.array([e]))
            for here, rows in full_calls(at, batch):
                begun.append((e, here, batching.residual_rows_begun(
                    part.model, part.weights, windows.take(here), rows, scoring=part.scoring,
                    chunk=chunk)))
        for e, here, read in begun:
            residuals[e, here] = residual_means(*read())[0]
        return WindowRoutes(residuals, lowest(router.compared(self.bank, residuals, lengths)),
                            router.p_values(self.bank, residuals, lengths))


def choose_keep(bank: ExpertBank, windows: Mapping[str, Windows], *,
                at_least: float = AT_LEAST, keep: int = KEEP, expert_chunk: int = 4,
                batch: int = 64, chunk: int = 8192) -> Choice:
    """`keep` experts at least, and as many more as an agreement of `at_least` with exact routing
    takes: the least margin that will do, with offsets where these make them fewer
    (`shortlist.choose`).

    windows: per expert, of its own validation split, which no expert was trained on.  Agreement is
    a mean over the experts' windows, then over the experts.  n windows without a miss say, at 95 %
    confidence, no more than that fewer than 3 / n are missed: give thousands.  keep: of a bank
    with fewer experts, all.  `UserError` when an expert has no scout or fewer than two windows, or
    `at_least` is no share.
    """
    _check_scouts(bank)
    if not 0 <= at_least <= 1:
        raise UserError(f"at_least is a share and must lie in [0, 1], got {at_least}")
    missing = [n for n in bank.names if not len(windows.get(n, ()))]
    if missing:
        raise UserError("choosing how many experts to keep needs validation windows of each: none "
                        f"for {', '.join(missing)}")
    options = {"expert_chunk": expert_chunk, "batch": batch, "chunk": chunk}
    batching.check_sizes(keep=keep, **options)
    exact = lambda w: router.compared(bank, router.route_all(bank, w, **options).residuals,
                                      w.mask.sum(-1))
    near = lambda w: scout_residuals(bank.scout_table, w, batch)
    return candidates.choose({n: near(windows[n]) for n in bank.names},
                            {n: exact(windows[n]) for n in bank.names}, bank.names,
                            min(keep, len(bank.names)), at_least)


def scout_residuals(table: bigram.Table, windows: Windows, batch: int = 64
                    ) -> Float[np.ndarray, "E B"]:
    """nats/token of each window by every scout; NaN for a window without tokens."""
    return residual_means(scout_sums(table, windows, batch), windows.mask.sum(-1))


def scout_sums(table: bigram.Table, windows: Windows, batch: int = 64
               ) -> Float[np.ndarray, "E B"]:
    """nats of each window by every scout, `batch` windows at a time."""
    rows = batching.rows_per_call(len(windows), scout_rows(windows.tokens.shape[1], batch))
    found = [np.zeros((len(table.alone), 0))]
    for part, tokens, mask in batching.filled(windows, rows):
        nats = bigram.residuals(table, tokens, mask, bigram.side_by_side())
        found.append(nats[:, :part.stop - part.start])
    # Read once all calls are on their way.
    return np.concatenate([np.asarray(x, np.float64) for x in found], 1)


def scout_rows(window: int, batch: int) -> int:
    """The most windows, of `window` tokens, that scouts read in one call."""
    # A table is read from afar: three times faster for 1,024 windows of 64 tokens than for 64.
    return max(batch, TOKENS // window)


def full_calls(at: Int[np.ndarray, " n"], batch: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cuts places into calls (places, rows): rows is `batch` or a power of four below it.

    A call is at least three quarters full, so that a pair of window and expert costs at most a
    third more than alone, and few shapes are compiled.
    """
    shapes = sorted({batching.rows_per_call(n, batch) for n in range(1, batch + 1)})
    while at.size:
        held = next((s for s in shapes if s >= at.size), shapes[-1])
        rows = held if at.size >= 0.75 * held else max(s for s in shapes if s <= at.size)
        yield at[:rows], rows
        at = at[rows:]


def _check_scouts(bank: ExpertBank) -> None:
    if not bank.names:
        raise UserError("the bank has no experts: train or add one first")
    check_scouts(bank)
