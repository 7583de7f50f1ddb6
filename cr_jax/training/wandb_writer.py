"""Weights & Biases as a second reader of a run's scalars (extra `wandb`, `config.train.wandb`)."""

import contextlib
import importlib.util
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from cr_jax.config import Experiment, to_dict
from cr_jax.errors import UserError
from cr_jax.host.files import write_whole

_ID = "wandb.id"


def check(experiment: Experiment) -> None:
    """`UserError` where the run is to tell Weights & Biases and the package is missing."""
    if experiment.train.wandb and importlib.util.find_spec("wandb") is None:
        raise UserError(
            f"config.train.wandb={experiment.train.wandb} needs the package wandb: install "
            "cr_jax[wandb], or leave the setting empty"
        )


class WandbWriter:
    """Tells a run of the project `config.train.wandb`; a resumed run goes on with the same one.

    Offline, in FOLDER/wandb, unless the variable WANDB_MODE says otherwise: `wandb sync` sends it
    later.  What fails there is told once and ends no training: metrics.jsonl is the record.
    """

    def __init__(self, folder: Path, experiment: Experiment):
        self._run: Any = None
        with self._telling():
            # Its own lines would tear the bar, and the code is the commit's.
            os.environ.setdefault("WANDB_SILENT", "true")
            os.environ.setdefault("WANDB_DISABLE_CODE", "true")
            import wandb

            self._run = wandb.init(
                project=experiment.train.wandb,
                name=f"{experiment.name} {folder.name}",
                id=_id(folder),
                dir=str(folder),
                mode=os.environ.get("WANDB_MODE", "offline"),
                resume="allow",
                config=to_dict(experiment),
            )

    def write(self, step: int, expert: str, values: Mapping[str, float]) -> None:
        """`values` of one expert at `step`."""
        if self._run is not None:
            with self._telling():
                self._run.log({f"{expert}/{name}": v for name, v in values.items()}, step=step)

    def close(self) -> None:
        if self._run is not None:
            with self._telling():
                self._run.finish()
        self._run = None

    @contextlib.contextmanager
    def _telling(self):
        try:
            yield
        except Exception as error:  # of the network, of an account, of the package
            self._run = None
            said = " ".join(str(error).split()) or type(error).__name__
            logging.warning("Weights & Biases is told no more: %s", said)


def _id(folder: Path) -> str:
    """Of the run that this folder is, made when it is first asked for."""
    path = folder / _ID
    with contextlib.suppress(OSError, ValueError):
        if (known := path.read_text().strip()).isalnum():
            return known
    made = secrets.token_hex(8)
    write_whole(path, made + "\n")
    return made
