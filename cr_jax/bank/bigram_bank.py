"""A bank's bigram models alone, read without JAX and without the experts' parameters.

Not in the paper.
"""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

from cr_jax import config
from cr_jax.bank import bigram_file, screen_file
from cr_jax.bank.files import BankFolder, consistent
from cr_jax.bank.manifest import SealedFiles, read_manifest
from cr_jax.bank.screen_file import Screen
from cr_jax.bank.text_settings import read_tokenizer, text_form
from cr_jax.data.text_form import Form
from cr_jax.scoring.bigram_lookup import BigramLookup
from cr_jax.scoring.bigram_model import BigramModel


@dataclasses.dataclass(frozen=True, eq=False)
class BigramBank:
    """The experts' bigram models, in the order of the expert axis, and what reads text for them.

    bigrams: empty where an expert has none.  screen: where they decide without the experts; None:
    nowhere.
    """

    names: tuple[str, ...]
    bigrams: tuple[BigramModel, ...] = dataclasses.field(repr=False)
    tokenizer: Any  # cr_jax.data.tokenizers.Tokenizer
    window: int
    text_form: Form
    screen: Screen | None = None
    folder: Path | None = None

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "BigramBank":
        """Reads them from a bank's folder; every byte read is compared with its SHA-256.

        `UserError` when there is no bank, or a file is missing, was changed or cut short.
        """
        return consistent(folder, cls.of)

    @classmethod
    def of(cls, files: BankFolder) -> "BigramBank":
        """The same of a bank that is open."""
        model = config.model_config(files.index["model"])
        found = [_bigram(files, name, model.vocab_size) for name in files.names]
        bigrams = tuple(b for b in found if b is not None)
        return cls(
            files.names,
            bigrams if len(bigrams) == len(found) else (),
            read_tokenizer(files),
            model.window,
            text_form(files),
            screen_file.read_of(files),
            files.path,
        )

    @functools.cached_property
    def lookup(self) -> BigramLookup:
        return BigramLookup(self.bigrams)


def _bigram(files: BankFolder, name: str, vocab_size: int) -> BigramModel | None:
    folder = files.open_expert(name)
    sealed = SealedFiles(folder, read_manifest(folder, seals=files.seals(name)))
    sealed.check_fingerprint(files.index["tokenizer"])
    file = sealed.manifest.bigram
    if file is None:
        return None
    data = sealed.read(file, bigram_file.most_bytes(vocab_size))
    return bigram_file.loads(data, vocab_size, folder.path / file)
