"""Tokens that come one by one -> text: whole characters only, up to a stop."""

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cr_jax.errors import UserError


class Characters:
    """Text of tokens as they come.  A character of several tokens comes with its last one, and
    text that may begin a stop comes once it does not.

    The pieces joined are `tokenizer.decode` of all tokens, or of it what stands before the first
    stop.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()):
        self._tokenizer, self._stops = tokenizer, stops
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that is certain now; empty once a stop has come."""
        if self.stopped:
            return ""
        data = self._tokenizer.to_bytes(np.array([token]))
        return self._certain(self._decoder.decode(data))

    def end(self) -> str:
        """What was held back; a character that is not whole becomes U+FFFD."""
        if self.stopped:
            return ""
        text = self._certain(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        return text + held

    def _certain(self, more: str) -> str:
        text = self._held + more
        places = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if places:
            self.stopped, self._held = True, ""
            return text[: min(places)]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` that a stop begins with, not all of it."""
    most = min(len(text), len(stop) - 1)
    return next((n for n in range(most, 0, -1) if text.endswith(stop[:n])), 0)


def checked_stops(stops: Iterable[str] | str) -> tuple[str, ...]:
    """Stops as a tuple; a str is one.  `UserError` for an empty one or what is no text."""
    texts = (stops,) if isinstance(stops, str) else tuple(stops)
    for stop in texts:
        if not isinstance(stop, str) or not stop:
            raise UserError(f"a stop is a text of at least one character, not {stop!r}")
    return texts
