"""Texts, read in rounds: so many at a time that memory is bounded and the first answers come early.

Not in the paper.
"""

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from cr_jax.data.text_stream import parts
from cr_jax.errors import UserError

FIRST, LARGEST = 16, 256  # documents of a round: the first answers come early
ROUND = 1 << 20  # characters of a round, from which on it takes no more documents
LARGE = 1 << 22  # characters of a text that is read in pieces, and by all experts


class Large(NamedTuple):
    """A text that is not held in memory."""

    parts: Iterator[str]


def rounds(texts: Iterable[Any]) -> Iterator[list[Any]]:
    """Lists of texts that are read, each twice as long as the one before until it is `LARGEST`.

    A large text ends its round: its file is open, and its beginning held, until it is scored."""
    unread, most = iter(texts), FIRST
    while True:
        held, size = [], 0
        for text in itertools.islice(unread, most):
            held.append(read(text))
            size += len(held[-1]) if isinstance(held[-1], str) else 0
            if size >= ROUND or isinstance(held[-1], Large):
                break
        if not held:
            return
        yield held
        most = min(2 * most, LARGEST)


def read(text: Any) -> Any:
    """A text as a str, as `Large`, or what is wrong with it: the same for the same characters,
    however they arrive."""
    if isinstance(text, UserError):
        return text
    try:
        if not isinstance(text, str | os.PathLike | Iterator):
            raise UserError(
                f"a text is a str, a pathlib.Path or a generator of str, not {type(text).__name__}"
            )
        held, size, rest = [], 0, parts(text)
        for part in rest:
            held.append(part)
            size += len(part)
            if size > LARGE:
                return Large(itertools.chain(held, rest))
        return "".join(held)
    except UserError as error:
        return error
