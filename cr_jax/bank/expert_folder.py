"""One expert's folder: what is written there, and the checks that it belongs to its bank."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cr_jax import config
from cr_jax.bank import bigram_file, parameters
from cr_jax.bank.expert import Expert
from cr_jax.bank.manifest import (
    BIGRAM,
    FORMAT,
    LM,
    MANIFEST,
    SealedFiles,
    read_manifest,
    write_manifest,
)
from cr_jax.bank.settings import BankSettings, check_stored_lm, difference
from cr_jax.errors import UserError
from cr_jax.host import memory
from cr_jax.host.files import parse_json
from cr_jax.host.inside import JSON_MOST, Inside
from cr_jax.scoring.calibration import Calibration

CONFIG, CALIBRATION = "config.json", "calibration.json"


def write_expert(draft: Inside, expert: Expert, settings: BankSettings, dtype: str) -> str:
    """Fills an empty folder; parameters as `parameters.rounded` to dtype; -> the manifest's
    SHA-256."""
    record = {
        "format": FORMAT,
        "tokenizer": settings.fingerprint,
        "model": config.to_dict(settings.model),
        "dtype": dtype,
        "about": dict(expert.about),
        "scoring": config.to_dict(settings.scoring.residual_rule),
    }
    draft.write(CONFIG, _json(CONFIG, record))
    draft.write(CALIBRATION, _json(CALIBRATION, expert.calibration.to_json()))
    draft.write(parameters.FILE, parameters.dumps(expert.params, dtype))
    if expert.bigram is not None:
        draft.write(BIGRAM, bigram_file.dumps(expert.bigram))
    if expert.lm is not None:
        draft.write(LM, parameters.dumps(expert.lm, dtype))
    shape = None if expert.lm is None else config.to_dict(settings.lm)
    return write_manifest(draft, settings.fingerprint, shape)


def copy_manifest(source: Inside, draft: Inside) -> None:
    """First of all: it may be replaced by one that lists more."""
    draft.write(MANIFEST, source.read(MANIFEST))


def copy_files(source: Inside, draft: Inside, settings: BankSettings) -> None:
    """Copies what the draft's manifest lists, each file read once.

    `UserError` unless all are as sealed, of the bank's tokenizer, and as small as those of the
    bank's models.
    """
    files = SealedFiles(source, read_manifest(draft))
    files.check_fingerprint(settings.fingerprint)
    most = dict.fromkeys((CONFIG, CALIBRATION), JSON_MOST)
    most[parameters.FILE] = parameters.most_bytes(settings.model)
    if settings.lm is not None:
        most[LM] = parameters.most_bytes(settings.lm)
    bigram = bigram_file.most_bytes(settings.model.vocab_size)
    for name in files.manifest.files:
        draft.write(name, files.read(name, most.get(name, bigram)))


def read_expert(
    name: str,
    folder: Inside,
    settings: BankSettings,
    lms: bool = True,
    seals: Collection[str] | None = None,
) -> Expert:
    """The expert as `write_expert` wrote it; lms: with its language model.

    seals: what the SHA-256 of its manifest may be; every file is then compared with the manifest,
    as it is read.  None: nothing is compared.
    `UserError` unless it belongs to the bank and every file is whole and has the model's shapes.
    """
    files = SealedFiles(folder, read_manifest(folder, seals=seals), seals is not None)
    manifest = files.manifest
    if files.verify:
        files.check_fingerprint(settings.fingerprint)
    record = _read_json(files, CONFIG)
    check_belongs(files, record, settings)
    about = record.get("about", {})
    if not isinstance(about, dict):
        raise UserError(f"{folder.path / CONFIG}: about is no group of fields: write it again")
    bigram = lm = None
    if manifest.bigram is not None:
        vocab = settings.model.vocab_size
        data = files.read(manifest.bigram, bigram_file.most_bytes(vocab))
        bigram = bigram_file.loads(data, vocab, folder.path / manifest.bigram)
    if lms and settings.lm is not None and manifest.lm is not None:
        lm = parameters.read(files, LM, settings.lm)
    params = parameters.read(files, parameters.FILE, settings.model)
    return Expert(name, params, _calibration(files), about, bigram, lm)


def check_memory(settings: BankSettings, bank: Path, experts: int, lms: bool) -> None:
    """`UserError` when the parameters of so many experts are more than all memory."""
    one = parameters.bytes_in_memory(settings.model)
    if lms and settings.lm is not None:
        one += parameters.bytes_in_memory(settings.lm)
    memory.check(
        experts * one,
        f"loading {experts:,} experts of {bank}",
        "load some of its experts by name, or take a machine with more",
    )


def check_belongs(files: SealedFiles, record: Any, settings: BankSettings) -> None:
    """`UserError` unless the expert's files describe the bank's model, scoring and language
    models; record: what config.json holds; no parameters are read."""
    folder = files.folder.path
    raw = record.get("model") if isinstance(record, dict) else None
    if not isinstance(raw, dict):
        raise UserError(f"{folder / CONFIG} describes no model: write the expert again")
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
    if rule.bigram_weight and files.manifest.bigram is None:
        raise UserError(
            f"{folder} has no bigram model, and the bank's rule has a bigram_weight: "
            "store the expert again with one"
        )
    if files.manifest.lm is not None:
        check_stored_lm(folder, files.manifest.lm, settings)


def _calibration(files: SealedFiles) -> Calibration:
    path, raw = files.folder.path / CALIBRATION, _read_json(files, CALIBRATION)
    try:
        return Calibration.from_json(raw)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _read_json(files: SealedFiles, name: str) -> Any:
    return parse_json(files.read(name, JSON_MOST), files.folder.path / name)


def _json(name: str, value: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} of an expert must hold JSON types only: {error}") from error
