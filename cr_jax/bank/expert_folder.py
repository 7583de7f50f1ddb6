"""One expert's folder: what is written there, and the checks that it belongs to its bank."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cr_jax import config
from cr_jax.bank import bigram_file, parameters
from cr_jax.bank.expert import Expert
from cr_jax.bank.files import read_json, readable
from cr_jax.bank.manifest import BIGRAM, FORMAT, LM, MANIFEST, read_manifest, write_manifest
from cr_jax.bank.settings import BankSettings, check_stored_lm, difference
from cr_jax.errors import UserError
from cr_jax.scoring.calibration import Calibration


def write_expert(draft: Path, expert: Expert, settings: BankSettings, dtype: str) -> None:
    """Fills an empty folder; parameters as `parameters.rounded` to dtype."""
    record = {
        "format": FORMAT,
        "tokenizer": settings.fingerprint,
        "model": config.to_dict(settings.model),
        "dtype": dtype,
        "about": dict(expert.about),
        "scoring": config.to_dict(settings.scoring.residual_rule),
    }
    _write_json(draft / "config.json", record)
    _write_json(draft / "calibration.json", expert.calibration.to_json())
    parameters.write(draft / parameters.FILE, expert.params, dtype)
    if expert.bigram is not None:
        bigram_file.write(draft / BIGRAM, expert.bigram)
    if expert.lm is not None:
        parameters.write(draft / LM, expert.lm, dtype)
    shape = None if expert.lm is None else config.to_dict(settings.lm)
    write_manifest(draft, settings.fingerprint, shape)


def copy_expert(source: Path, draft: Path) -> None:
    """Copies the manifest and the files that it lists."""
    _copy(source / MANIFEST, draft)  # first: it may be replaced by one that lists more
    for file in read_manifest(draft).files:
        _copy(source / file, draft)


def _copy(file: Path, folder: Path) -> None:
    with readable(file):
        shutil.copyfile(file, folder / file.name)


def read_expert(name: str, folder: Path, settings: BankSettings, lms: bool = True) -> Expert:
    """The expert as `write_expert` wrote it; lms: with its language model.

    `UserError` unless it belongs to the bank and every file is whole and has the model's shapes.
    """
    check_belongs(folder, settings)
    files, about = read_manifest(folder), read_json(folder / "config.json").get("about", {})
    if not isinstance(about, dict):
        raise UserError(f"{folder / 'config.json'}: about is no group of fields: write it again")
    bigram = lm = None
    if files.bigram is not None:
        bigram = bigram_file.read(folder / files.bigram, settings.model.vocab_size)
    if lms and settings.lm is not None and files.lm is not None:
        lm = parameters.read_finite(folder / LM, settings.lm)
    params = parameters.read(folder / parameters.FILE, settings.model)
    return Expert(name, params, _calibration(folder), about, bigram, lm)


def check_belongs(folder: Path, settings: BankSettings) -> None:
    """`UserError` unless the expert's files describe the bank's model, scoring and language
    models; no parameters are read."""
    record = read_json(folder / "config.json")
    raw = record.get("model") if isinstance(record, dict) else None
    if not isinstance(raw, dict):
        raise UserError(f"{folder / 'config.json'} describes no model: write the expert again")
    wanted, stored = config.to_dict(settings.model), config.completed(raw)
    if field := difference(wanted, stored):
        raise UserError(
            f"{folder} has model.{field}={stored[field]!r}, the bank has "
            f"{wanted[field]!r}: train the expert with the bank's model settings"
        )
    rule = config.scoring_rule(record.get("scoring", {}), settings.model).residual_rule
    if rule != settings.scoring.residual_rule:
        raise UserError(
            f"{folder} was calibrated for {rule}, the bank's residuals are of "
            f"{settings.scoring.residual_rule}: calibrate the expert again with the bank's rule"
        )
    files = read_manifest(folder)
    if rule.bigram_weight and files.bigram is None:
        raise UserError(
            f"{folder} has no bigram model, and the bank's rule has a bigram_weight: "
            "store the expert again with one"
        )
    if files.lm is not None:
        check_stored_lm(folder, files.lm, settings)


def _calibration(folder: Path) -> Calibration:
    try:
        return Calibration.from_json(read_json(folder / "calibration.json"))
    except UserError as error:
        raise UserError(f"{folder / 'calibration.json'}: {error}") from error


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    try:
        path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    except (TypeError, ValueError) as error:
        raise UserError(f"{path.name} of an expert must hold JSON types only: {error}") from error
