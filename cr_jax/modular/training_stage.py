"""One stage of the recipe: language models trained side by side, and what is kept of them.

    WORKDIR/lm/STAGE/checkpoints, metrics.jsonl   while it is trained
    WORKDIR/lm/STAGE/params.safetensors           float32, stacked [E, ...]
    WORKDIR/lm/STAGE/stage.json                   sealed, written last: what made it, SHA-256 of
                                                  the parameters, tokens, FLOPs, seconds, looks

A stage that has its stage.json is read and not trained again.  Not in the paper.
"""

import dataclasses
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import safetensors
import safetensors.numpy

from cr_jax.config import Experiment, LmConfig, OptimizerConfig, to_dict
from cr_jax.data import (
    Corpus,
    Mixture,
    Tokenizer,
    WindowBatches,
    Windowing,
    Windows,
    content,
    train_iterator,
)
from cr_jax.errors import UserError
from cr_jax.host.files import changed, give_usual_mode, read_sealed, sha256, write_sealed
from cr_jax.parallel import plan as parallel
from cr_jax.training.loop import Job, train
from cr_jax.training.losses import LanguageModelLoss, Loss, logits_chunk, parted
from cr_jax.training.validation import loss_of

PARAMS, NOTE = "params.safetensors", "stage.json"


@dataclasses.dataclass(frozen=True)
class Member:
    """One model of a stage.

    rows: what its batches are drawn from.  text: what of that is its own, for the record.
    tokens: that it reads.  rate: relative to the optimizer's.  share: of its rows from all domains.
    valid: windows for the looks.
    """

    rows: Corpus | Mixture
    text: Corpus | Mixture
    tokens: int
    rate: float = 1.0
    share: float = 0.0
    valid: Windows | None = None


@dataclasses.dataclass(frozen=True)
class Stage:
    """Models that are trained side by side, one stacked program.

    start: one model's weights that all begin with; None: each its own fresh ones.  loss: what is
    lowered in place of the language models' own cross-entropy; then starts are the weights of each,
    stacked [E, ...], what it freezes is not stored, and about is what else made the stage.
    """

    name: str
    lm: LmConfig
    members: Mapping[str, Member]
    batch: int  # windows per model and step
    optimizer: OptimizerConfig
    start: Any = None
    keep_best: bool = False
    loss: Loss | None = None
    starts: Any = None
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Finished:
    """params: of each model by its name, float32 numpy arrays.

    note: "train_tokens" by name, "train_flops" of all, "seconds" of steps, "steps", "parameters"
    that were trained of one model, "looks" at valid, and of each model with looks its "best".
    """

    lm: LmConfig
    params: Mapping[str, Any]
    note: Mapping[str, Any]


def run_stage(
    stage: Stage, e: Experiment, tokenizer: Tokenizer, folder: Path, say: Callable[[str], None]
) -> Finished:
    """Trains the stage below `folder`, goes on with it, or reads it where it is finished.

    Raises `training.loop.Interrupted` when it was asked to stop and has saved itself, `UserError`
    where the folder holds another training, and what `training.loop.train` raises.
    """
    place = folder / stage.name
    record = _record(stage, e, tokenizer)
    if (place / NOTE).exists():
        say(f"language models, {stage.name}: trained before")
        return stored_stage(place, stage.lm, record)
    names, members = tuple(stage.members), stage.members.values()
    settings = _settings(stage, e)
    chunk = settings.train.loss_chunk
    loss = stage.loss or LanguageModelLoss(stage.lm, e.modular.window, chunk)
    shapes = jax.eval_shape(lambda key: parted(loss, loss.init(key))[0], jax.random.key(0))
    parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
    say(f"language models, {stage.name}: {len(names)} of {parameters:,} parameters")
    plan = parallel.make_plan(e.parallel, len(names), stage.batch)

    def batches(step):
        rows = {n: m.rows for n, m in stage.members.items()}
        windowing = Windowing(e.modular.window, e.seed, e.data.mode, tokenizer.pad_id)
        return train_iterator(WindowBatches(rows, stage.batch, windowing), step)

    valid = {n: m.valid for n, m in stage.members.items() if m.valid is not None}
    start = stage.starts
    if start is None and stage.start is not None:
        start = jax.tree.map(lambda x: np.broadcast_to(x, (len(names), *x.shape)), stage.start)
    job = Job(
        settings,
        loss,
        names,
        batches,
        {n: m.text for n, m in stage.members.items()},
        valid if len(valid) == len(names) else None,
        start,
        rates=tuple(m.rate for m in members),
        lengths=tuple(m.tokens for m in members),
        keep_best=stage.keep_best,
        settings=record["job"],
        save_last=False,
    )
    trained = train(job, plan, place, say=say)
    tokens = {n: min(m.tokens, trained.tokens) for n, m in stage.members.items()}
    note = {
        "train_tokens": tokens,
        "train_flops": loss.flops_per_token * sum(tokens.values()),
        "seconds": trained.seconds,
        "seconds_by_phase": dict(trained.phases),
        "steps": trained.step,
        "parameters": parameters,
        "looks": trained.looks,
        "best": _best(trained.looks, names),
        "kept_best": stage.keep_best and bool(trained.looks),
    }
    params = parted(loss, trained.params)[0]
    _store(place, params, record, note)
    return Finished(stage.lm, _apart(params, names), note)


def stored_stage(place: Path, lm: LmConfig, record: Mapping[str, Any]) -> Finished:
    """What a finished stage stored.  `UserError` where it is none, was changed or is another's.

    record: what made it, or that part of it which must be the same.
    """
    note = read_sealed(place / NOTE)
    old, wanted = _completed(note["record"]), json.loads(json.dumps(record))
    differ = [line for group in wanted if (line := _unlike(group, old.get(group), wanted[group]))]
    if differ:
        raise UserError(
            f"{place} holds language models of other settings ({'; '.join(differ)}): move that "
            "folder away or use a new --workdir"
        )
    file = place / PARAMS
    if sha256(file) != note["params"]:
        raise changed(file)
    try:
        flat = safetensors.numpy.load_file(file)
    except safetensors.SafetensorError as error:
        raise changed(file) from error
    params = flax.traverse_util.unflatten_dict(flat, sep="/")
    return Finished(lm, _apart(params, tuple(old["experts"])), note["note"])


def shape_of(lm: LmConfig) -> dict[str, Any]:
    """What a stage says of its models; "job" has the window of their training."""
    return {k: v for k, v in to_dict(lm).items() if k != "window"}


def sha256_of(params: Any) -> str:
    """Of all numbers of a tree, in the order of its leaves."""
    digest = hashlib.sha256()
    for x in jax.tree.leaves(params):
        digest.update(np.ascontiguousarray(x).data)
    return digest.hexdigest()


def _settings(stage: Stage, e: Experiment) -> Experiment:
    """The experiment's settings with the stage's training in them."""
    longest = max(m.tokens for m in stage.members.values())
    chunk = logits_chunk(e.train, stage.lm.vocab_size, len(stage.members))
    steps = -(-longest // (stage.batch * e.modular.window))
    every = f"{-(-steps // e.modular.looks)} steps" if e.modular.looks else ""
    return dataclasses.replace(
        e,
        optimizer=stage.optimizer,
        train=dataclasses.replace(
            e.train,
            batch=stage.batch,
            tokens=longest,
            steps=0,
            seconds=0.0,
            accumulate=1,
            loss_chunk=chunk,
            nested=0.0,
            hidden=0.0,
            short=0.0,
            max_epochs=0.0,
            keep_checkpoints=1,
            profile="",
        ),
        eval=dataclasses.replace(e.eval, every=every, keep_best=False, target_tra=0.0),
    )


def _record(stage: Stage, e: Experiment, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a stored stage must have been made by to be this one."""
    start = stage.start if stage.starts is None else stage.starts
    return {
        **stage.about,
        "model": shape_of(stage.lm),
        "tokenizer": tokenizer.fingerprint,
        "experts": list(stage.members),
        "optimizer": to_dict(stage.optimizer),
        "texts": {n: content(m.text) for n, m in stage.members.items()},
        "job": {
            "seed": e.seed,
            "window": e.modular.window,
            "batch": stage.batch,
            "mode": e.data.mode,
            "tokens": [m.tokens for m in stage.members.values()],
            "rates": [m.rate for m in stage.members.values()],
            "shares": [m.share for m in stage.members.values()],
            "start": "" if start is None else sha256_of(start),
            "keep_best": stage.keep_best,
            "looks": e.modular.looks if stage.keep_best else 0,
        },
    }


def _completed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A stored record with the model's fields that its writer's version did not have."""
    model = record.get("model")
    if not isinstance(model, Mapping):
        return dict(record)
    return {**record, "model": {**shape_of(LmConfig()), **model}}


def _unlike(group: str, old: Any, wanted: Any) -> str:
    """ "group: field, field" of the fields that are not as wanted; "" where all are."""
    if not isinstance(old, Mapping) or not isinstance(wanted, Mapping):
        return "" if old == wanted else group
    fields = sorted(k for k in wanted if old.get(k) != wanted[k])
    return f"{group}: {', '.join(fields)}" if fields else ""


def _best(looks: list[dict], names: tuple[str, ...]) -> dict[str, dict]:
    """Of each model the step of its best look, and its loss there and at the last one."""
    if not looks:
        return {}
    best_of = {}
    for n in names:
        best = min(looks, key=lambda look, n=n: loss_of(look["experts"][n]))
        best_of[n] = {
            "step": best["step"],
            "valid_nll": loss_of(best["experts"][n]),
            "last_valid_nll": loss_of(looks[-1]["experts"][n]),
        }
    return best_of


def _apart(params: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {n: jax.tree.map(lambda x, i=i: x[i], params) for i, n in enumerate(names)}


def _store(place: Path, params: Any, record: Mapping[str, Any], note: Mapping[str, Any]) -> None:
    """The parameters, then the sealed note; the checkpoints are of no use after."""
    flat = {
        k: np.ascontiguousarray(v)
        for k, v in flax.traverse_util.flatten_dict(params, sep="/").items()
    }
    draft = place / f".{PARAMS}"
    safetensors.numpy.save_file(flat, draft)
    give_usual_mode(draft)
    os.replace(draft, place / PARAMS)
    write_sealed(
        place / NOTE,
        {"format": 1, "record": record, "params": sha256(place / PARAMS), "note": note},
    )
    shutil.rmtree(place / "checkpoints", ignore_errors=True)
