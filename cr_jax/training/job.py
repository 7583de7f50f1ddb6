"""What the loop is given, and what it hands over."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cr_jax.config import Experiment
from cr_jax.data import Corpus, Mixture, Windows
from cr_jax.training.losses import Loss
from cr_jax.training.validation import best_of


@dataclasses.dataclass(frozen=True)
class Job:
    """What is trained, and on what.

    texts: of each model by its name, or None where nothing needs to know them.
    batches(step) -> iterator of {"tokens" [e, b, L], ...}, this process's `plan.share` of the
    batches from that step on; below a workdir with `get_state` and `set_state` (a Grain iterator).
    valid: windows of each model, for `config.eval.every`.
    start: weights to begin with, stacked [E, ...] on the host, in place of fresh ones.
    rates: of each model, what its learning rates are multiplied by; none: 1.
    lengths: tokens after which each model has gone through its schedule; none: the run's.
    keep_best: hand over of each model the weights of its own best look at valid, the first one
    before any step; without looks those of the end.
    settings: what else makes the run; a workdir goes on only with the same.
    save_last: False where the caller stores the weights, so that no last checkpoint is needed.
    """

    experiment: Experiment
    loss: Loss
    names: tuple[str, ...]
    batches: Callable[[int], Iterator]
    texts: Mapping[str, Corpus | Mixture | None] = dataclasses.field(default_factory=dict)
    valid: Mapping[str, Windows] | None = None
    start: Any = None
    rates: tuple[float, ...] = ()
    lengths: tuple[int, ...] = ()
    keep_best: bool = False
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    save_last: bool = True


@dataclasses.dataclass(frozen=True)
class Trained:
    """What training hands over: weights to evaluate, stacked [E, ...] on process 0's host.

    start: what the weights began with, for their record; empty: noise.
    """

    params: Any
    step: int
    seconds: float  # of steps, over all starts of the run
    tokens: int  # per expert
    phases: Mapping[str, float] = dataclasses.field(default_factory=dict)  # seconds, all starts
    looks: list[dict] = dataclasses.field(default_factory=list)  # `validation.Validation.looks`
    start: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def best(self) -> dict | None:
        """The look at valid with the lowest loss."""
        return best_of(self.looks)
