"""The experts of a run, trained side by side through the one loop.  Not in the paper."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from cr_jax import models
from cr_jax.config import Experiment
from cr_jax.data import WindowBatches, Windowing, count_tokens, epoch_positions, train_iterator
from cr_jax.data.experiment_text import Corpora, sized
from cr_jax.experiment import outcome
from cr_jax.parallel.plan import Plan
from cr_jax.training import banner
from cr_jax.training.loop import Job, Trained, train
from cr_jax.training.losses import CompressorLoss


class Start(NamedTuple):
    """params: of one expert, with which every one begins; record: which it is."""

    params: Any
    record: Mapping[str, str]


def train_compressors(
    experiment: Experiment,
    text: Corpora,
    plan: Plan,
    folder: Path,
    say: Callable[[str], None],
    start: Start | None = None,
) -> Trained:
    """One expert of each domain of `text.train`, in this order; goes on from a checkpoint below
    `folder`.  start: None begins from noise.  Raises what `training.loop.train` raises."""
    model, names = sized(experiment.model, text.tokenizer), tuple(text.train)
    say(
        f"{len(names)} experts of {models.count_parameters(model):,} parameters, window "
        f"{model.window} -> {model.latents} latents, on {len(jax.devices())} "
        f"{jax.devices()[0].device_kind} device(s); sizes in parameters.txt"
    )
    windowing = Windowing(
        model.window, experiment.seed, experiment.data.mode, text.tokenizer.pad_id
    )
    sizes = {n: count_tokens(source) for n, source in text.train.items()}
    positions = {n: epoch_positions(source, windowing) for n, source in text.train.items()}
    for line in banner.repeats(sizes, positions, experiment.train, model.window):
        say(line)
    if jax.process_index() == 0:
        (folder / "parameters.txt").write_text(outcome.parameter_table(model), encoding="utf-8")

    def batches(step):
        read = WindowBatches(text.train, experiment.train.batch, windowing, plan.share)
        return train_iterator(read, step)

    loss = CompressorLoss(model, experiment.train, plan.devices_seen)
    job = Job(experiment, loss, names, batches, text.train, text.valid)
    if start is None:
        return train(job, plan, folder, say=say)
    stacked = jax.tree.map(lambda x: np.stack([np.asarray(x)] * len(names)), start.params)
    job = dataclasses.replace(job, start=stacked, settings=start.record)
    return dataclasses.replace(train(job, plan, folder, say=say), start=start.record)
