"""What is shown of a text that was cut: its beginning token by token, and counts of all of it.

Not in the paper.  Letter: T tokens.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int32

from cr_jax.data.tokenizers.token_table import Tokenizer
from cr_jax.routing.result import Route
from cr_jax.routing.segment import Segment

MOST_TOKENS = 20_000  # about 60 kB of text: a page of it opens at once on a phone
MOST_SPANS = 400


class SegmentView:
    """Watches `routing.segment.segments`: `read` is its `on_tokens`, its spans pass `watch`.

    Keeps the first `MOST_TOKENS` tokens and `MOST_SPANS` spans, whatever the length of the text.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.first: list[Segment] = []
        self.count, self.tokens = 0, 0  # spans and tokens of the whole text
        self.of: dict[str | None, tuple[int, int]] = {}  # expert or None: (spans, tokens)
        self._ids: list[Int32[np.ndarray, " T"]] = []
        self._nats: list[Float[np.ndarray, " T"]] = []
        self._kept = 0

    def read(self, ids: Int32[np.ndarray, " T"], nats: Float[np.ndarray, " T"]) -> None:
        room = MOST_TOKENS - self._kept
        if room > 0:
            # Copies: a slice would keep the whole block in memory.
            self._ids.append(ids[:room].copy())
            self._nats.append(nats[:room].copy())
            self._kept += len(self._ids[-1])

    def watch(self, found: Iterable[Segment]) -> Iterator[Segment]:
        for span in found:
            if self.count < MOST_SPANS:
                self.first.append(span)
            self.count, self.tokens = self.count + 1, span.end
            spans, tokens = self.of.get(span.expert, (0, 0))
            self.of[span.expert] = (spans + 1, tokens + span.end - span.start)
            yield span

    @property
    def shown(self) -> int:
        """Tokens of the beginning that is kept: whole spans, but for the last."""
        return min(self._kept, self.first[-1].end) if self.first else 0

    @property
    def spans(self) -> list[Segment]:
        """Those that begin in what is shown."""
        return [span for span in self.first if span.start < self.shown]

    @property
    def nats(self) -> Float[np.ndarray, " T"]:
        """What each token that is shown costs the expert of its span, as the cut was made."""
        return np.concatenate([*self._nats, np.zeros(0)])[: self.shown]

    @property
    def text(self) -> str:
        """The text that is shown, in the form that the bank reads."""
        ids = np.concatenate([*self._ids, np.zeros(0, np.int32)])[: self.shown]
        # Of a character that the end cuts nothing is shown.
        return self.tokenizer.to_bytes(ids).decode("utf-8", "ignore")

    def stored(self) -> dict[str, Any]:
        """What is shown, as JSON holds it; `StoredView.of_record` reads it."""
        return {
            "text": self.text,
            "nats": [round(float(x), 3) for x in self.nats],
            "spans": [_plain(span) for span in self.spans],
        }


@dataclasses.dataclass(frozen=True)
class StoredView:
    """A `SegmentView` of a whole text that was stored: what a page shows of it."""

    text: str
    nats: Float[np.ndarray, " T"]
    spans: Sequence[Segment]

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "StoredView":
        """From `SegmentView.stored`; KeyError, TypeError or ValueError where it is none."""
        nats = np.asarray(record["nats"], np.float64)
        spans = [_segment(row) for row in record["spans"]]
        edges = [0, *(span.end for span in spans)]
        if [span.start for span in spans] != edges[:-1] or edges[-1] < len(nats) or not len(nats):
            raise ValueError("spans must follow one another and cover the tokens")
        return cls(str(record["text"]), nats, spans)

    @property
    def shown(self) -> int:
        return len(self.nats)

    @property
    def tokens(self) -> int:
        return len(self.nats)

    @property
    def count(self) -> int:
        """Spans."""
        return len(self.spans)

    @property
    def of(self) -> dict[str | None, tuple[int, int]]:
        """{expert or None: (spans, tokens)}."""
        found: dict[str | None, tuple[int, int]] = {}
        for span in self.spans:
            spans, tokens = found.get(span.expert, (0, 0))
            found[span.expert] = (spans + 1, tokens + min(span.end, self.shown) - span.start)
        return found


def _plain(span: Segment) -> dict[str, Any]:
    route = span.route
    finite = lambda x: float(x) if x is not None and math.isfinite(x) else None
    return {
        "start": span.start,
        "end": span.end,
        "characters": list(span.characters),
        "lines": list(span.lines),
        "expert": span.expert,
        "nearest": span.nearest,
        "reason": route.reason,
        "residual": finite(route.residuals[span.nearest]),
        "p_value": finite(route.p_values[span.nearest]),
        "margin": finite(span.margin),
        "saved": finite(span.saved),
    }


def _segment(row: Mapping[str, Any]) -> Segment:
    number = lambda key, missing: missing if row[key] is None else float(row[key])
    margin, nearest, start, end = (
        number("margin", math.inf),
        row["nearest"],
        row["start"],
        row["end"],
    )
    route = Route(
        row["expert"],
        nearest,
        margin,
        {nearest: number("residual", math.nan)},
        {nearest: number("p_value", math.nan)},
        windows=0,
        tokens=end - start,
        reason=row["reason"],
    )
    pair = lambda key: (int(row[key][0]), int(row[key][1]))
    saved = None if row["saved"] is None else float(row["saved"])
    return Segment(int(start), int(end), pair("characters"), pair("lines"), route, margin, saved)
