"""Baseline `lm`: one causal language model per domain, the likeliest domain wins.

The likelihood posterior of DEMix and Branch-Train-Merge at equal priors: models of a compressor's
size from the same blocks (`models.lm`), each on its own domain only, with the compressors'
optimiser, batches and number of tokens.  Not in the paper.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cr_jax import models
from cr_jax.config import Experiment, ModelConfig
from cr_jax.models import objective
from cr_jax.parallel import plan as parallel
from cr_jax.studies.baselines import stacked_training
from cr_jax.studies.baselines.interface import Baseline, Budget, TrainingText, cut

_LOGITS = 1 << 31  # logits of all models that stand in memory at once


def fit(text: TrainingText, lengths: Sequence[int], budget: Budget, experiment: Experiment,
        model: ModelConfig) -> Baseline:
    """Trains on `budget.lm_tokens` tokens per domain, or as long as `config.train` says.

    Scores are mean nats/token, negated; a prefix is scored in its whole window's pass, for the
    model sees no later token.  `UserError` as `stacked_training.train` and `make_plan` raise it.
    """
    settings, experts = experiment.train, len(text.names)
    plan = parallel.make_plan(experiment.parallel, experts, settings.batch,
                              experiment.mesh_expert)
    together = experts if settings.experts_by == "vmap" else 1
    chunk = min(settings.loss_chunk, max(1, _LOGITS // (model.vocab_size * together)))
    net = models.CausalLm(model)

    def loss(params, batch, total):
        tokens = batch["tokens"]
        mask = batch.get("mask", jnp.ones(tokens.shape, bool))
        count = total(jnp.sum(mask, dtype=jnp.float32))
        return objective.linear_cross_entropy(
            net.apply(params, tokens), models.head(model, params), tokens, mask / count, chunk)[0]

    # A run that is to last seconds has no number of steps of its own.
    seconds = budget.seconds or (0.0 if budget.lm_tokens else settings.seconds)
    each = settings.batch * model.window
    steps = (-(-budget.lm_tokens // each) or settings.steps or -(-settings.tokens // each)
             or 10**9)
    fitted = stacked_training.train(
        plan, parallel.expert_keys(experiment.seed, text.names),
        lambda key: models.init_lm(model, key), loss, experiment.optimizer,
        text.batches(settings.batch), steps, seconds, settings.experts_by)

    @jax.jit
    def score(params, tokens):
        one = lambda p: objective.token_scores(
            net.apply(p, tokens), models.head(model, p), tokens, settings.loss_chunk).nll
        return jax.lax.map(one, params)

    def predict(tokens, mask, lengths):
        rows, parts = experiment.eval.batch, []
        for i in range(0, len(tokens), rows):
            part = tokens[i:i + rows]
            fill = ((0, rows - len(part)), (0, 0))
            nll = np.asarray(score(fitted.params, np.pad(part, fill)), np.float64)[:, :len(part)]
            parts.append(np.stack([
                -np.einsum("enl,nl->en", nll, kept) / np.maximum(kept.sum(1), 1)[None]
                for kept in (cut(mask[i:i + rows], length) for length in lengths)]))
        return np.concatenate(parts, axis=-1)

    return Baseline(predict, independent=True, unit="nats/token", note={
        **fitted.note, "parameters": models.count_lm_parameters(model),
        "tokens_per_domain": fitted.note["steps"] * each})
