"""All rivals of a finished run, in one order of its domains.

Context -> Setting -> compressors.run, choosers.run -> {name: figures}
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cr_jax import models
from cr_jax.config import Experiment, TrainConfig
from cr_jax.data.experiment_text import sized
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.studies.baselines.interface import TrainingText
from cr_jax.studies.continual.rivals import choosers, compressors
from cr_jax.studies.continual.rivals.setting import Setting
from cr_jax.studies.continual.rules import RULES
from cr_jax.studies.continual.scores import Scores
from cr_jax.studies.continual.stages import History, walk
from cr_jax.studies.continual.table import row
from cr_jax.studies.interface import Context

MOST_WINDOWS = 32  # of a domain, by which rivals are judged after every stage
FROZEN = "experts"


def check(experiment: Experiment) -> None:
    """`UserError` before text is read, where rivals cannot be trained like this run's experts."""
    if not experiment.continual.rivals:
        return
    if experiment.data.mode != "packed":
        raise UserError("config.continual.rivals need packed text: set config.data.mode='packed'")
    if experiment.optimizer.weight_decay:
        raise UserError(
            "config.continual.rivals keep numbers beside the parameters that must not decay: set "
            "config.optimizer.weight_decay=0"
        )
    steps_of(experiment.train, experiment.model.window)


def steps_of(train: TrainConfig, window: int) -> int:
    """Steps of an expert, and so of each stage.  `UserError` where the run is given seconds."""
    if not (train.steps or train.tokens):
        raise UserError(
            "config.continual.rivals read as many tokens as the experts: give config.train.steps "
            "or tokens, and seconds=0"
        )
    return train.steps or -(-train.tokens // (train.batch * window))


def run(
    context: Context,
    scores: Scores,
    order: Sequence[str],
    chosen: str,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """-> {name: figures} of every rival of `config.continual.rivals`, and of the frozen experts
    under `plain` and the chosen rule on the same windows.  scores: those of the run.

    Of compressors: `compressors.run`; of what chooses among the experts: `table.row`, and "tra".
    "parameters": of the models that one text passes.
    """
    wanted = context.experiment.continual.rivals
    setting, scores = _setting(context, order), _few(context, scores, order)
    found: dict[str, Any] = {}
    size = models.count_parameters(setting.model)
    if names := [n for n in wanted if n in compressors.NAMES]:
        for name, of in compressors.run(setting, names, say).items():
            found[name] = {**of, "parameters": size}
    if names := [n for n in wanted if n in choosers.NAMES]:
        first = context.bank.expert_params(order[0])
        frozen = walk(scores, RULES[0])
        for name, winners in choosers.run(setting, names, first, say).items():
            history = History(
                frozen.names, winners, frozen.domain, frozen.residual, frozen.tra, frozen.stored
            )
            found[name] = {
                **row({"": history}, scores),
                "stored_bytes": choosers.stored_bytes(name, setting),
                "parameters": size,
            }
    for rule in (r for r in RULES if r.name in ("plain", chosen)):
        told = row({"": walk(scores, rule)}, scores)
        found[f"{FROZEN}, {rule.name}"] = {**told, "parameters": size * len(order)}
    return {n: {k: v for k, v in of.items() if k != "by_order"} for n, of in found.items()}


def _setting(context: Context, order: Sequence[str]) -> Setting:
    e, text = context.experiment, context.text
    model = sized(e.model, text.tokenizer)
    read = TrainingText(
        tuple(order),
        tuple(text.train[n] for n in order),
        text.tokenizer,
        model.window,
        e.data.mode,
        e.seed,
    )
    few = [text.test[n].spread(MOST_WINDOWS) for n in order]
    windows = Windows(
        *(np.concatenate([getattr(w, x) for w in few]) for x in ("tokens", "mask", "document"))
    )
    domain = np.repeat(np.arange(len(order)), [len(w) for w in few])
    return Setting(e, model, read, windows, domain, steps_of(e.train, model.window))


def _few(context: Context, scores: Scores, order: Sequence[str]) -> Scores:
    """The experts' scores of the windows that rivals are judged by."""
    at = {}
    for name in order:
        windows = context.text.test[name]
        numbered = dataclasses.replace(windows, document=np.arange(len(windows)))
        at[name] = numbered.spread(MOST_WINDOWS).document
    pick = lambda kind: {n: kind[n][:, at[n]] for n in order}
    few = Scores(scores.names, scores.valid, pick(scores.test), pick(scores.tra), scores.base)
    return few.ordered(order)
