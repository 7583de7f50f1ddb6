"""Windows of many documents, scored by the experts that may win them.

    documents, candidates [D, E] -> pairs of window and expert -> full batches -> a Route each

Not in the paper.  Letters: E experts, B windows, D documents.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from cr_jax import memory, router
from cr_jax.bank import ExpertBank, selected
from cr_jax.bank.bigram_bank import BigramBank
from cr_jax.bank.files import consistent
from cr_jax.bank.screen_file import read_of
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.routing import document, other_rule
from cr_jax.routing.cascade import full_batches
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.result import Route
from cr_jax.scoring.batching import BatchSizes, checked
from cr_jax.scoring.residuals import WindowSums


class Scorer:
    """Scores documents beside whoever gives them.

    On a CPU, where XLA's loop over tokens keeps one core busy, by one thread per core.
    """

    def __init__(self, bank: ExpertBank, options: RouteOptions, sizes: BatchSizes | None = None):
        self.bank = other_rule.by_rule(bank, options.rule)
        self.sizes = sizes or BatchSizes.for_device()
        self.options = options
        on_cpu = jax.default_backend() == "cpu"
        self._threads = ThreadPoolExecutor(memory.usable_cores() if on_cpu else 1)
        self._some = functools.lru_cache(maxsize=64)(self._select)

    def start(
        self, documents: list[Windows], candidates: Bool[np.ndarray, "D E"]
    ) -> Callable[[], list[Route | UserError]]:
        """Begins to score each document by its candidates; -> what waits for the routes."""
        lengths = [len(x) for x in documents]
        ends = np.cumsum(lengths)
        nats_of = self.begin(joined(documents), np.repeat(candidates, lengths, axis=0).T)

        def routes():
            nats = nats_of()
            return [
                self._route(x, nats[:, end - len(x) : end], by)
                for end, x, by in zip(ends, documents, candidates, strict=True)
            ]

        return routes

    def large(self, text: Iterator[str]) -> Route | UserError:
        """Routes one text in bounded memory, by all experts."""
        try:
            return router.route(self.bank, text, self.options, self.sizes)
        except UserError as error:
            return error

    def begin(
        self, windows: Windows, chosen: Bool[np.ndarray, "E B"]
    ) -> Callable[[], Float[np.ndarray, "E B"]]:
        """Begins to score windows by the experts that are chosen for each; -> what waits for their
        nats, infinite where an expert was not chosen."""
        checked(self.bank, windows, self.sizes)
        nats = np.full(chosen.shape, np.inf)
        work = [
            self._threads.submit(self._score, nats, windows, *job) for job in self._jobs(chosen)
        ]

        def wait():
            _wait(work)
            return nats

        return wait

    def _jobs(self, chosen: Bool[np.ndarray, "E B"]):
        """(experts, places of windows, rows of the program)"""
        whole = chosen.all(0)
        for at, rows in full_batches(np.flatnonzero(whole), self.sizes):
            yield tuple(range(len(chosen))), at, rows
        for e in range(len(chosen)):
            for at, rows in full_batches(np.flatnonzero(chosen[e] & ~whole), self.sizes):
                yield (e,), at, rows

    def _score(self, nats, windows: Windows, experts, at: Int[np.ndarray, " n"], rows: int):
        some = self._some(experts)
        sums = router.score_bank(some, windows.take(at), self.sizes, rows=rows)
        nats[np.ix_(experts, at)] = sums.residual

    def _select(self, experts: tuple[int, ...]) -> ExpertBank:
        if len(experts) == len(self.bank.names):
            return self.bank
        return selected(self.bank, np.array(experts))

    def _route(self, windows: Windows, nats, candidates) -> Route | UserError:
        names = [n for n, c in zip(self.bank.names, candidates, strict=True) if c]
        whole = len(names) == len(self.bank.names)
        some = self.bank if whole else self.bank.select(names)
        totals = document.Totals(some, self.options)
        totals.add(windows, WindowSums(nats[candidates], None))
        try:
            found = totals.route()
        except UserError as error:
            return error
        if self.options.tra == "none":
            return found
        by = names if self.options.tra == "all" else (found.nearest,)
        rows = self.sizes.rows(len(windows))
        score = functools.partial(router.score_bank, sizes=self.sizes, rows=rows)
        return dataclasses.replace(found, tra=document.tra(self.bank, by, [windows], score))


def _wait(work: list[Future]) -> None:
    try:
        for job in work:
            job.result()
    finally:
        for job in work:
            job.cancel()


def joined(documents: list[Windows]) -> Windows:
    """The windows of several documents."""
    fields = ("tokens", "mask", "document")
    return Windows(*(np.concatenate([getattr(x, f) for x in documents]) for f in fields))


def bigram_bank(bank: ExpertBank) -> BigramBank:
    """The bigram models of a bank in memory, with its screen where it is a stored bank as it is."""
    bigrams = tuple(bank.bigrams[n] for n in bank.names if n in bank.bigrams)
    screen = None
    if bank.folder is not None:
        names, stored = consistent(bank.folder, lambda files: (files.names, read_of(files)))
        screen = stored if names == bank.names else None
    return BigramBank(
        bank.names,
        bigrams if len(bigrams) == len(bank.names) else (),
        bank.tokenizer,
        bank.model.window,
        bank.text_form,
        screen,
        bank.folder,
    )
