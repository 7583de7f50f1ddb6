"""Whether a text holds anything to judge: more than white space, and more than one thing repeated.

A residual cannot say it: an expert whose own text has blank lines predicts a text of nothing else
as well as usual.  Not in the paper.
"""

import collections
import unicodedata

import numpy as np
from jaxtyping import Integer

from cr_jax.data.tokenizers.token_table import Tokenizer
from cr_jax.data.windows import Windows

BLANK = "only white space and control characters"
REPEATED = "one token or character repeated"
EDGES = 2  # tokens beside a repeated one: a tokenizer cuts a text's beginning and end otherwise
REPEATS = 8  # of a token, from which a text that is little else is a repetition


class Content:
    """What the windows of one document hold so far; once there is enough to judge, it looks at no
    more of them, so that texts of any length cost one look at their first windows."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._characters: set[str] = set()
        self._tokens: collections.Counter[str | int] = collections.Counter()
        self._before = np.zeros(0, np.int32)  # the last tokens: a character may start there

    def add(self, windows: Windows) -> None:
        """Adds windows [B, L], which may end inside a character."""
        for tokens, mask in zip(windows.tokens, windows.mask, strict=True):
            # Neither number ever falls: what comes later cannot take back that there is enough.
            if len(self._characters) > 1 and self._others() > EDGES:
                return
            self._add(tokens[mask])

    def _add(self, ids: Integer[np.ndarray, " T"]) -> None:
        seen = np.concatenate([self._before, ids[ids < self._tokenizer.vocab_size]])
        self._before = seen[-3:]  # a character has at most four bytes
        cut = self._tokenizer.decode(seen).strip("\ufffd")
        self._characters |= {c for c in set(cut) if not _blank(c)}
        for i, count in zip(*(x.tolist() for x in np.unique(ids, return_counts=True)), strict=True):
            text = self._text(i)
            if not text:  # unknown characters, ids that no text has: neither blank nor alike
                self._characters.add(f"<{i}>")
            # Parts of characters all decode to the same sign, though they differ.
            whole = text and "\ufffd" not in text
            kind = "".join(c for c in text if not _blank(c)) if whole else i
            if kind != "":
                self._tokens[kind] += count

    @property
    def lacking(self) -> str:
        """Why there is nothing to judge, `BLANK` or `REPEATED`; empty when there is something.

        Repeated: no more than one character beside white space, or one token, `REPEATS` times or
        more, and at most `EDGES` other tokens.  White space makes no other token: " the" repeats
        "the".
        """
        if not self._characters:
            return BLANK
        most = max(self._tokens.values(), default=0)
        repeated = most >= REPEATS and self._others() <= EDGES
        return REPEATED if repeated or len(self._characters) == 1 else ""

    def _others(self):
        return self._tokens.total() - max(self._tokens.values(), default=0)

    def _text(self, i: int) -> str:
        known = i < self._tokenizer.vocab_size
        return self._tokenizer.decode(np.array([i], np.int32)) if known else ""


def _blank(character: str) -> bool:
    """Whether it is white space or shows nothing: controls, zero-width characters."""
    return character.isspace() or unicodedata.category(character) in ("Cc", "Cf")


def has_content(tokenizer: Tokenizer, ids: Integer[np.ndarray, " T"]) -> bool:
    """Whether a few tokens already show that there is something to judge; False: look closer."""
    few = ids[:256]
    characters = {c for c in set(tokenizer.decode(few)) if c != "\ufffd" and not _blank(c)}
    kinds = set()
    for i in np.unique(few):
        text = tokenizer.decode(np.array([i]))
        kinds.add(i if "\ufffd" in text else "".join(c for c in text if not _blank(c)))
        if len(kinds - {""}) > EDGES + 1:
            return len(characters) > 1
    return False
