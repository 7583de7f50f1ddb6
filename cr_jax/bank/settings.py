"""What all experts of a bank share, as bank.json says it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cr_jax import config, models
from cr_jax.bank.files import BankFolder
from cr_jax.bank.manifest import LM, MANIFEST
from cr_jax.bank.text_settings import read_tokenizer as read_tokenizer  # for who reads a whole bank
from cr_jax.bank.text_settings import text_form
from cr_jax.config import SEEN, LmConfig, ModelConfig, Scoring
from cr_jax.data.text_form import LF_NFC, Form
from cr_jax.errors import UserError

# How a model is run, which is not part of what an expert is.
HOW_TO_RUN = ("dtype", "attention", "kernels", "remat", "scan")
_NOT_COMPARED = (*HOW_TO_RUN, "window")  # of language models: no parameter depends on it
_ROOM = 128  # up to a multiple of so many a vocabulary is rounded


@dataclasses.dataclass(frozen=True)
class BankSettings:
    """fingerprint: of the tokenizer; scoring: its residual rule is the one that calibrations were
    made with; text_form: of the text that tokens are made of; lm: of the experts' language models,
    None: the bank has none."""

    model: ModelConfig
    fingerprint: str
    scoring: Scoring = SEEN
    text_form: Form = LF_NFC
    lm: LmConfig | None = None


def read_settings(files: BankFolder) -> BankSettings:
    """What bank.json says.  `UserError` for what makes no model or is of a later version."""
    model = _model(files)
    # Banks written before there was a choice have the paper's rule.
    rule = config.scoring_rule(files.index.get("scoring", {}), model)
    models.check_bottleneck(model, rule.rate)
    raw = files.index.get("lm")
    lm = None if raw is None else stored_lm(files.path / "bank.json", raw)
    return BankSettings(model, files.index["tokenizer"], rule, text_form(files), lm)


def to_index(settings: BankSettings) -> dict[str, Any]:
    """The settings as fields of bank.json."""
    index = {
        "tokenizer": settings.fingerprint,
        "model": config.to_dict(settings.model),
        "scoring": config.to_dict(settings.scoring),
        "text_form": settings.text_form,
    }
    return index if settings.lm is None else {**index, "lm": config.to_dict(settings.lm)}


def difference(wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> str | None:
    """The first field in which two descriptions of a model are not of the same parameters."""
    return _difference(wanted, stored, HOW_TO_RUN)


def _difference(
    wanted: Mapping[str, Any], stored: Mapping[str, Any], leave_out: tuple[str, ...]
) -> str | None:
    fields = (f for f in wanted if f not in leave_out)
    return next((f for f in fields if stored.get(f) != wanted[f]), None)


def check_vocabulary(lm: LmConfig, model: ModelConfig, pieces: int) -> None:
    """`UserError` unless a language model speaks the bank's tokens, `pieces` in number.

    Its vocabulary may be as large as the compressors', or as the tokenizer's rounded up.
    """
    most = max(model.vocab_size, -(-pieces // _ROOM) * _ROOM)
    if not pieces <= lm.vocab_size <= most:
        raise UserError(
            f"the language models' vocabulary ({lm.vocab_size}) is not that of the bank's "
            f"tokenizer, which has {pieces} pieces: set config.lm.vocab_size to {model.vocab_size}"
        )


def check_same_lm(where: str, lm: LmConfig, bank: LmConfig) -> None:
    """`UserError`, starting with `where`, unless both are of the same parameters."""
    wanted, given = config.to_dict(bank), config.to_dict(lm)
    if field := _difference(wanted, given, _NOT_COMPARED):
        raise UserError(
            f"{where} has a language model with lm.{field}={given[field]!r}, the bank's have "
            f"{wanted[field]!r}: train it with the bank's settings of language models"
        )


def check_stored_lm(folder: Path, raw: Mapping[str, Any], settings: BankSettings) -> None:
    """The same of a language model on file; raw: its shape by its manifest."""
    if settings.lm is None:
        raise UserError(
            f"{folder} has a language model ({LM}), and bank.json does not say what the bank's "
            "look like: copy the expert into the bank with `cr-jax bank add`"
        )
    check_same_lm(str(folder), stored_lm(folder / MANIFEST, raw), settings.lm)


def stored_lm(file: Path, raw: Any) -> LmConfig:
    """The shape of language models that a file describes.  `UserError` naming file and field."""
    try:
        # How they were trained is not how they must run.
        return dataclasses.replace(config.lm_config(raw), attention="auto", kernels="auto")
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def _model(files: BankFolder) -> ModelConfig:
    try:
        model = config.model_config(files.index["model"])
        models.check_bottleneck(model)
        # How it was trained is not how it must run: cuDNN and Triton are on GPUs only.
        return dataclasses.replace(model, attention="auto", kernels="auto")
    except UserError as error:
        raise UserError(f"{files.path / 'bank.json'}: {error}") from error
