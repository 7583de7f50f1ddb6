"""Baseline `lm`: one causal language model per domain, the likeliest domain wins.

The likelihood posterior of DEMix (arXiv 2108.05036) and Branch-Train-Merge (arXiv 2208.03306) at
equal priors: decoders of a compressor's width and depth (`models.lm`), each on its own domain only,
with the compressors' optimiser, batches and number of tokens.  Not in the paper.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from cr_jax.config import Experiment, LmConfig, ModelConfig
from cr_jax.models import lm, objective
from cr_jax.parallel import plan as parallel
from cr_jax.studies.baselines.interface import Baseline, Budget, TrainingText, cut, fitted
from cr_jax.training.losses import LanguageModelLoss, logits_chunk


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
    config = _alike(model)
    chunk = logits_chunk(settings, model.vocab_size, experts)
    net = lm.make_lm(config)

    # A run that is to last seconds has no number of steps of its own.
    seconds = budget.seconds or (0.0 if budget.lm_tokens else settings.seconds)
    each = settings.batch * model.window
    steps = -(-budget.lm_tokens // each) or settings.steps or -(-settings.tokens // each) or 10**9
    limits = dataclasses.replace(settings, steps=steps, tokens=0, seconds=seconds, accumulate=1)
    params, note = fitted(
        dataclasses.replace(experiment, train=limits),
        LanguageModelLoss(config, model.window, chunk),
        text.names,
        plan,
        lambda step: text.batches(settings.batch),
    )

    @jax.jit
    def score(params, tokens):
        one = lambda p: (
            objective.token_scores(
                net.apply(p, tokens), lm.head(config, p), tokens, settings.loss_chunk
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
            "parameters": lm.count_lm_parameters(config),
            "tokens_per_domain": note["steps"] * each,
        },
    )


def _alike(model: ModelConfig) -> LmConfig:
    """A language model with the compressor's widths and all its blocks, at least one."""
    return LmConfig(
        vocab_size=model.vocab_size,
        d_model=model.d_model,
        heads=model.heads,
        d_ff=model.d_ff,
        blocks=max(1, model.encoder_blocks + model.decoder_blocks),
        tie_embeddings=model.tie_embeddings,
        dtype=model.dtype,
        attention=model.attention,
        kernels=model.kernels,
        remat=model.remat,
        scan=model.scan,
    )
