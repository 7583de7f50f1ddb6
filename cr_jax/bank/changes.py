"""Changes of a stored bank that load no bank: an expert of another one, or language models alone,
another penalty."""

import dataclasses
import os
from collections.abc import Callable

from absl import logging

from cr_jax import config
from cr_jax.bank import expert_folder, parameters
from cr_jax.bank.expert import LanguageModels
from cr_jax.bank.files import BankFolder, check_name, consistent, readable
from cr_jax.bank.headers import stored_dtype
from cr_jax.bank.language_models import read_seed, store_lms
from cr_jax.bank.manifest import LM, MANIFEST, read_manifest
from cr_jax.bank.settings import check_vocabulary, read_settings, read_tokenizer, stored_lm
from cr_jax.errors import UserError
from cr_jax.host.files import expanded
from cr_jax.host.inside import Inside


def import_expert(
    bank_folder: str | os.PathLike,
    source: str | os.PathLike,
    name: str | None = None,
    say: Callable[[str], None] = logging.warning,
) -> str:
    """Copies an expert's folder, of another bank say, into a bank; -> its name there.

    name: None takes the folder's; say: is told what was in the way and set aside.  Its language
    model goes along, and is the first of a bank that has none.  All or nothing.  `UserError` when a
    byte of it was changed, or its tokenizer, shapes or those of its language model are not the
    bank's, or the name is taken.
    """
    files, source = BankFolder(bank_folder), expanded(source)
    name = check_name(source.resolve().name if name is None else name)
    if not os.path.isfile(source / MANIFEST):  # pathlib raises for names too long
        what = "is a bank" if os.path.isfile(source / "bank.json") else f"has no {MANIFEST}"
        raise UserError(
            f"no expert at {source}: it {what}; give the folder of one expert, as in "
            "BANK/experts/NAME"
        )
    with readable(source):
        folder = Inside.at(source)
    with folder:
        take(files, folder, name)
    for note in files.notes:
        say(note)
    return name


def take(files: BankFolder, source: Inside, name: str) -> None:
    """Copies an open expert's folder into a bank, as `import_expert`."""
    with files.adding(name) as draft:
        settings = read_settings(files)
        try:
            expert_folder.copy_manifest(source, draft)
            raw = read_manifest(draft).lm
            if raw is not None and settings.lm is None:
                lm = stored_lm(draft.path / MANIFEST, raw)
                check_vocabulary(lm, settings.model, read_tokenizer(files).vocab_size)
                settings = dataclasses.replace(settings, lm=lm)
            expert_folder.copy_files(source, draft, settings)
            expert_folder.read_expert(name, draft, settings, seals=(draft.sha256(MANIFEST),))
        except UserError as error:
            raise UserError(str(error).replace(str(draft.path), str(source.path))) from error


def import_lms(
    bank_folder: str | os.PathLike, source: str | os.PathLike, dtype: str = ""
) -> LanguageModels:
    """Gives a bank's experts the language models of another bank's experts of the same names, and
    the bank its seed; -> what was given.

    source: a bank, or the workdir of the run that wrote one.  dtype: as of `store_lms`; empty: as
    the source stores them.  The experts' other files keep their bytes, and what is stored already
    is left alone.  `UserError` when the source has no language models, none of these experts,
    another tokenizer, or changed bytes, and what `store_lms` raises.
    """
    files, folder = BankFolder(bank_folder), expanded(source)
    inner = folder / "bank"
    given = inner if os.path.isfile(inner / "bank.json") else folder
    models, stored = consistent(given, lambda given: _given_lms(given, files))
    store_lms(files.path, models, dtype or stored)
    return models


def _given_lms(given: BankFolder, files: BankFolder) -> tuple[LanguageModels, str]:
    """Language models for the experts of `files`, and how they are stored."""
    if given.index["tokenizer"] != files.index["tokenizer"]:
        raise UserError(
            f"the language models of {given.path} read the tokens of another tokenizer: train them "
            f"with config.tokenizer.folder={files.path / 'tokenizer'}"
        )
    settings = read_settings(given)
    have = [n for n in given.names if given.sealed_expert(n).manifest.lm is not None]
    if settings.lm is None or not (have or given.seed):
        raise UserError(f"{given.path} has no language models to give")
    taken = [n for n in have if n in files.names]
    if have and not taken:
        raise UserError(
            f"the language models of {given.path} are of {', '.join(have)}, and the bank has other "
            f"experts: {', '.join(files.names) or 'none yet'}"
        )
    first, seed = read_seed(given, settings), given.sealed_seed()
    found = {n: parameters.read(given.sealed_expert(n), LM, settings.lm) for n in taken}
    sealed = given.sealed_expert(taken[0]) if taken else seed
    assert sealed is not None, "without one there is a seed, or nothing to give"
    return LanguageModels(settings.lm, first, found), stored_dtype(sealed.folder, LM)


def set_typicality_weight(bank_folder: str | os.PathLike, weight: float) -> None:
    """Changes how a stored bank ranks experts (`config.Scoring.typicality_weight`).

    Only bank.json is written: experts and their calibrations keep their bytes.  `UserError` when
    there is no bank, or the weight is not finite or below 0.  Not in the paper.
    """
    files = BankFolder(bank_folder)
    settings = read_settings(files)
    rule = dataclasses.replace(settings.scoring, typicality_weight=float(weight))
    config.check_scoring(rule, settings.model)
    files.set_scoring(config.to_dict(rule))
