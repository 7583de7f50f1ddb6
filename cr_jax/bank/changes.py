"""Changes of a stored bank that load no bank: an expert of another one, or language models alone,
another penalty."""

import dataclasses
import os

from cr_jax import config
from cr_jax.bank import parameters
from cr_jax.bank.expert import LanguageModels
from cr_jax.bank.expert_folder import copy_expert, read_expert
from cr_jax.bank.files import BankFolder, check_name
from cr_jax.bank.headers import stored_dtype
from cr_jax.bank.language_models import read_seed, store_lms
from cr_jax.bank.manifest import LM, MANIFEST, check_sealed, read_manifest
from cr_jax.bank.settings import check_vocabulary, read_settings, read_tokenizer, stored_lm
from cr_jax.errors import UserError
from cr_jax.files import expanded


def import_expert(
    bank_folder: str | os.PathLike, expert_folder: str | os.PathLike, name: str | None = None
) -> str:
    """Copies an expert's folder, of another bank say, into a bank; -> its name there.

    `name`: None takes the folder's.  Its language model goes along, and is the first of a bank
    that has none.  All or nothing.  `UserError` when a byte of it was changed, or its tokenizer,
    shapes or those of its language model are not the bank's, or the name is taken.
    """
    files, source = BankFolder(bank_folder), expanded(expert_folder)
    name = check_name(source.resolve().name if name is None else name)
    if not os.path.isfile(source / MANIFEST):  # pathlib raises for names too long
        what = "is a bank" if os.path.isfile(source / "bank.json") else f"has no {MANIFEST}"
        raise UserError(
            f"no expert at {source}: it {what}; give the folder of one expert, as in "
            "BANK/experts/NAME"
        )
    settings = read_settings(files)
    with files.adding(name) as draft:
        try:
            copy_expert(source, draft)
            check_sealed(draft, settings.fingerprint)
            raw = read_manifest(draft).lm
            if raw is not None and settings.lm is None:
                lm = stored_lm(draft / MANIFEST, raw)
                check_vocabulary(lm, settings.model, read_tokenizer(files).vocab_size)
                settings = dataclasses.replace(settings, lm=lm)
            read_expert(name, draft, settings)
        except UserError as error:
            raise UserError(str(error).replace(str(draft), str(source))) from error
    return name


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
    given = BankFolder(inner if os.path.isfile(inner / "bank.json") else folder)
    if given.index["tokenizer"] != files.index["tokenizer"]:
        raise UserError(
            f"the language models of {given.path} read the tokens of another tokenizer: train them "
            f"with config.tokenizer.folder={files.path / 'tokenizer'}"
        )
    settings = read_settings(given)
    have = [n for n in given.names if read_manifest(given.expert(n)).lm is not None]
    if settings.lm is None or not (have or given.seed):
        raise UserError(f"{given.path} has no language models to give")
    names = [n for n in have if n in files.names]
    if have and not names:
        raise UserError(
            f"the language models of {given.path} are of {', '.join(have)}, and the bank has other "
            f"experts: {', '.join(files.names) or 'none yet'}"
        )
    given.check_seed()
    for name in names:
        given.check_expert(name)
    found = {n: parameters.read_finite(given.expert(n) / LM, settings.lm) for n in names}
    models = LanguageModels(settings.lm, read_seed(given, settings), found)
    folders = [*map(given.expert, names), *([given.seed] if given.seed else [])]
    store_lms(files.path, models, dtype or stored_dtype(folders[0] / LM))
    return models


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
