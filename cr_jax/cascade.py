"""Routing among many experts at the cost of a few: tiny scouts say which experts score in full.

    windows -> scouts' residuals [E, B] -> the nearest -> the bank's residuals of these alone

A scout is a compressor of its own domain, trained alone like the expert whose name it bears, but
much smaller; its rule may score a sample of the positions (`config.Scoring.passes`) and its window
may be a part of the experts'.  The choice is still made by compression: no gate is trained.  Where
the exact winner is among the kept, the answer is that of `router.route`.  How many are kept is up
to how far apart the scouts are (`cr_jax.shortlist`).  Not in the paper.
Letters: E experts, B windows.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cr_jax import calls, cascade_record, router, shortlist
from cr_jax.bank import ExpertBank
from cr_jax.calibration import SHORTEST
from cr_jax.cascade_record import Choice
from cr_jax.config import SEEN
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.router import Text, Totals
from cr_jax.routes import Route, WindowRoutes
from cr_jax.scoring import lowest, residual_means
from cr_jax.shortlist import column, kept, nearest
from cr_jax.spool import Spool
from cr_jax.stopping import LOOK, check_stop

AT_LEAST = 0.999  # agreement with exact routing that `choose_keep` asks for
KEEP = 4  # experts that it keeps at least


@dataclasses.dataclass(frozen=True, eq=False)
class Cascade:
    """Scouts before a bank.  Scored in full, per window or document: the `keep` experts with the
    nearest scouts, and all others whose scout lies within `margin` nats/token of the nearest.

    head: windows of a document that the scouts read; 0: all of them.  choice: what the rest
    comes from, where it was measured.  offsets: expert -> nats/token that are taken off its scout's
    residual before scouts are compared; None: nothing.  `UserError` unless scouts and bank have
    the same experts and tokenizer, the scouts' window divides the bank's, keep lies in [1, E],
    the margin is finite and not negative, and offsets are so too, one for each expert.
    """

    scouts: ExpertBank
    bank: ExpertBank
    keep: int
    head: int = 0
    choice: Choice | None = None
    margin: float = 0.0
    offsets: Mapping[str, float] | None = None

    def __post_init__(self):
        names = self.bank.names
        _check_pair(self.scouts, self.bank)
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
        if self.scouts.names != names:
            object.__setattr__(self, "scouts", self.scouts.select(names))

    @classmethod
    def choose(cls, scouts: ExpertBank, bank: ExpertBank, windows: Mapping[str, Windows], *,
               at_least: float = AT_LEAST, head: int = 0, **options) -> "Cascade":
        """A cascade that keeps as few experts as `choose_keep` allows; options as there."""
        choice = choose_keep(scouts, bank, windows, at_least=at_least, **options)
        return cls._chosen(scouts, bank, choice, head)

    @classmethod
    def load(cls, bank_folder: str | os.PathLike, scouts_folder: str | os.PathLike,
             keep: int | None = None) -> "Cascade":
        """Reads both banks and, unless `keep` is given, what `save` wrote.

        keep: so many, exactly, by the scouts' plain residuals of the whole document.
        `UserError` when one of them is damaged, nothing was saved, or either bank has changed
        since: then the choice says nothing about it.
        """
        bank, scouts = ExpertBank.load(bank_folder), ExpertBank.load(scouts_folder)
        _check_pair(scouts, bank)
        if keep is not None:
            return cls(scouts, bank, keep)
        return cls._chosen(scouts, bank, *cascade_record.read(bank.folder, scouts.folder))

    @classmethod
    def _chosen(cls, scouts, bank, choice, head):
        return cls(scouts, bank, choice.keep, head, choice, choice.margin, choice.offsets)

    def save(self) -> None:
        """Writes the choice beside the scouts, sealed with the SHA-256 of both banks' experts.

        `UserError` when a bank lives in memory only or nothing was measured.
        """
        if self.choice is None:
            raise UserError("how many experts this cascade keeps was not measured: make it with "
                            "Cascade.choose")
        cascade_record.write(self.bank.folder, self.scouts.folder, self.choice, self.head)

    def route(self, text: Text | Windows, *, alpha: float = 0.05, head: int = 0,
              stop: float = 0.0, tra_of_all: bool = False, expert_chunk: int = 4,
              batch: int = 64, chunk: int = 8192,
              on_block: Callable[[Windows], Any] = lambda block: None) -> Route:
        """`router.route` among the experts whose scouts rebuild the document best.

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
        router.check_alpha(alpha)
        calls.check_sizes(expert_chunk=expert_chunk, batch=batch, chunk=chunk)
        check_stop(stop)
        batch = min(batch, LOOK) if stop else batch
        nats, tokens, seen, rows = np.zeros(len(self.bank.names)), 0, 0, None
        with Spool(router.blocks(self.bank, text, batch, head)) as spool:
            first = None
            for block in spool:
                first = block if first is None else first
                rows = rows or calls.rows_per_call(len(block.tokens), batch)
                part = block.take(slice(max(0, self.head - seen) if self.head else None))
                seen += len(block.tokens)
                if len(part.tokens):
                    sums, counts = scout_sums(self.scouts, part, rows, expert_chunk, chunk)
                    nats, tokens = nats + sums.sum(-1), tokens + int(counts.sum())
            if first is None or not first.mask.any():
                return Totals(self.bank).route(alpha)  # the error for a text without tokens
            if tokens < SHORTEST and self.scouts.scoring.passes:
                sums, counts = scout_sums(_all_passes(self.scouts), first, rows, expert_chunk,
                                          chunk)
                nats, tokens = sums.sum(-1), int(counts.sum())
            residuals = nats / tokens
            kept = self._kept_of_a_document(residuals, expert_chunk)
            found = router.judge(
                calls.selected(self.bank, kept), spool, alpha=alpha, stop=stop,
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
        calls.check_sizes(**options)
        near = self._near(scout_residuals(self.scouts, windows, **options))
        chosen = kept(near, self.keep, self.margin)
        lengths = windows.mask.sum(-1)
        residuals = np.full((len(self.bank.names), len(windows.tokens)), np.inf)
        for e in np.flatnonzero(chosen.any(1)):
            at = np.flatnonzero(chosen[e])
            part = calls.selected(self.bank, np.array([e]))
            for here, rows in full_calls(at, batch):
                block = windows.take(here)
                residuals[e, here] = residual_means(*calls.residual_rows(
                    part.model, part.params, block, rows, scoring=part.scoring, chunk=chunk))[0]
        return WindowRoutes(residuals, lowest(router.compared(self.bank, residuals, lengths)),
                            router.p_values(self.bank, residuals, lengths))


def choose_keep(scouts: ExpertBank, bank: ExpertBank, windows: Mapping[str, Windows], *,
                at_least: float = AT_LEAST, keep: int = KEEP, expert_chunk: int = 4,
                batch: int = 64, chunk: int = 8192) -> Choice:
    """`keep` experts at least, and as many more as an agreement of `at_least` with exact routing
    takes: the least margin that will do, with offsets where these make them fewer
    (`shortlist.choose`).

    windows: per expert, of its own validation split, which no expert was trained on.  Agreement is
    a mean over the experts' windows, then over the experts.  n windows without a miss say, at 95 %
    confidence, no more than that fewer than 3 / n are missed: give thousands.  keep: of a bank
    with fewer experts, all.  `UserError` when an expert has fewer than two windows, or `at_least`
    is no share.
    """
    _check_pair(scouts, bank)
    if not 0 <= at_least <= 1:
        raise UserError(f"at_least is a share and must lie in [0, 1], got {at_least}")
    missing = [n for n in bank.names if not len(windows.get(n, ()))]
    if missing:
        raise UserError("choosing how many experts to keep needs validation windows of each: none "
                        f"for {', '.join(missing)}")
    scouts = scouts.select(bank.names)
    options = {"expert_chunk": expert_chunk, "batch": batch, "chunk": chunk}
    calls.check_sizes(keep=keep, **options)
    exact = lambda w: router.compared(bank, router.route_all(bank, w, **options).residuals,
                                      w.mask.sum(-1))
    return shortlist.choose({n: scout_residuals(scouts, windows[n], **options) for n in bank.names},
                            {n: exact(windows[n]) for n in bank.names}, bank.names,
                            min(keep, len(bank.names)), at_least)


def scout_residuals(scouts: ExpertBank, windows: Windows, *, expert_chunk: int = 4,
                    batch: int = 64, chunk: int = 8192) -> Float[np.ndarray, "E B"]:
    """nats/token of each window by every scout.

    Windows of which the scouts' rule scores fewer than 8 tokens are scored by all its passes.
    """
    rows = lambda count: calls.rows_per_call(count, batch)
    sums, counts = scout_sums(scouts, windows, rows(len(windows.tokens)), expert_chunk, chunk)
    short = np.flatnonzero(counts < SHORTEST)
    if scouts.scoring.passes and short.size:
        sums[:, short], counts[short] = scout_sums(
            _all_passes(scouts), windows.take(short), rows(short.size), expert_chunk, chunk)
    return residual_means(sums, counts)


def scout_sums(scouts: ExpertBank, windows: Windows, rows: int, expert_chunk: int = 4,
               chunk: int = 8192) -> tuple[Float[np.ndarray, "E B"], Int[np.ndarray, " B"]]:
    """(nats over scored tokens, number of these) of each window; `rows` windows at a time.

    A window may be several of the scouts' windows long: each part is read alone.
    """
    size, count = scouts.model.window, len(windows.tokens)
    parts = windows.tokens.shape[1] // size
    cut = Windows(windows.tokens.reshape(-1, size), windows.mask.reshape(-1, size),
                  np.repeat(windows.document, parts))
    sums, counts = calls.residual_rows(
        scouts.model, scouts.params, cut, rows * parts, scoring=scouts.scoring,
        expert_chunk=expert_chunk, chunk=chunk)
    together = lambda x: x.reshape(*x.shape[:-1], count, -1).sum(-1)
    return together(sums), together(counts)


def full_calls(at: Int[np.ndarray, " n"], batch: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cuts places into calls (places, rows): rows is `batch` or a power of four below it.

    A call is at least three quarters full, so that a pair of window and expert costs at most a
    third more than alone, and few shapes are compiled.
    """
    shapes = sorted({calls.rows_per_call(n, batch) for n in range(1, batch + 1)})
    while at.size:
        held = next((s for s in shapes if s >= at.size), shapes[-1])
        rows = held if at.size >= 0.75 * held else max(s for s in shapes if s <= at.size)
        yield at[:rows], rows
        at = at[rows:]


def _all_passes(scouts: ExpertBank) -> ExpertBank:
    return dataclasses.replace(scouts, scoring=dataclasses.replace(scouts.scoring, passes=0))


def _check_pair(scouts: ExpertBank, bank: ExpertBank) -> None:
    if scouts.tokenizer.fingerprint != bank.tokenizer.fingerprint:
        raise UserError("the scouts have another tokenizer than the bank: train them with its "
                        "tokenizer (config.tokenizer.folder=BANK/tokenizer)")
    lacking, more = set(bank.names) - set(scouts.names), set(scouts.names) - set(bank.names)
    if lacking:
        raise UserError(f"no scout for {', '.join(sorted(lacking))}: train one with the scouts' "
                        "settings and add it")
    if more:
        raise UserError(f"scouts without an expert in the bank: {', '.join(sorted(more))}; remove "
                        "them or give the bank that they belong to")
    if not bank.names:
        raise UserError("the bank has no experts: train or add one first")
    if bank.model.window % scouts.model.window:
        raise UserError(f"the scouts' window of {scouts.model.window} tokens must divide the "
                        f"bank's {bank.model.window}")
