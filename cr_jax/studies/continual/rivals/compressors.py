"""One compressor for all domains: trained in sequence, with replay, with EWC, or on all at once.

Letters: K models side by side, T domains in the order of arrival, N windows of all of them.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from cr_jax.parallel.plan import expert_keys
from cr_jax.router import score_experts
from cr_jax.scoring import residuals
from cr_jax.scoring.batching import BatchSizes, in_batches
from cr_jax.studies.continual import figures
from cr_jax.studies.continual.rivals import anchored
from cr_jax.studies.continual.rivals.setting import Setting, train_stage
from cr_jax.studies.continual.rivals.text import Batches, Everything, Replay, new_only
from cr_jax.training.losses import CompressorLoss

SEQUENTIAL, REPLAY, EWC, JOINT = NAMES = ("sequential", "replay", "ewc", "joint")
FISHER_WINDOWS = 64  # of a domain


def run(
    setting: Setting, names: Sequence[str], say: Callable[[str], None] = lambda line: None
) -> dict[str, dict[str, Any]]:
    """{name: "acc", "bwt", "fwt", "forgetting" of TRA, "code_length": the same of nats/token by the
    run's rule (a rise is worse), "matrix": TRA, "stored_bytes" per domain} of each of `names`.

    Of "joint", which has no stages, "acc" alone.
    """
    found = {}
    if in_order := [n for n in names if n != JOINT]:
        found |= _in_order(setting, in_order, say)
    if JOINT in names:
        found[JOINT] = _joint(setting, say)
    return {n: found[n] for n in names}


def _in_order(setting: Setting, names, say):
    e, stages = setting.experiment, len(setting.text.names)
    inner = CompressorLoss(setting.model, e.train)
    rival = e.continual
    draws = [
        Replay(rival.replay_share, rival.replay_windows, setting.model.window, e.seed)
        if n == REPLAY
        else new_only
        for n in names
    ]
    batches, loss = Batches(setting.text, e.train.batch, draws), anchored.AnchoredLoss(inner)
    fisher = jax.jit(functools.partial(anchored.fisher, inner))
    known: dict[str, Any] = {}
    params, tra, nats = None, [], []
    fresh = jax.vmap(inner.init)(expert_keys(e.seed, names))
    untrained = _by_domain(setting, measure(setting, fresh)[0])
    for stage in range(stages):
        params = train_stage(
            setting, loss, names, lambda s=stage: batches.stage(s), params, setting.steps
        )
        say(f"rivals {', '.join(names)}: {stage + 1} of {stages} domains")
        each = [anchored.plain(_one(params, k)) for k in range(len(names))]
        some = setting.text.windows(stage, FISHER_WINDOWS * setting.model.window)[0]
        for k, name in enumerate(names):
            if name == EWC and rival.ewc_weight:
                more = np.float32(rival.ewc_weight) * np.asarray(
                    fisher(each[k], some[:FISHER_WINDOWS])
                )
                known[name] = known.get(name, np.float32(0)) + more
        moved = [
            jax.tree.map(
                np.asarray,
                anchored.with_anchor(own, known.get(n, np.zeros(_size(own), np.float32))),
            )
            for n, own in zip(names, each, strict=True)
        ]
        params = jax.tree.map(lambda *x: np.stack(x).astype(np.float32), *moved)
        rebuilt, code = measure(setting, anchored.plain(params))
        tra.append(_by_domain(setting, rebuilt))
        nats.append(_by_domain(setting, code))
    kept = {REPLAY: 4 * setting.model.window * rival.replay_windows / stages}
    kept[EWC] = 8 * _size(anchored.plain(_one(params, 0))) / stages
    return {
        name: _figures(np.stack(tra)[:, k], np.stack(nats)[:, k], untrained[k], kept.get(name, 0))
        for k, name in enumerate(names)
    }


def _joint(setting: Setting, say):
    e, stages = setting.experiment, len(setting.text.names)
    batches = Batches(setting.text, e.train.batch, [Everything(e.seed, ahead=True)])
    params = train_stage(
        setting,
        CompressorLoss(setting.model, e.train),
        (JOINT,),
        lambda: batches.stage(stages - 1),
        None,
        setting.steps * stages,
    )
    say("rival joint: trained on all domains")
    tra, nats = (_by_domain(setting, x)[0] for x in measure(setting, params))
    return {
        "acc": float(tra.mean()),
        "code_length": {"acc": float(nats.mean())},
        "matrix": [tra.tolist()],
    }


def measure(setting: Setting, params: Any) -> tuple[Float[np.ndarray, "K N"], ...]:
    """(TRA, nats/token by the run's residual rule without bigrams) of every window, by K models."""
    e = setting.experiment
    rule = dataclasses.replace(e.scoring.residual_rule, bigram_weight=0.0)
    sizes = BatchSizes.of(e.eval)
    scorer = residuals.Scorer(residuals.token_scores, setting.model, rule)
    groups = sizes.groups(jax.tree.leaves(params)[0].shape[0])
    score = lambda tokens, mask: score_experts(scorer, params, tokens, mask, groups)
    windows = setting.windows
    found = in_batches(score, windows, sizes.rows(len(windows)), axis=-2)
    real = windows.mask
    count = real.sum(-1)
    return (
        np.sum(found.correct & real, -1) / count,
        np.sum(np.where(real, found.residual, 0), -1, dtype=np.float64) / count,
    )


def _figures(tra, nats, untrained, kept: float) -> dict[str, Any]:
    code = figures.all_of(nats)
    return {
        **figures.all_of(tra, untrained),
        "code_length": {k: code[k] for k in ("acc", "bwt")},
        "matrix": tra.tolist(),
        "stored_bytes": kept,
    }


def _by_domain(setting: Setting, values: np.ndarray) -> np.ndarray:
    """[K, N] -> [K, T]"""
    stages = range(len(setting.text.names))
    return np.stack([values[:, setting.domain == d].mean(1) for d in stages], 1)


def _one(params: Mapping, k: int):
    return jax.tree.map(lambda x: np.asarray(x)[k], params)


def _size(params) -> int:
    return sum(x.size for x in jax.tree.leaves(params))
