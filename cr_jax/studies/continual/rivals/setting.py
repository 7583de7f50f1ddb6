"""What rivals are given, and how one stage of them is trained: by the experts' own loop."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from cr_jax.config import Experiment, ModelConfig
from cr_jax.data.windows import Windows
from cr_jax.parallel import plan as parallel
from cr_jax.studies.baselines.interface import TrainingText
from cr_jax.training.loop import Job, train
from cr_jax.training.losses import Loss


@dataclasses.dataclass(frozen=True)
class Setting:
    """text: of T domains in the order of arrival; windows: N test windows of all, and the domain
    that each is of; steps: of a stage, as many as of an expert.  model: an expert's, with the
    tokenizer's vocabulary."""

    experiment: Experiment
    model: ModelConfig
    text: TrainingText
    windows: Windows
    domain: Int[np.ndarray, " N"]
    steps: int


def train_stage(
    setting: Setting,
    loss: Loss,
    names: Sequence[str],
    batches: Callable[[], Iterator],
    start: Any,
    steps: int,
) -> Any:
    """Parameters [K, ...] after a stage with the experts' own schedule, from `start`; None: fresh.

    The experts' loop in memory.  `UserError` when a loss is not finite.
    """
    e = setting.experiment
    limits = dataclasses.replace(
        e.train, steps=steps, tokens=0, seconds=0.0, accumulate=1, max_epochs=0.0
    )
    plan = parallel.make_plan(e.parallel, len(names), limits.batch)
    job = Job(
        dataclasses.replace(e, train=limits),
        loss,
        tuple(names),
        lambda step: batches(),
        start=start,
    )
    return train(job, plan).params
