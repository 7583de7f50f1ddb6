"""Text files, streamed or whole.  Not in the paper."""

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from cr_jax.data import file_position
from cr_jax.data.encodings import as_utf8, decoded
from cr_jax.data.unpacking import Damaged
from cr_jax.errors import UserError, turning

PIECE_BYTES = 1 << 20


def read_text(path: str | os.PathLike) -> Iterator[str]:
    """Streams a user's text file (`-` is standard input) in pieces of at most 1 MiB.

    UTF-8, or UTF-16 or UTF-32 with a byte order mark, which is a character of the text.

    Pieces end at a line's end where there is one in their second half, else between two characters;
    together they are exactly the file, line ends included.
    UserError for a file that is missing, empty, binary (a NUL byte) or in another encoding: it
    names the file and, for the last two, the byte offset. Pieces before it may be out by then.
    """
    name = "standard input" if str(path) == "-" else str(path)
    if str(path) == "-":
        if sys.stdin is None:
            raise UserError("standard input is closed; give a file, or text through a pipe")
        yield from _pieces(sys.stdin.buffer, name)
        return
    with opened(Path(path)) as stream:
        yield from _pieces(stream, name)


def _pieces(raw, name: str) -> Iterator[str]:
    carry, offset = b"", 0
    with readable(name):
        stream = as_utf8(raw)
    while True:
        with readable(name):
            # As it comes: what is read from a pipe need not wait for the rest.
            block = stream.read1(PIECE_BYTES - len(carry))
        data = carry + block
        if not block:
            break
        cut = data.rfind(b"\n") + 1
        if cut <= len(data) // 2:
            cut = len(data)
            while cut > len(data) - 4 and cut > 0 and not _whole(data[:cut]):
                cut -= 1
        if cut:
            yield decoded(data[:cut], name, offset)
        offset += cut
        carry = data[cut:]
    if data:
        yield decoded(data, name, offset)
    elif offset == 0:
        raise UserError(f"{name} is empty; give a file with text")


def _whole(data: bytes) -> bool:
    """Whether `data` does not stop inside a UTF-8 character."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            need = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back >= need
    return True


def whole_file(path: Path, most: int) -> str:
    """A text file's text.  `UserError` as in `read_text`, or when it has more than `most` bytes."""
    with opened(path) as raw, readable(str(path)):
        data = as_utf8(raw).read(most + 1)
    if len(data) > most:
        raise UserError(
            f"{path} is longer than {most:,} bytes: split it into documents, or raise "
            "config.data.max_document_bytes"
        )
    return decoded(data, str(path))


def readable(name: str) -> turning:
    """`with readable(name):` turns what goes wrong while a file is read into a `UserError`."""

    def told(error: Damaged | OSError) -> UserError:
        if isinstance(error, Damaged):
            return UserError(error.line(name))
        return UserError(f"{name} cannot be read: {error.strerror or error}")

    return turning(told, Damaged, OSError)


def opened(path: Path) -> io.BufferedReader:
    """A file's bytes.  `UserError` when it is missing, a folder, or cannot be opened."""
    try:
        return file_position.opened(path)
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; give a file") from None
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
