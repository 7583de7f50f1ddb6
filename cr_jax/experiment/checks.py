"""What a run needs, looked at before any text is read.  The table: docs/checks.md."""

import dataclasses
import os
import shutil
from pathlib import Path

from cr_jax import models
from cr_jax.bank.files import CannotWrite
from cr_jax.config import Experiment
from cr_jax.data.experiment_text import Corpora, sized
from cr_jax.errors import UserError
from cr_jax.host.files import expanded
from cr_jax.models import lm
from cr_jax.models.layers import attention_kernel
from cr_jax.modular import recipe
from cr_jax.parallel.plan import Plan
from cr_jax.scoring.calibrate import usable
from cr_jax.studies import registry
from cr_jax.training import wandb_writer
from cr_jax.training.loop import check_layout

FILES = ("config.json", "parameters.txt", "metrics.jsonl", "report.json", "report.html")
FOLDERS = ("checkpoints", "bank", "cache", "tokenizer", recipe.FOLDER)
_IDS = {"bytes": 258, "gpt2": 50_257}  # of tokenizers that are known before any text is


def settings(e: Experiment) -> None:
    """`UserError` where a bottleneck, a language model, a study or a package is not there or has no
    such shape.  Needs no device and no text."""
    models.check_bottleneck(e.model, e.scoring.rate)
    lm.make_lm(e.lm)
    lm.make_lm(e.lm_large)
    registry.check(e)
    wandb_writer.check(e)


def devices(e: Experiment, plan: Plan) -> None:
    """`UserError` where the devices cannot run this model or lay out its batch."""
    attention_kernel(e.model)
    recipe.check(e)
    check_layout(e.train, e.model, plan)


def place(e: Experiment, folder: Path) -> None:
    """`UserError` where something is in the way of what the run writes, or there is no room."""
    for name in FILES:
        if (folder / name).is_dir():
            raise UserError(
                f"{folder / name} is a folder, and a file of the run's is to lie "
                "there: move it away"
            )
        _writable(folder / name)
    for name in FOLDERS:
        _folder(folder / name)
    if e.data.cache:
        _folder(expanded(e.data.cache))
    recipe.check_files(e)
    need = least_bytes(e) * (1 if any((folder / "checkpoints").glob("*.json")) else 2)
    free = shutil.disk_usage(folder).free
    if free < need:
        raise CannotWrite(
            f"{folder} has {free / 1e9:.2f} GB free, and the checkpoints of this run "
            f"need {need / 1e9:.2f} GB or more: make room or choose another --workdir"
        )


def least_bytes(e: Experiment) -> int:
    """Less than a checkpoint takes: parameters and half a copy of them, whatever the optimizer."""
    pieces = 0 if e.tokenizer.folder else e.tokenizer.vocab_size
    ids = e.model.vocab_size or _IDS.get(e.tokenizer.kind, pieces) or 256
    model = dataclasses.replace(e.model, vocab_size=ids)
    compressors = models.count_parameters(model) * 6 * len(e.data.domains)
    return compressors + recipe.least_bytes(e, ids)


def text(e: Experiment, text: Corpora) -> None:
    """`UserError`, before training, for text that an expert could not be calibrated on."""
    ids = sized(e.model, text.tokenizer).vocab_size
    if e.train.vocab_sample > ids:
        raise UserError(
            f"config.train.vocab_sample={e.train.vocab_sample} must be at most the vocabulary of "
            f"{ids:,} ids; 0 takes all of them"
        )
    for name, windows in text.valid.items():
        try:
            usable(windows, e.model)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None


def _folder(path: Path) -> None:
    start = next(p for p in (path, *path.parents) if p.exists())
    if not start.is_dir():
        raise UserError(
            f"{start} is no folder, and the run is to write into {path}: move it away "
            "or choose another place"
        )
    _writable(path)


def _writable(path: Path) -> None:
    start = next(p for p in (path, *path.parents) if p.exists())
    if not os.access(start, os.W_OK | (os.X_OK if start.is_dir() else 0)):
        raise CannotWrite(
            f"{start} cannot be written: allow writing there or choose another place "
            f"for {path.name}"
        )
