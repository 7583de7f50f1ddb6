"""How a bank reads text: its tokenizer and the form of its text.  Without JAX."""

from typing import Any

from cr_jax.bank.files import TOKENIZER, TOKENIZER_MOST, BankFolder
from cr_jax.data.text_form import FORMS, LF_NFC, Form
from cr_jax.errors import UserError


def read_tokenizer(files: BankFolder, verify: bool = True) -> Any:
    """The bank's tokenizer.  `UserError` when it is not the one that bank.json names, also, with
    `verify`, by the SHA-256 of each of its files."""
    from cr_jax.data.tokenizers import read_tokenizer as read  # slow to import with all its kinds

    place = files.path / TOKENIZER
    folder = files.inside.folder(TOKENIZER)
    unchecked = lambda name: folder.read(name, TOKENIZER_MOST)
    tokenizer = read(files.tokenizer_file if verify else unchecked, place)
    if verify:
        for name in files.index["tokenizer_files"]:
            files.tokenizer_file(name)
    if tokenizer.fingerprint != files.index["tokenizer"]:
        raise UserError(
            f"{place} is not the tokenizer that the experts were "
            "trained with (its fingerprint differs): restore it from a copy"
        )
    return tokenizer


def text_form(files: BankFolder) -> Form:
    """`UserError` for a form of a later version.

    Banks written before there was a choice were trained on text as it came, nearly all of which has
    the form "lf_nfc", which changes nothing in it.
    """
    form = files.index.get("text_form", LF_NFC)
    if form not in FORMS:
        raise UserError(
            f"{files.path / 'bank.json'} reads text in the form {form!r}, this version "
            f"knows {' and '.join(FORMS)}: upgrade cr_jax"
        )
    return form
