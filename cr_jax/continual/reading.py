"""A document's text, or why it is passed over.  Not in the paper."""

import hashlib
import os
from pathlib import Path
from typing import Any

from cr_jax.continual.buffer import key_of
from cr_jax.data.encodings import NotText
from cr_jax.data.text_form import Form, text_form
from cr_jax.errors import UserError
from cr_jax.routing.rounds import LARGE, Large
from cr_jax.routing.rounds import read as read_text


class Skipped(UserError):
    """What cannot be routed; key: which it is, so that it is said once."""

    def __init__(self, name: str, why: str):
        super().__init__(why)
        self.key = hashlib.sha256(f"{name}\n{why}".encode("utf-8", "replace")).hexdigest()


class Postponed(UserError):
    """A file that goes or changes while it is read."""


def read(name: str, text: Any, form: Form) -> tuple[str, str]:
    """-> (the document's key, its text in the bank's form).  Raises `Skipped`, `Postponed`."""
    before = _state(text)
    given = read_text(text)
    if before != _state(text):
        raise Postponed("it changes while it is read")
    if isinstance(given, Large):
        raise Skipped(name, f"it is longer than {LARGE:,} characters: split it")
    try:
        if isinstance(given, UserError):
            raise given
        formed = text_form(given, form)
        key = key_of(formed)
    except NotText:
        raise Skipped(name, "it is no text") from None
    except UserError as error:
        raise Skipped(name, str(error)) from None
    if not formed.strip():
        raise Skipped(name, "it is empty")
    return key, formed


def _state(text: Any) -> tuple[int, ...]:
    """What of a file changes when it is written.  `Postponed` where it is gone."""
    if not isinstance(text, Path):
        return ()
    try:
        found = os.stat(text)
    except OSError:
        raise Postponed("it is gone, or cannot be read now") from None
    return found.st_ino, found.st_size, found.st_mtime_ns
