"""Windows of many documents, scored by the experts that may win them.

    documents, candidates [D, E] -> pairs of window and expert -> full batches -> a Route each

Not in the paper.  Letters: E experts, B windows, D documents.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int

from cr_jax import router
from cr_jax.bank import ExpertBank
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.host import memory
from cr_jax.routing import document, looks, other_rule
from cr_jax.routing.looks import Look
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.ready import Experts
from cr_jax.routing.result import Route
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.residuals import WindowSums


class Scored(NamedTuple):
    """Windows that are being scored; called, it waits for their sums."""

    jobs: list[Future]
    sums: WindowSums

    def __call__(self) -> WindowSums:
        for job in self.jobs:
            job.result()
        return self.sums

    def done(self) -> bool:
        return all(job.done() for job in self.jobs)


class Routed(NamedTuple):
    """Documents that are being scored; called, it waits for their routes."""

    rest: Future  # ([route or None], `Scored` of the windows that were not looked at first)
    routes: Callable[[], list[Route | UserError]]

    def __call__(self) -> list[Route | UserError]:
        return self.routes()

    def done(self) -> bool:
        """Whether nobody has to wait; a failure is not waited for either."""
        if not self.rest.done():
            return False
        failed = self.rest.cancelled() or self.rest.exception() is not None
        return failed or self.rest.result()[1].done()


class Scorer:
    """Scores documents beside whoever gives them.

    On a CPU, where XLA's loop over tokens keeps one core busy, by one thread per core.  `with
    Scorer(...)`: what still waits at the end is cancelled, also after an error or Ctrl-C.
    """

    def __init__(self, experts: Experts, options: RouteOptions, sizes: BatchSizes | None = None):
        self.experts, self.options = experts, options
        self.sizes = sizes or BatchSizes.for_device()
        on_cpu = jax.default_backend() == "cpu"
        self._threads = ThreadPoolExecutor(memory.usable_cores() if on_cpu else 1)
        self._rows = 0
        self._begun: list[Future] = []
        self._lock = threading.Lock()
        self._cancelled = 0  # how often

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *_) -> None:
        self.cancel()

    @functools.cached_property
    def bank(self) -> ExpertBank:
        """All experts, by the rule that was asked for."""
        return other_rule.by_rule(self.experts.whole(), self.options.rule)

    def start(
        self,
        documents: list[Windows],
        candidates: Bool[np.ndarray, "D E"],
        first_looks: Sequence[Look | None] = (),
    ) -> Routed:
        """Begins to score each document by its candidates.

        first_looks: of each document, the windows by which it may be known already
        (`routing.looks`), or None.  All others are begun when these are scored, whoever waits.
        """
        lengths = [len(x) for x in documents]
        windows, ends = joined(documents), np.cumsum(lengths)
        chosen = np.repeat(candidates, lengths, axis=0).T
        every = first_looks or [None] * len(documents)
        first = np.ones(len(windows), bool)
        for look, length, end in zip(every, lengths, ends, strict=True):
            if look is not None:
                first[end - length : end] = np.isin(np.arange(length), look.at)
        self._make_rows(chosen)
        # Of a document with all candidates all experts score at once.
        some = candidates[~candidates.all(1)].any(0)
        self.experts.want(name for name, c in zip(self.experts.names, some, strict=True) if c)
        looked, times = self.begin(windows, chosen & first), self._cancelled

        def again():
            sums = looked()
            parts = per_document(sums, ends)
            found = [
                None if look is None else self._looked(x, part, by, look)
                for x, part, by, look in zip(documents, parts, candidates, every, strict=True)
            ]
            if self._cancelled > times:
                raise CancelledError
            open_ = np.repeat([route is None for route in found], lengths)
            return found, self.begin(windows, chosen & ~first & open_, into=sums)

        # After all that it waits for in the queue of the threads, so that it never keeps one of
        # these from its thread.
        later = self._submit(again)

        def routes():
            found, rest = later.result()
            parts = per_document(rest(), ends)
            return [
                route or self._route(x, sums, by)
                for route, x, sums, by in zip(found, documents, parts, candidates, strict=True)
            ]

        return Routed(later, routes)

    def large(self, text: Iterator[str]) -> Route | UserError:
        """Routes one text in bounded memory, by all experts."""
        try:
            return router.route(self.bank, text, self.options, self.sizes)
        except UserError as error:
            return error

    def begin(
        self,
        windows: Windows,
        chosen: Bool[np.ndarray, "E B"],
        surprise: bool | None = None,
        into: WindowSums | None = None,
    ) -> Scored:
        """Begins to score windows by the experts that are chosen for each.  Their sums: the
        residual infinite where an expert was not chosen, and the surprise NaN, also where it was
        not asked for or the rule has none.  surprise: None, where verdicts weigh it; into: sums of
        the same windows, to which these are added."""
        sums = into or WindowSums(
            np.full(chosen.shape, np.inf), surprise=np.full(chosen.shape, np.nan, np.float64)
        )
        self._make_rows(chosen)
        jobs = list(self._jobs(chosen))
        work = [self._submit(self._score, sums, windows, *job, surprise) for job in jobs]
        return Scored(work, sums)

    def cancel(self) -> None:
        """Begins nothing more of what is waiting."""
        self._cancelled += 1
        with self._lock:
            for job in self._begun:
                job.cancel()

    def _submit(self, do: Callable[..., Any], *args: Any) -> Future:
        with self._lock:  # threads begin what follows from what they have scored
            job = self._threads.submit(do, *args)
            self._begun = [*(x for x in self._begun if not x.done()), job]
        return job

    def _jobs(self, chosen: Bool[np.ndarray, "E B"]):
        """(experts or None for all, places of windows)"""
        whole = chosen.all(0)
        for e in (None, *range(len(chosen))):
            at = np.flatnonzero(whole if e is None else chosen[e] & ~whole)
            for start in range(0, len(at), self._rows):
                yield e, at[start : start + self._rows]

    def _make_rows(self, chosen: Bool[np.ndarray, "E B"]) -> None:
        """Rows of the program: as many as an earlier one has, where that holds the windows of each
        expert.  One takes as long to make ready as hundreds of windows to score."""
        most = int(chosen.sum(1).max(initial=0))
        if most > self._rows:
            self._rows = self.sizes.rows(most) if self._rows == 0 else self.sizes.windows

    def _score(self, into, windows: Windows, e: int | None, at: Int[np.ndarray, " n"], surprise):
        some = self.bank if e is None else self.experts.one(self.experts.names[e])
        asked = document.counts_surprise(some) if surprise is None else surprise
        score = functools.partial(router.score_bank, sizes=self.sizes, rows=self._rows)
        sums = score(some, windows.take(at), surprise=asked)
        where = slice(None) if e is None else slice(e, e + 1)
        into.residual[where, at] = sums.residual
        if sums.surprise is not None:
            into.surprise[where, at] = sums.surprise

    def _looked(self, windows: Windows, sums: WindowSums, candidates, look: Look) -> Route | None:
        """The route by a look; None where that does not say enough."""
        lengths = windows.mask.sum(-1)
        found = self._route(windows, look.of_all(sums, lengths), candidates)
        if isinstance(found, UserError) or not looks.sure(found):
            return None
        return dataclasses.replace(
            found,
            windows=len(look.at),
            tokens=int(lengths[look.at].sum()),
            of_windows=found.windows,
        )

    def _route(self, windows: Windows, sums: WindowSums, candidates) -> Route | UserError:
        names = tuple(n for n, c in zip(self.experts.names, candidates, strict=True) if c)
        some = self.bank if len(names) == len(self.experts.names) else self.experts.some(names)
        try:
            found = document.route_of(some, windows, sums.take(candidates), self.options)
        except UserError as error:
            return error
        if self.options.tra == "none":
            return found
        by = names if self.options.tra == "all" else (found.nearest,)
        rows = self.sizes.rows(len(windows))
        score = functools.partial(router.score_bank, sizes=self.sizes, rows=rows)
        return dataclasses.replace(found, tra=document.tra(some, by, [windows], score))


def per_document(sums: WindowSums, ends: Int[np.ndarray, " D"]) -> list[WindowSums]:
    """The sums of each document, whose windows end where `ends` says."""
    cut = lambda of: np.split(of, ends[:-1].tolist(), axis=1)
    pairs = zip(cut(sums.residual), cut(sums.surprise), strict=True)
    return [WindowSums(residual, surprise=surprise) for residual, surprise in pairs]


def joined(documents: list[Windows]) -> Windows:
    """The windows of several documents."""
    fields = ("tokens", "mask", "document")
    return Windows(*(np.concatenate([getattr(x, f) for x in documents]) for f in fields))
