"""Language models in a bank: files beside each expert's others, and the seed's folder.

A bank that is there gets them without a moment at which an expert cannot be read: the files come
first, then bank.json admits the manifests to come beside those that are, then these are replaced,
last bank.json admits the new ones alone.  Not in the paper.
"""

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cr_jax import config
from cr_jax.bank import cascade_file, parameters
from cr_jax.bank.expert import LanguageModels
from cr_jax.bank.files import SEED, BankFolder, writable
from cr_jax.bank.fitting import whose_lm
from cr_jax.bank.manifest import LM, MANIFEST, Manifest, read_manifest, write_manifest
from cr_jax.bank.settings import (
    BankSettings,
    check_same_lm,
    check_stored_lm,
    check_vocabulary,
    read_settings,
    read_tokenizer,
)
from cr_jax.errors import UserError
from cr_jax.files import sha256, write_sealed


def check_language_models(models: LanguageModels, settings: BankSettings, pieces: int) -> None:
    """`UserError` unless they fit a bank whose tokenizer has so many pieces: vocabulary, shape,
    and parameters with finite numbers."""
    check_vocabulary(models.config, settings.model, pieces)
    if settings.lm is not None:
        check_same_lm("what is given", models.config, settings.lm)
    if models.seed is not None:
        parameters.check("the seed of the language models", models.seed, models.config)
    for name, params in models.experts.items():
        parameters.check(whose_lm(name), params, models.config)


def read_seed(files: BankFolder, settings: BankSettings) -> Any:
    """Parameters of the language models' seed; None where there is none."""
    if files.seed is None:
        return None
    manifest = read_manifest(files.seed, needed=())
    if manifest.lm is None:
        raise UserError(f"{files.seed / MANIFEST} lists no language model: write the bank again")
    check_stored_lm(files.seed, manifest.lm, settings)
    assert settings.lm is not None
    return parameters.read_finite(files.seed / LM, settings.lm)


def store_lms(folder: str | os.PathLike, models: LanguageModels, dtype: str = "float32") -> None:
    """Gives experts of a stored bank their language models, and the bank its seed.

    Every expert can be read at every moment, and a call that was cut short is done again by the
    same call.  dtype: as of `ExpertBank.add`.  `UserError` when one does not fit the bank, belongs
    to no expert of it, or another one is stored already.  Not in the paper.
    """
    parameters.check_dtype(dtype)
    files = BankFolder(folder)
    settings = read_settings(files)
    check_language_models(models, settings, read_tokenizer(files).vocab_size)
    for name in models.experts:
        files.expert(name)
    with writable(files.path), files.changing(), contextlib.ExitStack() as drafts:
        _settle(files)
        shape = files.index.get("lm") or config.to_dict(models.config)
        writer = _Writer(files, shape, dtype, drafts)
        named = {} if models.seed is None else writer.seed(models.seed)
        seals = {n: seal for n, p in models.experts.items() if (seal := writer.expert(n, p))}
        # All is written; what follows renames.
        writer.place_files()
        index = {**files.index, "lm": shape, **named}
        experts = files.index["experts"]
        to_come = {n: {**experts[n], "resealed": seal} for n, seal in seals.items()}
        files.replace({**index, "experts": {**experts, **to_come}})
        writer.place_manifests()
        _settle(files)


def _settle(files: BankFolder) -> None:
    """bank.json admits one manifest of each expert: the one that is there."""
    experts, moved = {}, {}
    for name, entry in files.index["experts"].items():
        there = sha256(files.expert(name) / MANIFEST) if "resealed" in entry else None
        experts[name] = {k: v for k, v in entry.items() if k != "resealed"}
        if there is not None and there == entry["resealed"]:
            experts[name]["sha256"] = moved[entry["sha256"]] = there
    if experts != files.index["experts"]:
        cascade_file.reseal(files.path, moved)
        files.replace({**files.index, "experts": experts})


class _Writer:
    """Files beside their places, and the renames that put them there."""

    def __init__(
        self, files: BankFolder, shape: Mapping[str, Any], dtype: str, drafts: contextlib.ExitStack
    ):
        self.files, self.shape, self.dtype, self._drafts = files, shape, dtype, drafts
        self._files: list[tuple[Path, Path]] = []
        self._manifests: list[tuple[Path, Path]] = []

    def seed(self, params: Any) -> dict[str, Any]:
        """-> the field of bank.json that names the seed's folder."""
        final = self.files.path / SEED
        draft = final.with_name(f".{SEED}.{os.getpid()}")
        self._drafts.callback(shutil.rmtree, draft, ignore_errors=True)
        shutil.rmtree(draft, ignore_errors=True)  # of a process that had our number
        draft.mkdir()
        parameters.write(draft / LM, params, self.dtype)
        write_manifest(draft, self.files.index["tokenizer"], self.shape, needed=())
        if self.files.seed is None:
            self._files.append((draft, final))
            return {SEED: {"sha256": sha256(draft / MANIFEST)}}
        if sha256(final / LM) != sha256(draft / LM):
            raise UserError(
                f"the bank {self.files.path} has another seed of its language models already: "
                "train a bank anew to give it another"
            )
        return {SEED: self.files.index[SEED]}

    def expert(self, name: str, params: Any) -> str | None:
        """-> the SHA-256 of the manifest to come; None where all is as it shall be."""
        folder = self.files.expert(name)
        draft, sealed = (folder / f".{file}.{os.getpid()}" for file in (LM, MANIFEST))
        for litter in (draft, sealed):
            self._drafts.callback(litter.unlink, missing_ok=True)
        parameters.write(draft, params, self.dtype)
        old, digest = read_manifest(folder), sha256(draft)
        if LM in old.files:
            if old.files[LM] == digest:
                return None
            raise UserError(
                f"expert {name!r} of {self.files.path} has another language model already: remove "
                "the expert and add it with the new one"
            )
        new = Manifest({**old.files, LM: digest}, old.fingerprint, self.shape)
        write_sealed(sealed, new.sealed())
        self._files.append((draft, folder / LM))
        self._manifests.append((sealed, folder / MANIFEST))
        return sha256(sealed)

    def place_files(self) -> None:
        """Nothing names them yet: what lies in their places is litter."""
        for draft, final in self._files:
            if final.is_dir():
                shutil.rmtree(final)
            os.replace(draft, final)

    def place_manifests(self) -> None:
        """bank.json admits them already."""
        for draft, final in self._manifests:
            os.replace(draft, final)
