"""What else could choose among the frozen experts as they come: gates, Gaussians, n-grams.

    setting, names -> {name: winners [T, N]}      by the place in the order of arrival

gate_new, gate_replay, gate_all: a learned gate of an expert's size that goes on from its last
stage on the new domain's text alone, with a share of stored windows, or on text of all domains that
have come.  gaussian: mean-pooled states of the first expert, one mean per domain and one
covariance of all (streaming linear discriminant analysis, Hayes and Kanan 2020).  mixture:
likewise, five diagonal Gaussians per domain.  ngrams: the linear n-gram classifier, fitted anew.
ngrams and gate_all are allowed to see text of all domains that have come, which experts never do.
Letters: T domains, N windows.  Not in the paper.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cr_jax import models
from cr_jax.studies.baselines import ngram
from cr_jax.studies.baselines.gate import Gate
from cr_jax.studies.baselines.interface import Budget, TrainingText
from cr_jax.studies.continual.rivals.mixtures import KINDS, Mixtures, SharedCovariance
from cr_jax.studies.continual.rivals.setting import Setting, train_stage
from cr_jax.studies.continual.rivals.text import Batches, Everything, Replay, new_only
from cr_jax.training.losses import ClassifierLoss

GATES = ("gate_new", "gate_replay", "gate_all")
GAUSSIANS = {"gaussian": SharedCovariance, "mixture": Mixtures}
NGRAMS = "ngrams"
NAMES = (*GATES, *GAUSSIANS, NGRAMS)
FITTED = 512  # windows of a domain that Gaussians are fitted on


def run(
    setting: Setting,
    names: Sequence[str],
    first_expert: Any,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, np.ndarray]:
    """{name: winners [T, N]}; first_expert: parameters of the expert that comes first, frozen."""
    found = {}
    if gates := [n for n in names if n in GATES]:
        found |= _gates(setting, gates, say)
    if gaussians := [n for n in names if n in GAUSSIANS]:
        found |= _gaussians(setting, gaussians, first_expert)
    if NGRAMS in names:
        found[NGRAMS] = _ngrams(setting, say)
    return {n: found[n] for n in names}


def stored_bytes(name: str, setting: Setting) -> float | None:
    """Of a domain, kept for those that come later: stored windows are text.  None: all its text."""
    stages, width, window = len(setting.text.names), setting.model.d_model, setting.model.window
    return {
        "gate_new": 0.0,
        "gate_replay": 4.0 * window * setting.experiment.continual.replay_windows / stages,
        "gaussian": 4.0 * (width + width**2 / stages),
        "mixture": 4.0 * KINDS * (2 * width + 1),
    }.get(name)


def _gates(setting: Setting, names, say):
    e, stages = setting.experiment, len(setting.text.names)
    net = Gate(setting.model, stages)
    made = {
        "gate_new": lambda: new_only,
        "gate_replay": lambda: Replay(
            e.continual.replay_share, e.continual.replay_windows, setting.model.window, e.seed
        ),
        "gate_all": lambda: Everything(e.seed),
    }
    batches = Batches(setting.text, e.train.batch, [made[n]() for n in names])
    loss, params, winners = ClassifierLoss(setting.model, net), None, []
    apply = jax.jit(jax.vmap(net.apply, (0, None, None)))
    windows, rows = setting.windows, e.eval.batch
    for stage in range(stages):
        params = train_stage(
            setting, loss, names, lambda s=stage: batches.stage(s, True), params, setting.steps
        )
        logits = _in_parts(
            lambda t, m, p=params: np.asarray(apply(p, t, m)), windows.tokens, windows.mask, rows
        )
        winners.append(logits[..., : stage + 1].argmax(-1))
        say(f"rivals {', '.join(names)}: {stage + 1} of {stages} domains")
    return {n: np.stack([w[k] for w in winners]) for k, n in enumerate(names)}


def _in_parts(score, tokens, mask, rows: int):
    """score(tokens, mask) -> [K, n, ...] of all windows, `rows` at once; the last part is filled
    up."""
    parts = []
    for i in range(0, len(tokens), rows):
        fill = ((0, max(0, i + rows - len(tokens))), (0, 0))
        part = score(
            np.pad(tokens[i : i + rows], fill, "edge").astype(np.int32),
            np.pad(mask[i : i + rows], fill, "edge"),
        )
        parts.append(part[:, : len(tokens) - i])
    return np.concatenate(parts, 1)


def _gaussians(setting: Setting, names, params):
    net, predictive = models.Autoencoder(setting.model), setting.model.predictive

    @jax.jit
    def pooled(tokens, mask):
        states = (
            net.apply(params, tokens, mask, method="predict")
            if predictive
            else net.apply(params, tokens, mask)[0]
        )
        real = mask.astype(jnp.float32)
        return jnp.einsum("bld,bl->bd", states.astype(jnp.float32), real / real.sum(-1)[:, None])

    def embedded(tokens, mask) -> Float[np.ndarray, "N D"]:
        one = lambda t, m: np.asarray(pooled(t, m))[None]
        rows = setting.experiment.eval.batch
        return _in_parts(one, tokens, mask, rows)[0].astype(np.float64)

    test = embedded(setting.windows.tokens, setting.windows.mask)
    routers = {n: GAUSSIANS[n](setting.experiment.seed) for n in names}
    winners: dict[str, list[np.ndarray]] = {n: [] for n in names}
    for stage in range(len(setting.text.names)):
        tokens, mask = setting.text.windows(stage, FITTED * setting.model.window)
        points = embedded(tokens[:FITTED], mask[:FITTED])
        for name, router in routers.items():
            router.add(points)
            winners[name].append(router.scores(test).argmax(1))
    return {n: np.stack(w) for n, w in winners.items()}


def _ngrams(setting: Setting, say):
    text, length = setting.text, setting.model.window
    budget = Budget(ngram_tokens=setting.steps * setting.experiment.train.batch * length)
    winners = []
    for stage in range(len(text.names)):
        if not stage:
            winners.append(np.zeros(len(setting.windows.tokens), np.int64))
            continue
        known = TrainingText(
            text.names[: stage + 1],
            text.corpora[: stage + 1],
            text.tokenizer,
            text.window,
            text.mode,
            text.seed,
        )
        fitted = ngram.fit(known, (length,), budget)
        scores = fitted.predict(setting.windows.tokens, setting.windows.mask, (length,))[0]
        winners.append(scores.argmax(0))
        say(f"rival {NGRAMS}: {stage + 1} of {len(text.names)} domains")
    return np.stack(winners)
