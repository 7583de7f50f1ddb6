"""Text of any length -> blocks of token windows in bounded memory.

The blocks depend on the text only, not on how it arrives: a string and a streamed file with the
same characters give the same windows, hence the same route.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cr_jax.data.sources import read_text
from cr_jax.data.text_form import RAW, Form, formed
from cr_jax.data.windows import Windows, windows_of
from cr_jax.errors import UserError

PIECE = 1 << 16  # characters tokenised at a time


def windows_of_text(
    tokenizer: Any, text: Any, window: int, batch: int, form: Form = RAW
) -> Iterator[Windows]:
    """Blocks of `batch` windows of `window` tokens; the last block is smaller, its end padded.

    text: as in `parts`; form: that its tokens are made of (`data.text_form`).  Nothing is yielded
    for an empty text.  `UserError` when it holds half a character (a lone surrogate) that is not
    UTF-8 text.
    """
    size, waiting, count = window * batch, [], 0
    for piece in pieces(formed(parts(text), form)):
        try:
            ids = np.asarray(tokenizer.encode(piece), np.int32)
        except UnicodeEncodeError as error:
            raise UserError(
                "the text holds a lone surrogate, which is not UTF-8 text: decode the "
                "bytes with UTF-8 first"
            ) from error
        waiting.append(ids)
        count += len(ids)
        if count < size:
            continue
        ids = np.concatenate(waiting)
        whole = count - count % size
        for i in range(0, whole, size):
            yield windows_of(ids[i : i + size], window, tokenizer.pad_id)
        waiting, count = [ids[whole:]], count - whole
    if count:
        yield windows_of(np.concatenate(waiting), window, tokenizer.pad_id)


def parts(text: Any) -> Iterator[str]:
    """A text as it comes: a str is the text itself (never a path), an `os.PathLike` a UTF-8 file,
    read in pieces; anything else that is iterated over gives consecutive pieces.

    `UserError` for bytes, for what is no text at all, and where a file cannot be read as text.
    """
    if isinstance(text, str):
        yield text
        return
    if isinstance(text, os.PathLike):
        yield from read_text(text)
        return
    if isinstance(text, bytes | bytearray) or not isinstance(text, Iterable):
        raise UserError(
            f"a text is a str, a pathlib.Path to a file or pieces of str, not "
            f"{type(text).__name__}"
            + "; decode the bytes first"
            * isinstance(text, bytes | bytearray)
        )
    for part in text:
        if not isinstance(part, str):
            raise UserError(
                f"the pieces of a text are str, not {type(part).__name__}: open the "
                "file as text or decode the bytes"
            )
        yield part


def pieces(text: Any) -> Iterator[str]:
    """Cuts a text, however it arrives, into pieces of at most `PIECE` characters.

    A piece ends after the last line feed that it holds, or is full: the cuts are a function of
    the characters alone.
    """
    rest = ""
    for part in parts(text):
        rest, start = rest + part, 0
        while len(rest) - start > PIECE:
            cut = rest.rfind("\n", start, start + PIECE) + 1 or start + PIECE
            yield rest[start:cut]
            start = cut
        rest = rest[start:]
    if rest:
        yield rest
