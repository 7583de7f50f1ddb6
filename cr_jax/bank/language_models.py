"""Language models in a bank: files beside each expert's others, and the seed's folder.

A bank that is there gets them without a moment at which an expert cannot be read: the files come
first, then bank.json admits the manifests to come beside those that are, then these are replaced,
last bank.json admits the new ones alone.  Not in the paper.
"""

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from cr_jax import config
from cr_jax.bank import cascade_file, own_documents_file, parameters, removal, screen_file
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
from cr_jax.host.files import sealed
from cr_jax.host.inside import Inside, draft_name


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


def read_seed(files: BankFolder, settings: BankSettings, verify: bool = True) -> Any:
    """Parameters of the language models' seed; None where there is none.

    verify: every byte that is read is compared with its SHA-256."""
    if files.seed is None:
        return None
    found = files.sealed_seed(verify)
    assert found is not None
    if found.manifest.lm is None:
        raise UserError(f"{files.seed / MANIFEST} lists no language model: write the bank again")
    check_stored_lm(files.seed, found.manifest.lm, settings)
    assert settings.lm is not None
    return parameters.read(found, LM, settings.lm)


def store_lms(folder: str | os.PathLike, models: LanguageModels, dtype: str = "float32") -> None:
    """Gives experts of a stored bank their language models, and the bank its seed.

    Every expert can be read at every moment, and a call that was cut short is done again by the
    same call.  dtype: as of `ExpertBank.add`.  `UserError` when one does not fit the bank, belongs
    to no expert of it, or another one is stored already.  Not in the paper.
    """
    parameters.check_dtype(dtype)
    files = BankFolder(folder)
    _check_fit(files, models)
    with writable(files.path), files.changing(), contextlib.ExitStack() as drafts:
        _check_fit(files, models)
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
    files.tell()


def _check_fit(files: BankFolder, models: LanguageModels) -> None:
    check_language_models(models, read_settings(files), read_tokenizer(files).vocab_size)
    for name in models.experts:
        files.expert(name)


def _settle(files: BankFolder) -> None:
    """bank.json admits one manifest of each expert: the one that is there."""
    experts, moved = {}, {}
    for name, entry in files.index["experts"].items():
        there = files.open_expert(name).sha256(MANIFEST) if "resealed" in entry else None
        experts[name] = {k: v for k, v in entry.items() if k != "resealed"}
        if there is not None and there == entry["resealed"]:
            experts[name]["sha256"] = moved[entry["sha256"]] = there
    if experts != files.index["experts"]:
        cascade_file.reseal(files.inside, moved)
        screen_file.reseal(files.inside, moved)
        own_documents_file.reseal(files.inside, moved)
        files.replace({**files.index, "experts": experts})


class _Writer:
    """Files beside their places, and the renames that put them there."""

    def __init__(
        self, files: BankFolder, shape: Mapping[str, Any], dtype: str, drafts: contextlib.ExitStack
    ):
        self.files, self.shape, self.dtype, self._drafts = files, shape, dtype, drafts
        self._files: list[tuple[Inside, str, str]] = []  # folder, draft, name
        self._manifests: list[tuple[Inside, str, str]] = []

    def seed(self, params: Any) -> dict[str, Any]:
        """-> the field of bank.json that names the seed's folder."""
        bank, hidden = self.files.inside, draft_name(SEED)
        self._drafts.callback(removal.delete_draft, bank, hidden)
        draft = bank.new_folder(hidden)
        draft.write(LM, parameters.dumps(params, self.dtype))
        seal = write_manifest(draft, self.files.index["tokenizer"], self.shape, needed=())
        there = self.files.sealed_seed()
        if there is None:
            self._files.append((bank, hidden, SEED))
            return {SEED: {"sha256": seal}}
        if there.manifest.files[LM] != draft.sha256(LM):
            raise UserError(
                f"the bank {self.files.path} has another seed of its language models already: "
                "train a bank anew to give it another"
            )
        return {SEED: self.files.index[SEED]}

    def expert(self, name: str, params: Any) -> str | None:
        """-> the SHA-256 of the manifest to come; None where all is as it shall be."""
        folder = self.files.open_expert(name)
        removal.sweep_files(folder, (LM, MANIFEST))
        draft = folder.draft(LM, parameters.dumps(params, self.dtype))
        self._drafts.callback(folder.delete, draft)
        old, digest = read_manifest(folder), folder.sha256(draft)
        if LM in old.files:
            if old.files[LM] == digest:
                return None
            raise UserError(
                f"expert {name!r} of {self.files.path} has another language model already: remove "
                "the expert and add it with the new one"
            )
        new = Manifest({**old.files, LM: digest}, old.fingerprint, self.shape)
        hidden = folder.draft(MANIFEST, sealed(new.sealed()))
        self._drafts.callback(folder.delete, hidden)
        self._files.append((folder, draft, LM))
        self._manifests.append((folder, hidden, MANIFEST))
        return folder.sha256(hidden)

    def place_files(self) -> None:
        """Nothing names them yet: what lies in their places is of a call that was stopped, or
        nobody's."""
        for folder, draft, name in self._files:
            if folder.has(name) and not self._is_same(folder, draft, name):
                self.files.notes.append(removal.set_aside(self.files.inside, folder, name))
            folder.rename(draft, name)

    def _is_same(self, folder: Inside, draft: str, name: str) -> bool:
        """Whether the bytes in the place are those of the draft; a folder is then deleted."""
        if name == SEED:
            seal = folder.folder(draft).sha256(MANIFEST)
            return removal.delete_sealed(folder, name, (seal,), ())
        return folder.is_file(name) and folder.sha256(name) == folder.sha256(draft)

    def place_manifests(self) -> None:
        """bank.json admits them already."""
        for folder, draft, name in self._manifests:
            folder.rename(draft, name)
