"""The files a user names: checked before JAX starts."""

import argparse
import itertools
import os
import sys
from collections.abc import Iterator

from cr_jax.errors import UserError
from cr_jax.host.files import expanded


def path(word: str) -> str:
    """An argument that names a file or folder, `~` expanded: shells leave it in --bank=~/bank."""
    try:
        return os.fspath(expanded(word)) if word.startswith("~") else word
    except UserError as error:  # argparse would take it for any ValueError and drop the reason
        raise argparse.ArgumentTypeError(str(error)) from None


def text_of(name: str) -> Iterator[str]:
    """A file's text in pieces, - being standard input.  `UserError` also where reading fails."""
    from cr_jax.data.sources import read_text

    if name == "-" and (sys.stdin is None or getattr(sys.stdin, "closed", False)):
        raise UserError("standard input is closed; give a file, or text through a pipe")
    try:
        yield from read_text(name)
    except OSError as error:
        what = "standard input" if name == "-" else name
        raise UserError(f"{what} cannot be read: {error.strerror or error}") from None


def checked(name: str) -> str:
    """`name`; `UserError` for what its first 2 MB show: missing, a folder, empty, not text."""
    pipe = os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name)
    if name != "-" and not pipe:  # a pipe can be read only once
        for _ in itertools.islice(text_of(name), 2):
            pass
    return name


def whole_text(name: str):
    """The text in pieces, once all of it is known to be good: nothing is shown of a bad file."""
    if not os.path.isfile(name):
        return list(text_of(name))
    for _ in text_of(name):
        pass
    return text_of(name)


def check_page(path: str, files: list[str]) -> None:
    """`UserError` unless `path` can only be a page: a forgotten OUT must not cost a text."""
    if not path.lower().endswith((".html", ".htm")):
        raise UserError(f"--html writes a page: give it a name that ends in .html, not {path!r}")
    same = [
        f for f in files if os.path.exists(f) and os.path.exists(path) and os.path.samefile(f, path)
    ]
    if same:
        raise UserError(f"--html would overwrite {same[0]}, which is to be read: name another page")
    if os.path.isdir(path) or not os.path.isdir(os.path.dirname(path) or "."):
        raise UserError(f"--html cannot write {path}: name a file in a folder that exists")
