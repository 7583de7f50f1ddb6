"""One expert's folder: what is written there, and the checks that it belongs to its bank."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cr_jax import config, models
from cr_jax.bank import bigram_file, parameters
from cr_jax.bank.files import (
    BIGRAM,
    FORMAT,
    BankFolder,
    bigram_of,
    listed_files,
    read_json,
    readable,
    write_manifest,
)
from cr_jax.config import ModelConfig, Scoring
from cr_jax.data.text_form import FORMS, LF_NFC, Form
from cr_jax.errors import UserError
from cr_jax.scoring.bigram import BigramModel
from cr_jax.scoring.calibration import Calibration

_HOW_TO_RUN = ("dtype", "attention", "kernels", "remat", "scan")  # not part of what an expert is


def write_expert(
    draft: Path,
    params: Any,
    calibration: Calibration,
    bigram: BigramModel | None,
    *,
    model: ModelConfig,
    scoring: Scoring,
    fingerprint: str,
    about: Mapping[str, Any] | None,
    dtype: str,
) -> None:
    """Fills an empty folder; params as `parameters.rounded` to dtype."""
    record = {
        "format": FORMAT,
        "tokenizer": fingerprint,
        "model": config.to_dict(model),
        "dtype": dtype,
        "about": about or {},
        "scoring": config.to_dict(scoring.residual_rule),
    }
    _write_json(draft / "config.json", record)
    _write_json(draft / "calibration.json", calibration.to_json())
    parameters.write(draft / parameters.FILE, params, dtype)
    if bigram is not None:
        bigram_file.write(draft / BIGRAM, bigram)
    write_manifest(draft, fingerprint)


def copy_expert(source: Path, draft: Path) -> None:
    """Copies the files that the source's manifest lists."""
    for file in (*listed_files(source), "manifest.json"):
        with readable(source / file):
            shutil.copyfile(source / file, draft / file)


def check_belongs(folder: Path, model: ModelConfig, scoring: Scoring) -> None:
    """`UserError` unless the expert's config.json describes the bank's model and scoring."""
    record = read_json(folder / "config.json")
    raw = record.get("model") if isinstance(record, dict) else None
    if not isinstance(raw, dict):
        raise UserError(f"{folder / 'config.json'} describes no model: write the expert again")
    wanted, stored = config.to_dict(model), config.completed(raw)
    for field in wanted:
        had = stored[field]
        if field not in _HOW_TO_RUN and had != wanted[field]:
            raise UserError(
                f"{folder} has model.{field}={had!r}, the bank has "
                f"{wanted[field]!r}: train the expert with the bank's model settings"
            )
    rule = config.scoring_rule(record.get("scoring", {}), model).residual_rule
    if rule != scoring.residual_rule:
        raise UserError(
            f"{folder} was calibrated for {rule}, the bank's residuals are of "
            f"{scoring.residual_rule}: calibrate the expert again with the bank's rule"
        )
    if rule.bigram_weight and bigram_of(listed_files(folder)) is None:
        raise UserError(
            f"{folder} has no bigram model, and the bank's rule has a bigram_weight: "
            "store the expert again with one"
        )


def read_calibration(folder: Path) -> Calibration:
    try:
        return Calibration.from_json(read_json(folder / "calibration.json"))
    except UserError as error:
        raise UserError(f"{folder / 'calibration.json'}: {error}") from error


def read_bigram(folder: Path, model: ModelConfig) -> BigramModel | None:
    """None for an expert that was stored without one."""
    file = bigram_of(listed_files(folder))
    return None if file is None else bigram_file.read(folder / file, model.vocab_size)


def bank_model(files: BankFolder) -> ModelConfig:
    """The model that bank.json describes."""
    try:
        model = config.model_config(files.index["model"])
        models.check_bottleneck(model)
        # How it was trained is not how it must run: cuDNN and Triton are on GPUs only.
        return dataclasses.replace(model, attention="auto", kernels="auto")
    except UserError as error:
        raise UserError(f"{files.path / 'bank.json'}: {error}") from error


def bank_scoring(files: BankFolder, model: ModelConfig) -> Scoring:
    """The rule that bank.json describes."""
    # Banks written before there was a choice have the paper's rule.
    rule = config.scoring_rule(files.index.get("scoring", {}), model)
    models.check_bottleneck(model, rule.rate)
    return rule


def bank_text_form(files: BankFolder) -> Form:
    """The form of the text that bank.json names; `UserError` for one of a later version.

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


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    try:
        path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    except (TypeError, ValueError) as error:
        raise UserError(f"{path.name} of an expert must hold JSON types only: {error}") from error
