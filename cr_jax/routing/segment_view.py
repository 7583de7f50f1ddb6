"""What is shown of a text that was cut: its beginning token by token, and counts of all of it.

Not in the paper.  Letter: T tokens.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, Int32

from cr_jax.data.tokenizers.token_table import Tokenizer
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
