"""Routing among many experts at the cost of a few: their bigram models say which score in full.

    windows -> bigram models' residuals [E, B] -> the nearest -> the bank's residuals of these alone

A bigram model (`scoring.bigram`) is the smallest compressor of a domain, counted on the text that
its expert is trained on, so the choice is still made by compression: no gate is trained.  Where the
exact winner is among the candidates, the answer is that of `router.route`.  How many candidates
there are depends on how far apart the bigram models are (`cr_jax.routing.candidates`).  Not in the
paper.
Letters: E experts, B windows.
"""

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from cr_jax import router
from cr_jax.bank import ExpertBank, cascade_file, check_bigrams, selected
from cr_jax.bank.cascade_file import CandidateFit
from cr_jax.bank.files import CASCADE, BankFolder, consistent
from cr_jax.config.numbers import whole_number
from cr_jax.data.spool import Spool
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.routing import candidates, document, ranking
from cr_jax.routing.candidates import are_candidates, column, nearest
from cr_jax.routing.document import Text
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.result import Route, WindowRoutes
from cr_jax.scoring.batching import BatchSizes, check_bank, checked, start_batches
from cr_jax.scoring.bigram_windows import bigram_residuals, bigram_sums
from cr_jax.scoring.residuals import lowest, residual_means

AT_LEAST = 0.999  # agreement with exact routing that `fit_candidates` asks for
# Candidates at least.  On validation text four would do; text that is less like it may want more,
# and two more experts cost less than a wrong answer.
MIN_CANDIDATES = 6


@dataclasses.dataclass(frozen=True, eq=False)
class Cascade:
    """A bank's bigram models before its experts.  Scored in full, per window or document, are its
    candidates: the `min_candidates` experts whose bigram models have the lowest residuals, and all
    others whose bigram model lies within `candidate_margin` nats/token of the lowest.

    max_windows: of a document that the bigram models read; 0: all of them.  fitted: what the rest
    comes from, where it was measured.  offsets: expert -> nats/token that are taken off its bigram
    model's residual before bigram models are ranked; None: nothing.  `UserError` unless every
    expert has a bigram model, min_candidates lies in [1, E], the margin is finite and not negative,
    and offsets are so too, one for each expert.
    """

    bank: ExpertBank
    min_candidates: int
    max_windows: int = 0
    fitted: CandidateFit | None = None
    candidate_margin: float = 0.0
    offsets: Mapping[str, float] | None = None

    def __post_init__(self):
        names = self.bank.names
        _check_bigrams(self.bank)
        if not 1 <= self.min_candidates <= len(names):
            raise UserError(
                f"min_candidates={self.min_candidates} experts: must lie in "
                f"[1, {len(names)}], the number of experts"
            )
        if self.max_windows < 0:
            raise UserError(
                f"max_windows={self.max_windows} of a document: give 0 for all, or more"
            )
        if not 0 <= self.candidate_margin < math.inf:
            raise UserError(
                f"candidate_margin={self.candidate_margin} nats/token above the "
                "nearest bigram model: must be finite and not negative"
            )
        if self.offsets is not None:
            if set(self.offsets) != set(names):
                odd = ", ".join(sorted(set(self.offsets) ^ set(names)))
                raise UserError(
                    f"offsets must be those of the bank's experts, one for each: see {odd}"
                )
            bad = [f"{n}={x}" for n, x in self.offsets.items() if not 0 <= x < math.inf]
            if bad:
                raise UserError(
                    f"offsets, in nats/token, must be finite and not negative, got {', '.join(bad)}"
                )

    @classmethod
    def fit(
        cls,
        bank: ExpertBank,
        windows: Mapping[str, Windows],
        at_least: float = AT_LEAST,
        min_candidates: int = MIN_CANDIDATES,
        max_windows: int = 0,
        sizes: BatchSizes | None = None,
    ) -> "Cascade":
        """A cascade with as few candidates as `fit_candidates` allows; arguments as there."""
        fitted = fit_candidates(bank, windows, at_least, min_candidates, sizes)
        return cls._of(bank, fitted, max_windows)

    @classmethod
    def load(cls, folder: str | os.PathLike, min_candidates: int | None = None) -> "Cascade":
        """Reads a bank and, unless `min_candidates` is given, what `save` wrote.

        min_candidates: so many, exactly, with the offsets and max_windows that were saved if any
        were.  `UserError` when the bank is damaged, nothing was saved, or its experts have changed
        since: then the fit says nothing about them.
        """
        return consistent(folder, lambda files: cls._read(files, min_candidates))

    @classmethod
    def _read(cls, files: BankFolder, min_candidates: int | None) -> "Cascade":
        bank = ExpertBank.of(files, lms=False)
        _check_bigrams(bank)
        if min_candidates is not None:
            with contextlib.suppress(UserError):  # nothing was saved, or for other experts
                fitted, max_windows = cascade_file.read_of(files)
                return cls(bank, min_candidates, max_windows, offsets=fitted.offsets)
            return cls(bank, min_candidates)
        if len(bank.names) <= MIN_CANDIDATES and not files.inside.has(CASCADE):
            raise UserError(
                f"{files.path} has {len(bank.names)} experts, no more than a cascade "
                "scores in full: route without it, or give --min-candidates"
            )
        return cls._of(bank, *cascade_file.read_of(files))

    @classmethod
    def _of(cls, bank, fitted, max_windows):
        return cls(
            bank,
            fitted.min_candidates,
            max_windows,
            fitted,
            fitted.candidate_margin,
            fitted.offsets,
        )

    def save(self) -> None:
        """Writes the fit into the bank's folder, sealed with the SHA-256 of its experts.

        `UserError` when the bank lives in memory only or is a part of what is stored, or nothing
        was measured.
        """
        if self.fitted is None:
            raise UserError(
                "how many candidates this cascade needs was not measured: make it with Cascade.fit"
            )
        cascade_file.write(
            self.bank.folder,
            self.fitted,
            self.max_windows,
            self.bank.names,
            self.bank.scoring.typicality_weight,
        )

    def route(
        self,
        text: Text | Windows,
        options: RouteOptions | None = None,
        sizes: BatchSizes | None = None,
        on_block: Callable[[Windows], Any] | None = None,
    ) -> Route:
        """`router.route` among the experts whose bigram models are nearest to the document.

        Bigram models read the text once (its first `self.max_windows` windows, of those that the
        options let be read), then the candidates read all of it; in between its tokens lie in
        memory or, if they are many, in a temporary file.  The Route's `bigrams` holds every bigram
        model's nats/token, offsets not taken off, its other fields those of the candidates only.
        To the candidates that the margin adds come the next nearest, up to a multiple of
        `sizes.experts`: documents then share few programs.  Bigram models do not stop early.
        Arguments and errors as in `router.route`; also a `UserError` for another rule than the
        bank's, by which candidates were not fitted.
        """
        if options and options.rule != "bank":
            raise UserError(f"rule={options.rule!r} goes with exact routing, not with a cascade")
        document.check_one(text)
        options, sizes = options or RouteOptions(), sizes or BatchSizes.for_device()
        nats, tokens, seen = np.zeros(len(self.bank.names)), 0, 0
        sizes = document.block_sizes(options, sizes)
        cut = document.scored_blocks(self.bank, text, options, sizes.windows)
        with Spool(cut) as spool:
            for block in spool:
                left = max(0, self.max_windows - seen) if self.max_windows else None
                part = block.take(slice(left))
                seen += len(block.tokens)
                if len(part.tokens):
                    nats = nats + bigram_sums(self.bank.bigram_table, part, sizes).sum(-1)
                    tokens += int(part.mask.sum())
            if not tokens:
                return document.Totals(self.bank, options).route()  # raises: there is no text
            residuals = nats / tokens
            rows = self._candidates_of_document(residuals, sizes.experts)
            found = document.judge(
                selected(self.bank, rows), spool, options, router.score_bank, sizes, on_block
            )
        by_bigrams = dict(zip(self.bank.names, map(float, residuals), strict=True))
        return dataclasses.replace(found, bigrams=by_bigrams)

    def _candidates_of_document(self, residuals, multiple):
        near = self._near(residuals[:, None])
        few = self.min_candidates
        more = int(are_candidates(near, few, self.candidate_margin).sum()) - few
        count = few + -(-more // multiple) * multiple
        # In the bank's order: ties are then broken as in exact routing.
        return np.sort(nearest(near, count)[:, 0])

    def _near(self, residuals):
        return residuals - column(self.offsets, self.bank.names)

    def route_windows(self, windows: Windows, sizes: BatchSizes | None = None) -> WindowRoutes:
        """Routes every window on its own, among its candidates.

        Residuals are infinite, and p-values NaN, for experts that did not score a window; the
        expert is -1 where a window has no token.
        """
        sizes, rule = checked(self.bank, windows, sizes)
        near = self._near(bigram_residuals(self.bank.bigram_table, windows, sizes))
        chosen = are_candidates(near, self.min_candidates, self.candidate_margin)
        lengths = windows.mask.sum(-1)
        residuals = np.full((len(self.bank.names), len(windows.tokens)), np.inf)
        started = []
        for e in np.flatnonzero(chosen.any(1)):
            at = np.flatnonzero(chosen[e])
            one = selected(self.bank, np.array([e]))
            score = functools.partial(
                router.score_windows, one.model, one.weights, rule=rule, sizes=sizes
            )
            for here, rows in full_batches(at, sizes):
                started.append((e, here, start_batches(score, windows.take(here), rows)))
        for e, here, read in started:
            sums = read()
            residuals[e, here] = residual_means(sums.residual, lengths[here])[0]
        score = ranking.ranking_score(self.bank, residuals, lengths)
        return WindowRoutes(
            residuals, lowest(score), ranking.p_values(self.bank, residuals, lengths)
        )


def fit_candidates(
    bank: ExpertBank,
    windows: Mapping[str, Windows],
    at_least: float = AT_LEAST,
    min_candidates: int = MIN_CANDIDATES,
    sizes: BatchSizes | None = None,
) -> CandidateFit:
    """`min_candidates` at least, and as many more as an agreement of `at_least` with exact routing
    takes: the least margin that will do, with offsets where these make them fewer
    (`candidates.fit`).

    windows: per expert, of its own validation split, which no expert was trained on.  Agreement is
    a mean over the experts' windows, then over the experts.  n windows without a miss say, at 95 %
    confidence, no more than that fewer than 3 / n are missed: give thousands.  min_candidates:
    of a bank with fewer experts, all.  `UserError` when an expert has no bigram model or fewer than
    two windows, or `at_least` is no share.
    """
    _check_bigrams(bank)
    if not 0 <= at_least <= 1:
        raise UserError(f"at_least is a share and must lie in [0, 1], got {at_least}")
    missing = [n for n in bank.names if not len(windows.get(n, ()))]
    if missing:
        raise UserError(
            "fitting candidates needs validation windows of each expert: none "
            f"for {', '.join(missing)}"
        )
    if not whole_number(min_candidates) or min_candidates < 1:
        raise UserError(
            f"min_candidates must be a whole number of at least 1, got {min_candidates!r}"
        )
    sizes = sizes or BatchSizes.for_device()

    def exact(some):
        residuals = router.route_windows(bank, some, sizes).residuals
        return ranking.ranking_score(bank, residuals, some.mask.sum(-1))

    def near(some):
        return bigram_residuals(bank.bigram_table, some, sizes)

    return candidates.fit(
        {n: near(windows[n]) for n in bank.names},
        {n: exact(windows[n]) for n in bank.names},
        bank.names,
        min(min_candidates, len(bank.names)),
        at_least,
    )


def full_batches(at: Int[np.ndarray, " n"], sizes: BatchSizes) -> Iterator[tuple[np.ndarray, int]]:
    """Cuts places into batches (places, rows): rows is `sizes.windows` or a power of four below it.

    A batch is at least three quarters full, so that a pair of window and expert costs at most a
    third more than alone, and few shapes are compiled.
    """
    shapes = sorted({sizes.rows(n) for n in range(1, sizes.windows + 1)})
    while at.size:
        larger = next((s for s in shapes if s >= at.size), shapes[-1])
        rows = larger if at.size >= 0.75 * larger else max(s for s in shapes if s <= at.size)
        yield at[:rows], rows
        at = at[rows:]


def _check_bigrams(bank: ExpertBank) -> None:
    check_bank(bank)
    check_bigrams(bank)
