"""What `cr-jax route` of many files reads: files, folders, and documents in streams."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cr_jax.cli.inputs import text_of
from cr_jax.data.folders import Wanted, files_below
from cr_jax.errors import UserError

PIECE = 1 << 16
NULL_MOST = 1 << 27  # bytes of a document between NULs, as of a JSON line


@dataclasses.dataclass
class Document:
    """What is routed: its name for people, its text or what is wrong with it, and its JSON line.

    found: it lies in a folder that was named, where what is not text is passed over."""

    name: str
    text: Any
    line: bytes | None = None
    found: bool = False


def documents(args) -> Iterator[Document]:
    """Everything that was named, in order."""
    for name in args.files:
        if args.jsonl or args.null:
            yield from _separated(name, args)
        elif name != "-" and os.path.isdir(name):
            wanted = Wanted(args.include, args.exclude, args.gitignore)
            empty = True
            for path in files_below(Path(name), wanted):
                empty = False
                if isinstance(path, UserError):
                    yield Document(name, path)
                else:
                    yield Document(str(path), path, found=True)
            if empty:
                yield Document(name, UserError(f"the folder {name} holds no such file"))
        else:
            yield Document(name, text_of(name) if name == "-" else Path(name))


def _separated(name: str, args) -> Iterator[Document]:
    """The documents of one input, numbered from 1."""
    field = "text" if args.field is None else args.field
    try:
        if args.jsonl:
            from cr_jax.data import records, splicing

            path = Path("/dev/stdin" if name == "-" else name)
            for number, line, record in records.each_line(path, field, name=name):
                where = f"{name}:{number}"
                if isinstance(record, UserError):
                    yield Document(where, record)
                    continue
                try:
                    text = records.text_of(record, field, where)
                    if not args.csv:
                        splicing.check(line, "route", where)
                except UserError as error:
                    text = error
                yield Document(where, text, None if args.csv else line)
        else:
            for number, text in enumerate(_between_nuls(name), 1):
                yield Document(f"{name}:{number}", text)
    except UserError as error:
        yield Document(name, error)


def _between_nuls(name: str) -> Iterator[str | UserError]:
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb") as file:
            document, size = bytearray(), 0
            while block := file.read1(PIECE):
                for place, part in enumerate(block.split(b"\0")):
                    if place:  # a NUL stands before it
                        yield _utf8(document, size)
                        document, size = bytearray(), 0
                    size += len(part)
                    if size <= NULL_MOST:
                        document += part
            if size:
                yield _utf8(document, size)
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}") from None


def _utf8(data: bytearray, size: int) -> str | UserError:
    """size: of the document, in bytes; data: all of it, unless that is too much."""
    if size > NULL_MOST:
        return UserError(f"a document is longer than {NULL_MOST:,} bytes: split it")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        return UserError(f"a document is not UTF-8: bad byte at its offset {error.start}")
