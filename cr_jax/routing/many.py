"""Many documents at once: bigram models decide where they are certain, experts score the rest.

    texts -> tokens -> bigram models -> certain: done
                                     -> else: windows of many documents, expert by expert -> Route

Documents are read in rounds (`routing.rounds`).  While the experts score the windows of one round,
in full batches of few shapes, the next rounds are tokenised.  JAX is imported in a thread, once a
document needs an expert.  Not in the paper.  Letters: E experts, B windows, D documents.
"""

import collections
import dataclasses
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float

from cr_jax.bank.bigram_bank import BigramBank
from cr_jax.bank.screen_file import Screen
from cr_jax.data.text_form import text_form
from cr_jax.data.text_stream import pieces
from cr_jax.data.tokenizers.token_table import encode_many
from cr_jax.data.windows import Windows, windows_of
from cr_jax.errors import UserError, printable
from cr_jax.routing import screen
from cr_jax.routing.content import has_content
from cr_jax.routing.looks import Look, look
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.result import BIGRAMS, Route
from cr_jax.routing.rounds import Large, rounds

if TYPE_CHECKING:
    from cr_jax.bank.bank import ExpertBank
    from cr_jax.scoring.batching import BatchSizes

AHEAD = 6  # rounds that may be begun beyond the first one that is not done
Answer = Route | UserError


def route_many(
    bank: "ExpertBank",
    texts: Iterable[Any],
    options: RouteOptions | None = None,
    sizes: "BatchSizes | None" = None,
    exact: bool = False,
) -> list[Route]:
    """The `Route` of every text, in their order.

    Where the bank has a screen (`BANK/screen.json`), its bigram models decide alone what they are
    certain of: such a Route has `decided_by` "bigrams", no residuals and no p-values.  All other
    texts are scored by the experts that may win, among them the bigram models' runner-up, or by all
    experts if `exact` or if the bank has no screen; residuals of experts that did not score are
    absent.  A text of twelve windows or more may be known by four of them (`routing.looks`): its
    figures are then estimates, `windows` is 4 and `of_windows` says how many the text has.

    texts: each a str or a path; at most seven rounds of 256 are in memory.  `UserError` as in
    `router.route` for the first bad text, and for a str or a dict in place of a list.

    >>> import cr_jax
    >>> bank = cr_jax.load()
    >>> found = cr_jax.route_many(bank, ["def f(x):\\n    return x + 1\\n" * 40] * 3)
    >>> [route.expert for route in found]
    ['python', 'python', 'python']
    """
    if isinstance(texts, str | bytes | dict) or not isinstance(texts, Iterable):
        raise UserError(f"route_many takes a list of texts, not {type(texts).__name__}")
    router = ManyRouter.of_bank(bank, options, sizes, exact)
    found = []
    for answer in router.route(texts):
        if isinstance(answer, UserError):
            raise answer
        found.append(answer)
    return found


@dataclasses.dataclass
class ManyRouter:
    """Routes any number of texts, in bounded memory.

    bank: the bigram models; load: reads experts by their names, or all for None; exact: all
    experts score all texts.  `UserError` for options that are about one text at a time.
    """

    bank: BigramBank
    load: "Callable[[tuple[str, ...] | None], ExpertBank]"
    options: RouteOptions = dataclasses.field(default_factory=RouteOptions)
    sizes: "BatchSizes | None" = None
    exact: bool = False

    def __post_init__(self):
        if self.options.stop:
            raise UserError("stop is for one long text: leave it out, or use route")
        if self.options.rule != "bank":  # the screen says what the bank's rule says
            self.exact = True
        self._scorer: Any = None
        self._starter: ThreadPoolExecutor | None = None
        self._making = threading.Lock()

    @classmethod
    def of_bank(
        cls,
        bank: "ExpertBank",
        options: RouteOptions | None = None,
        sizes: "BatchSizes | None" = None,
        exact: bool = False,
    ) -> "ManyRouter":
        """Of a bank in memory, with the screen of the folder that it was read from."""
        from cr_jax.routing.ready import bigram_bank

        load = lambda names: bank if names is None else bank.select(names)
        return cls(bigram_bank(bank), load, options or RouteOptions(), sizes, exact)

    @classmethod
    def open(
        cls, folder: str | os.PathLike, options: RouteOptions | None = None, exact: bool = False
    ) -> "ManyRouter":
        """Of a stored bank, whose experts are read when they are needed."""

        def load(names):
            from cr_jax.bank import ExpertBank

            return ExpertBank.load(folder, names, lms=False)

        return cls(BigramBank.load(folder), load, options or RouteOptions(), None, exact)

    def route(self, texts: Iterable[Any]) -> Iterator[Answer]:
        """The answers in the order of the texts, each as soon as its round is scored: a Route, or
        the UserError of a text that cannot be read.  texts: str, paths, generators of the parts of
        one text, or a UserError, which is given back."""
        waiting: collections.deque[_Round] = collections.deque()
        try:
            for texts_of_round in rounds(texts):
                waiting.append(self._start(texts_of_round))
                while len(waiting) > 1 and (waiting[0].done() or len(waiting) > AHEAD):
                    yield from waiting.popleft().answers()
            while waiting:
                yield from waiting.popleft().answers()
        finally:  # nobody waits for the rest: Ctrl-C, a closed output
            for begun in waiting:
                begun.cancel()
            if self._scorer is not None:
                self._scorer.cancel()

    def _start(self, texts: list[Any]) -> "_Round":
        """Tokenises and screens a round, and lets the experts begin."""
        answers, ids = self._tokens(texts)
        at = [i for i, x in enumerate(ids) if x is not None]
        if not at:
            return _Round(lambda: self._with_large(texts, answers))
        tokens = [ids[i] for i in at]
        lengths = np.array([len(x) for x in tokens])
        residuals = self._bigrams(tokens, lengths)
        said = self._screen(residuals, lengths, tokens)
        for d in np.flatnonzero(said.certain):
            answers[at[d]] = self._certain(residuals[d], int(lengths[d]))
        rest = np.flatnonzero(~said.certain)
        if not len(rest):
            return _Round(lambda: self._with_large(texts, answers))
        documents = [
            windows_of(tokens[d], self.bank.window, self.bank.tokenizer.pad_id) for d in rest
        ]
        scored = self._begin(documents, said.candidates[rest], self._looks(documents))

        def finish() -> list[Answer]:
            for d, route in zip(rest, scored.result()(), strict=True):
                if isinstance(route, Route) and not said.candidates[d].all():
                    route = dataclasses.replace(route, bigrams=self._by_name(residuals[d]))
                answers[at[d]] = route
            return self._with_large(texts, answers)

        return _Round(finish, scored)

    def _begin(self, *documents: Any) -> Future:
        """Of the `Routed` of a round, in a thread: JAX is imported, and experts are made ready,
        while the next texts are read."""
        if self._starter is None:
            self._starter = ThreadPoolExecutor(1)
        return self._starter.submit(lambda: self._experts().start(*documents))

    def _with_large(self, texts: list[Any], answers: list[Any]) -> list[Answer]:
        """The answers, with those of large texts."""
        return [
            self._experts().large(text.parts) if isinstance(text, Large) else answer
            for text, answer in zip(texts, answers, strict=True)
        ]

    def _tokens(self, texts: list[Any]):
        """-> (the answers of bad texts, the ids of good ones)"""
        answers: list[Any] = [None] * len(texts)
        good = {}
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                answers[i] = text
                continue
            try:
                good[i] = text_form(text, self.bank.text_form)
                if not good[i]:
                    raise UserError("the text is empty: give at least one token to route")
                good[i].encode("utf-8")
            except UnicodeEncodeError:
                del good[i]
                answers[i] = UserError(
                    "the text holds a lone surrogate, which is not UTF-8 text: decode the "
                    "bytes with UTF-8 first"
                )
            except UserError as error:
                good.pop(i, None)
                answers[i] = error
        ids: list[Any] = [None] * len(texts)
        part = slice(self.options.max_windows * self.bank.window or None)
        if self.options.last_tokens:
            part = slice(-self.options.last_tokens, None)
        cut = {i: list(pieces(text)) for i, text in good.items()}
        encoded = iter(encode_many(self.bank.tokenizer, list(itertools.chain(*cut.values()))))
        for i, own in cut.items():
            ids[i] = np.concatenate(list(itertools.islice(encoded, len(own))))[part]
        return answers, ids

    def _bigrams(self, tokens, lengths) -> Float[np.ndarray, "D E"]:
        """nats/token of each document by each bigram model."""
        if not self.bank.bigrams or self._by is None:
            return np.zeros((len(tokens), len(self.bank.names)))
        starts = np.cumsum(lengths) - lengths
        return self.bank.lookup.sums(np.concatenate(tokens), starts) / lengths[:, None]

    @property
    def _by(self) -> Screen | None:
        if not self.exact and self.bank.screen is not None and self.bank.bigrams:
            try:
                _ = self.bank.lookup
            except UserError as error:  # too large for this memory
                logging.warning("%s; all experts score", printable(str(error)))
                self.exact = True
        return None if self.exact else self.bank.screen

    def _screen(self, residuals, lengths, tokens) -> screen.Verdicts:
        said = screen.decide(
            self._by, self.bank.names, residuals, lengths // self.bank.window, self.options.alpha
        )
        certain = said.certain.copy()
        if self.options.tra != "none":
            certain[:] = False
        for d in np.flatnonzero(certain):
            certain[d] = has_content(self.bank.tokenizer, tokens[d])
        candidates = said.candidates.copy()
        if len(self.bank.names) > 1:  # known or not is also a question of the lead of the second
            second = np.argsort(residuals, axis=1, kind="stable")[:, 1]
            left = np.flatnonzero(~certain)
            candidates[left, second[left]] = True
        return screen.Verdicts(candidates, certain)

    def _looks(self, documents: list[Windows]) -> list[Look | None]:
        """The windows by which each document may be known; none where all are to be scored."""
        if self._by is None or self.options.tra != "none" or self.options.alpha > self._by.alpha:
            return []
        lengths = np.concatenate([x.mask.sum(-1) for x in documents])
        ids = np.concatenate([x.tokens[x.mask] for x in documents])
        nats = self.bank.lookup.sums(ids, np.cumsum(lengths) - lengths)
        cuts = np.cumsum([len(x) for x in documents])[:-1]
        parts = zip(np.split(nats, cuts), np.split(lengths, cuts), strict=True)
        return [look(own, length, self.bank.window) for own, length in parts]

    def _certain(self, residuals, tokens: int) -> Route:
        order = np.argsort(residuals, kind="stable")
        nearest = self.bank.names[order[0]]
        return Route(
            expert=nearest,
            nearest=nearest,
            margin=float(residuals[order[1]] - residuals[order[0]]) if len(order) > 1 else np.inf,
            residuals={},
            p_values={},
            windows=-(-tokens // self.bank.window),
            tokens=tokens,
            bigrams=self._by_name(residuals),
            decided_by=BIGRAMS,
        )

    def _experts(self):
        with self._making:
            if self._scorer is None:
                from cr_jax.routing.chosen import Scorer
                from cr_jax.routing.ready import Experts

                experts = Experts(self.bank.names, self.bank.bigrams, self.load)
                self._scorer = Scorer(experts, self.options, self.sizes)
        return self._scorer

    def _by_name(self, values) -> dict[str, float]:
        return dict(zip(self.bank.names, map(float, values), strict=True))


class _Round(NamedTuple):
    """Texts that have been begun: what waits for their answers, and what that waits for."""

    answers: Callable[[], list[Answer]]
    scored: Future | None = None  # of a `chosen.Routed`

    def done(self) -> bool:
        scored = self.scored
        if scored is None:
            return True
        return scored.done() and (scored.exception() is not None or scored.result().done())

    def cancel(self) -> None:
        if self.scored is not None:
            self.scored.cancel()
