"""Windows of many documents, scored by the experts that may win them.

    documents, candidates [D, E] -> pairs of window and expert -> full batches -> a Route each

Not in the paper.  Letters: E experts, B windows, D documents.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from jaxtyping import Bool, Int

from cr_jax import router
from cr_jax.bank import ExpertBank
from cr_jax.bank.bigram_bank import BigramBank
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.host import memory
from cr_jax.routing import document, other_rule
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.result import Route
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.bigram import table, with_bigrams
from cr_jax.scoring.bigram_model import BigramModel, bits_without_loss
from cr_jax.scoring.residuals import WindowSums


class Experts:
    """A bank's experts, each made ready when it is first needed.

    names: in the order of the expert axis; bigrams: their models, or none; load: reads some of them
    by name, or all for None.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        bigrams: tuple[BigramModel, ...],
        load: Callable[[tuple[str, ...] | None], ExpertBank],
    ):
        self.names, self._load = names, load
        # One program for all: tables of as many slots.
        self._bits = max((bits_without_loss(b.keys) for b in bigrams), default=0)
        self._lock = threading.Lock()
        self._ready: dict[str | None, ExpertBank] = {}

    def whole(self) -> ExpertBank:
        """All experts, stacked."""
        return self._made(None)

    def one(self, name: str) -> ExpertBank:
        """A bank of one expert."""
        return self._made(name)

    def some(self, names: tuple[str, ...]) -> ExpertBank:
        """Experts that were made ready, for what is not computed on the device."""
        if len(names) == len(self.names):
            return self.whole()
        first = self.one(names[0])
        experts = tuple(self.one(name).experts[0] for name in names)
        return first if len(names) == 1 else first.changed(experts=experts, folder=None)

    def _made(self, name):
        with self._lock:
            if name not in self._ready:
                bank = self._load(None if name is None else (name,))
                if name is not None and bank.scoring.bigram_weight:
                    own = table([bank.bigrams[name]], self._bits)
                    vars(bank)["weights"] = with_bigrams(bank.params, own)
                self._ready[name] = bank
            return self._ready[name]


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

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *_) -> None:
        self.cancel()

    @functools.cached_property
    def bank(self) -> ExpertBank:
        """All experts, by the rule that was asked for."""
        return other_rule.by_rule(self.experts.whole(), self.options.rule)

    def start(
        self, documents: list[Windows], candidates: Bool[np.ndarray, "D E"]
    ) -> Callable[[], list[Route | UserError]]:
        """Begins to score each document by its candidates; -> what waits for the routes."""
        lengths = [len(x) for x in documents]
        ends = np.cumsum(lengths)
        sums_of = self.begin(joined(documents), np.repeat(candidates, lengths, axis=0).T)

        def routes():
            parts = per_document(sums_of(), ends)
            return [
                self._route(x, sums, by)
                for x, sums, by in zip(documents, parts, candidates, strict=True)
            ]

        return routes

    def large(self, text: Iterator[str]) -> Route | UserError:
        """Routes one text in bounded memory, by all experts."""
        try:
            return router.route(self.bank, text, self.options, self.sizes)
        except UserError as error:
            return error

    def begin(
        self, windows: Windows, chosen: Bool[np.ndarray, "E B"], surprise: bool | None = None
    ) -> Callable[[], WindowSums]:
        """Begins to score windows by the experts that are chosen for each; -> what waits for their
        sums: the residual infinite where an expert was not chosen, and the surprise NaN, also where
        it was not asked for or the rule has none.  surprise: None, where verdicts weigh it."""
        sums = WindowSums(
            np.full(chosen.shape, np.inf), surprise=np.full(chosen.shape, np.nan, np.float64)
        )
        work = [
            self._threads.submit(self._score, sums, windows, *job, surprise)
            for job in self._jobs(chosen)
        ]
        self._begun = [job for job in self._begun if not job.done()] + work

        def wait():
            for job in work:
                job.result()
            return sums

        return wait

    def cancel(self) -> None:
        """Begins nothing more of what is waiting."""
        for job in self._begun:
            job.cancel()

    def _jobs(self, chosen: Bool[np.ndarray, "E B"]):
        """(experts or None for all, places of windows, rows of the program)"""
        whole = chosen.all(0)
        for at, rows in self._batches(np.flatnonzero(whole)):
            yield None, at, rows
        for e in range(len(chosen)):
            for at, rows in self._batches(np.flatnonzero(chosen[e] & ~whole)):
                yield e, at, rows

    def _batches(self, at: Int[np.ndarray, " n"]):
        """Places in batches of as many rows as an earlier one, where that holds them: a program
        takes as long to make ready as hundreds of windows to score."""
        for start in range(0, len(at), self.sizes.windows):
            part = at[start : start + self.sizes.windows]
            if len(part) > self._rows:
                self._rows = self.sizes.rows(len(part)) if self._rows == 0 else self.sizes.windows
            yield part, self._rows

    def _score(self, into, windows: Windows, e: int | None, at, rows: int, surprise):
        some = self.bank if e is None else self.experts.one(self.experts.names[e])
        asked = document.counts_surprise(some) if surprise is None else surprise
        sums = router.score_bank(some, windows.take(at), self.sizes, rows=rows, surprise=asked)
        where = slice(None) if e is None else slice(e, e + 1)
        into.residual[where, at] = sums.residual
        if sums.surprise is not None:
            into.surprise[where, at] = sums.surprise

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


def experts_of(bank: ExpertBank) -> Experts:
    """The experts of a bank in memory."""
    bigrams = tuple(bank.bigrams.values())
    return Experts(bank.names, bigrams, lambda names: bank if names is None else bank.select(names))


def bigram_bank(bank: ExpertBank) -> BigramBank:
    """The bigram models of a bank in memory, with the screen that was stored with it when it was
    loaded.  `UserError` when that is damaged."""
    if isinstance(bank.screen, UserError):
        raise bank.screen
    bigrams = tuple(bank.bigrams[n] for n in bank.names if n in bank.bigrams)
    return BigramBank(
        bank.names,
        bigrams if len(bigrams) == len(bank.names) else (),
        bank.tokenizer,
        bank.model.window,
        bank.text_form,
        bank.screen,
        bank.folder,
    )
