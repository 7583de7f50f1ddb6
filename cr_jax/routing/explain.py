"""Why a text went where it went: the route and what every expert makes of every token.

The numbers are the router's own.  Not in the paper, which shows mean errors only.
Letters: E experts (as routing ranks them, nearest first), T tokens, S spans.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int32

from cr_jax.bank import ExpertBank
from cr_jax.config import SEEN, Scoring
from cr_jax.data.text_form import LF_NFC, WORDS, Form, formed
from cr_jax.data.text_stream import PIECE, parts, windows_of_text
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.router import route, score_tokens
from cr_jax.routing.cascade import Cascade
from cr_jax.routing.document import Text
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.other_rule import by_rule
from cr_jax.routing.result import SURPRISING, TOO_LOW, TOO_NEAR, Route
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.wording import Wording, wording

WINDOWS = 8  # of a text that are explained token by token


class Span(NamedTuple):
    """Tokens start..end (end left out) and their text: one token, or those of one character."""

    start: int
    end: int
    text: str


class TextSum(NamedTuple):
    """A piece of text, all its occurrences added up.

    nats: summed over its tokens, what it is ranked by; nearest and runner_up: mean residual in
    nats/token under these experts (runner_up NaN with one expert).
    """

    text: str
    count: int
    nats: float
    nearest: float
    runner_up: float


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """A route with the residual of every token by every expert.

    route: of the text; alpha: below it a p-value is unknown; names: the E experts, nearest first
    (lowest `Route.ranking_score`); tokens: ids of the first `windows` windows; nll: nats of each of
    them by each expert under the bank's scoring rule (the parts of a residual), rows as in
    `names`; spans: cover the tokens in order, and their texts joined are the text in the form that
    the bank reads, text_form; shortest: tokens below which the nearest expert has no p-value;
    scoring: the bank's rule.
    """

    route: Route
    alpha: float
    names: tuple[str, ...]
    tokens: Int32[np.ndarray, " T"]
    nll: Float32[np.ndarray, "E T"]
    spans: tuple[Span, ...]
    windows: int
    shortest: int
    scoring: Scoring = SEEN
    text_form: Form = LF_NFC

    @property
    def complete(self) -> bool:
        """Whether all tokens of the text are here, not only the first ones."""
        return len(self.tokens) == self.route.tokens

    @property
    def runner_up(self) -> str | None:
        """The expert that routing ranks second; None when there is just one."""
        return self.names[1] if len(self.names) > 1 else None

    @property
    def size(self) -> str:
        """The windows and tokens that were scored, and the form of the text, in words."""
        route = self.route
        total = route.windows if route.of_windows is None else route.of_windows
        of = "" if route.of_windows is None else f"{route.windows:,} of "
        return (
            f"{of}{total:,} window{'s' * (total != 1)}, "
            f"{route.tokens:,} token{'s' * (route.tokens != 1)}; "
            f"text read {WORDS[self.text_form]}"
        )

    @property
    def words(self) -> Wording:
        """What the experts do with the text, and what a residual counts."""
        return wording(self.scoring)

    @property
    def verdict(self) -> str:
        """The decision and its reason in one sentence."""
        route = self.route
        p = f"p = {route.p_values[route.nearest]:.3f}"  # not shown where it is NaN
        lowest = (
            "lowest residual with its penalty"
            if self.words.typicality_weight
            else "lowest residual"
        )
        lead = (
            f"{lowest} by {route.margin:.2f} nats/token"
            if self.runner_up
            else "the only expert"
            if route.bigrams is None
            else f"the only one of {len(route.bigrams)} experts that the bigram models left"
        )
        if route.nothing_to_judge:
            return f"unknown: nothing to judge, {route.reason}; nearest is {route.nearest} ({lead})"
        if route.reason == TOO_LOW:
            return (
                f"unknown: too predictable, there is less in it than in the own text of the "
                f"nearest expert, {route.nearest} ({lead}; {p}, below alpha = {self.alpha:g})"
            )
        if route.reason == TOO_NEAR:
            return (
                f"unknown: other experts need little more than the nearest, {route.nearest} "
                f"({lead}), which leads by more on its own text ({p}, below alpha = {self.alpha:g})"
            )
        if route.reason == SURPRISING:
            return (
                f"unknown: the nearest expert, {route.nearest} ({lead}), is further off than its "
                f"predictions say, and than on its own text ({p}, below alpha = {self.alpha:g})"
            )
        if route.expert is None:
            return (
                f"unknown: the nearest expert, {route.nearest} ({lead}), {self.words.verb} "
                f"{self.words.what} worse than usual for its own text ({p}, below alpha = "
                f"{self.alpha:g})"
            )
        if route.known is None:
            return (
                f"{route.nearest}: {lead}; {route.tokens} tokens are too few to say whether "
                f"that is usual for its own text (at least {self.shortest})"
            )
        return f"{route.nearest}: {lead}; usual for its own text ({p})"

    @property
    def witnesses(self) -> str:
        """What each witness says by itself, in a line; empty where none was measured."""
        each = ", ".join(f"{name} {p:.3f}" for name, p in self.route.witnesses.items())
        return f"among own documents of {self.route.nearest}, p of each: {each}" if each else ""

    def residuals(self) -> Float[np.ndarray, "E S"]:
        """Nats/token of each span by each expert."""
        return self._sums(self.nll) / self._lengths()

    def margins(self) -> Float[np.ndarray, " S"]:
        """Runner-up minus nearest, nats/token, of each span: positive speaks for the nearest.

        Weighted by its tokens, the mean over a complete text is the route's margin, but for the
        typicality penalty, which belongs to whole windows.  Zeros when there is just one expert.
        """
        if len(self.names) < 2:
            return np.zeros(len(self.spans))
        residuals = self.residuals()
        return residuals[1] - residuals[0]

    def by_text(self, by: str = "margin") -> list[TextSum]:
        """Every distinct span text, highest sum first.

        by: "margin" sums runner-up minus nearest (its end speaks against the nearest expert);
        "residual" sums the nearest expert's nats.  `UserError` for anything else.
        """
        if by not in ("margin", "residual"):
            raise UserError(f"tokens are ranked by 'margin' or 'residual', not {by!r}")
        lengths, residuals = self._lengths(), self.residuals()
        ranked_by = (self.margins() if by == "margin" else residuals[0]) * lengths
        groups: dict[str, list[int]] = {}
        for i, span in enumerate(self.spans):
            groups.setdefault(span.text, []).append(i)

        def one(text, at):
            mean = np.sum(residuals[:, at] * lengths[at], -1) / lengths[at].sum()
            return TextSum(
                text,
                len(at),
                float(ranked_by[at].sum()),
                float(mean[0]),
                float(mean[1]) if len(mean) > 1 else float("nan"),
            )

        return sorted((one(*group) for group in groups.items()), key=lambda sums: -sums.nats)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types: the verdict, what experts are ranked by (`rule`), how much is here, and
        per token ids, text and nats.

        texts: of each span; spans: where each starts, in tokens; nll: {expert: [nats] * T}, null
        where a broken expert gives no number.
        """
        return {
            "verdict": self.verdict,
            "rule": self.words.ranking_score,
            "text_form": self.text_form,
            "alpha": self.alpha,
            "complete": self.complete,
            "windows": self.windows,
            "tokens": self.tokens.tolist(),
            "spans": [span.start for span in self.spans],
            "texts": [span.text for span in self.spans],
            "nll": {
                name: [round(x, 4) if math.isfinite(x) else None for x in row.tolist()]
                for name, row in zip(self.names, self.nll, strict=True)
            },
        }

    def _lengths(self):
        return np.array([span.end - span.start for span in self.spans])

    def _sums(self, values):
        return np.add.reduceat(values.astype(np.float64), [s.start for s in self.spans], axis=-1)


def explain(
    by: ExpertBank | Cascade,
    text: Text,
    options: RouteOptions | None = None,
    sizes: BatchSizes | None = None,
    windows: int = WINDOWS,
    on_block: Callable[[Windows], Any] | None = None,
) -> Explanation:
    """`router.route` of the text, and the residuals of the first `windows` windows that it scores.

    by: what routes; of a cascade the candidates are explained.  text, options, on_block: as in
    `route`, and TRA is measured for all; the text is taken once and in bounded memory.
    `UserError` as in `route`, or when `windows` is below 1.  Not in the paper.
    """
    options = dataclasses.replace(options or RouteOptions(), tra="all")
    if options.last_tokens:
        raise UserError("an explanation shows a text from its beginning: leave out last_tokens")
    bank = by.bank if isinstance(by, Cascade) else by_rule(by, options.rule)
    if windows < 1:
        raise UserError(f"at least one window is explained, got windows={windows}")
    size = windows * bank.model.window * int(bank.tokenizer.token_bytes.max())
    # PIECE more: the last piece of a cut text may be cut elsewhere than in the whole text, and so
    # have other tokens; all pieces that start before `size` are then whole.
    start = _Start(text, bank.text_form, size + PIECE)
    if isinstance(by, Cascade):
        answer = by.route(start, options, sizes, on_block)
        bank = bank.select(answer.residuals)
    else:
        answer = route(bank, start, options, sizes, on_block)
    block = next(
        windows_of_text(bank.tokenizer, start.kept, bank.model.window, min(windows, answer.windows))
    )
    names = answer.ranked
    rows = [bank.index(name) for name in names]
    tokens = block.tokens[block.mask]
    scores = score_tokens(bank, block, sizes)
    return Explanation(
        route=answer,
        alpha=float(options.alpha),
        names=names,
        tokens=tokens,
        nll=scores.residual[rows][:, block.mask],
        spans=tuple(_spans(start.kept, bank.tokenizer.token_bytes[tokens])),
        windows=len(block.tokens),
        shortest=min(bank.calibration[names[0]].residuals),
        scoring=bank.scoring,
        text_form=bank.text_form,
    )


class _Start:
    """The pieces of a text as they come, in a form; the first `size` characters are kept."""

    def __init__(self, text: Text, form: Form, size: int):
        self._text, self._form, self._size, self.kept = text, form, size, ""

    def __iter__(self) -> Iterator[str]:
        for part in formed(parts(self._text), self._form):
            self.kept += part[: max(0, self._size - len(self.kept))]
            yield part


def _spans(text: str, token_bytes) -> Iterator[Span]:
    """Tokens of `text`, joined where one ends inside a character: a piece of text each."""
    ends = np.cumsum(token_bytes)
    # A token has at most as many characters as bytes.
    data = text[: int(ends[-1])].encode()
    inner = [end < len(data) and data[end] & 0xC0 == 0x80 for end in ends]
    stops = [i + 1 for i, inside in enumerate(inner) if not inside]
    if not stops or stops[-1] < len(ends):  # the last window ends inside a character
        stops.append(len(ends))
    for start, end in itertools.pairwise([0, *stops]):
        first = int(ends[start - 1]) if start else 0
        yield Span(start, end, data[first : int(ends[end - 1])].decode("utf-8", "replace"))
