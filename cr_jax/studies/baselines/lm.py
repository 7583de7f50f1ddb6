"""Baseline `lm`: one causal language model per domain, the likeliest domain wins.

The likelihood posterior of DEMix and Branch-Train-Merge at equal priors: models of a compressor's
size from the same blocks (`models.lm`), each on its own domain only, with the compressors'
optimiser, batches and number of tokens.  Not in the paper.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from cr_jax import models
from cr_jax.config import Experiment, ModelConfig
from cr_jax.models import objective
from cr_jax.parallel import plan as parallel
from cr_jax.studies.baselines.interface import Baseline, Budget, TrainingText, cut, fitted
from cr_jax.training.losses import LanguageModelLoss

_LOGITS = 1 << 31  # logits of all models that stand in memory at once


def fit(
    text: TrainingText,
    lengths: Sequence[int],
    budget: Budget,
    experiment: Experiment,
    model: ModelConfig,
) -> Baseline:
    """Trains on `budget.lm_tokens` tokens per domain, or as long as `config.train` says.

    Scores are mean nats/token, negated; a prefix is scored in its whole window's pass, for the
    model sees no later token.  `UserError` as `interface.fitted` and `make_plan` raise it.
    """
    settings, experts = experiment.train, len(text.names)
    plan = parallel.make_plan(experiment.parallel, experts, settings.batch, experiment.mesh_expert)
    together = experts if settings.experts_by == "vmap" else 1
    chunk = min(settings.loss_chunk, max(1, _LOGITS // (model.vocab_size * together)))
    net = models.CausalLm(model)

    # A run that is to last seconds has no number of steps of its own.
    seconds = budget.seconds or (0.0 if budget.lm_tokens else settings.seconds)
    each = settings.batch * model.window
    steps = -(-budget.lm_tokens // each) or settings.steps or -(-settings.tokens // each) or 10**9
    limits = dataclasses.replace(settings, steps=steps, tokens=0, seconds=seconds, accumulate=1)
    params, note = fitted(
        dataclasses.replace(experiment, train=limits),
        LanguageModelLoss(model, chunk),
        text.names,
        plan,
        lambda step: text.batches(settings.batch),
    )

    @jax.jit
    def score(params, tokens):
        one = lambda p: (
            objective.token_scores(
                net.apply(p, tokens), models.head(model, p), tokens, settings.loss_chunk
            ).nll
        )
        return jax.lax.map(one, params)

    def predict(tokens, mask, lengths):
        rows, parts = experiment.eval.batch, []
        for i in range(0, len(tokens), rows):
            part = tokens[i : i + rows]
            fill = ((0, rows - len(part)), (0, 0))
            nll = np.asarray(score(params, np.pad(part, fill)), np.float64)[:, : len(part)]
            parts.append(
                np.stack(
                    [
                        -np.einsum("enl,nl->en", nll, kept) / np.maximum(kept.sum(1), 1)[None]
                        for kept in (cut(mask[i : i + rows], length) for length in lengths)
                    ]
                )
            )
        return np.concatenate(parts, axis=-1)

    return Baseline(
        predict,
        independent=True,
        unit="nats/token",
        note={
            **note,
            "parameters": models.count_lm_parameters(model),
            "tokens_per_domain": note["steps"] * each,
        },
    )
