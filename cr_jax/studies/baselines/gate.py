"""Baseline `gate`: a learned router of one compressor's size, trained on all domains together.

The compressor's embedding and encoder + decoder blocks, a mean over the window, one logit per
domain.  It is told what the experts never are: the other domains' text.  Not in the paper.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cr_jax.config import Experiment, ModelConfig
from cr_jax.models.kernels import rms_norm
from cr_jax.models.layers import Stack, compute_dtype
from cr_jax.parallel import plan as parallel
from cr_jax.studies.baselines.interface import Baseline, Budget, TrainingText, cut, fitted
from cr_jax.training.losses import ClassifierLoss


class Gate(nn.Module):
    """Window -> one logit per domain; reads widths, heads, vocabulary and depth of `config`."""

    config: ModelConfig
    domains: int

    @nn.compact
    def __call__(self, tokens: Int[Array, "B L"], mask: Bool[Array, "B L"]) -> Float[Array, "B E"]:
        """`mask`: True on real tokens, which come first; ids under False change nothing."""
        c = self.config
        table = self.param("embedding", nn.initializers.normal(1.0), (c.vocab_size, c.d_model))
        x = rms_norm(table[tokens].astype(compute_dtype(c)))
        h = rms_norm(
            Stack(c, c.encoder_blocks + c.decoder_blocks, name="encoder")(
                x, jnp.arange(tokens.shape[1]), jnp.sum(mask, -1, dtype=jnp.int32)
            )
        )
        real = mask.astype(jnp.float32)
        weight = real / jnp.maximum(jnp.sum(real, -1, keepdims=True), 1)
        mean = jnp.einsum("bld,bl->bd", h.astype(jnp.float32), weight)
        kernel = self.param("classes", nn.initializers.zeros_init(), (c.d_model, self.domains))
        return mean @ kernel


def fit(
    text: TrainingText,
    lengths: Sequence[int],
    budget: Budget,
    experiment: Experiment,
    model: ModelConfig,
) -> Baseline:
    """Trains `budget.gate_steps` steps of `budget.gate_batch` windows per domain.

    Half of the windows are cut to a random length, so that one gate serves all of them.  Scores
    are logits.  `UserError` as `interface.fitted` and `make_plan` raise it.
    """
    domains = len(text.names)
    net = Gate(model, domains)
    plan = parallel.make_plan(experiment.parallel, 1, budget.gate_batch * domains)
    limits = dataclasses.replace(
        experiment.train,
        batch=budget.gate_batch * domains,
        steps=budget.gate_steps,
        tokens=0,
        seconds=budget.seconds,
        accumulate=1,
    )
    params, note = fitted(
        dataclasses.replace(experiment, train=limits),
        ClassifierLoss(model, net),
        ("gate",),
        plan,
        lambda step: _batches(text, budget.gate_batch, min(lengths)),
    )
    params = jax.tree.map(lambda x: x[0], params)
    score = jax.jit(net.apply)

    def predict(tokens, mask, lengths):
        rows, out = experiment.eval.batch, np.empty((len(lengths), domains, len(tokens)))
        for k, length in enumerate(lengths):
            kept = cut(mask, length)
            for i in range(0, len(tokens), rows):
                part = tokens[i : i + rows]
                fill = ((0, rows - len(part)), (0, 0))
                logits = score(
                    params,
                    np.pad(part, fill),
                    np.pad(kept[i : i + rows], fill, constant_values=True),
                )
                out[k, :, i : i + rows] = np.asarray(logits)[: len(part)].T
        return out

    return Baseline(
        predict,
        independent=False,
        unit="logit",
        note={
            **note,
            "parameters": sum(x.size for x in jax.tree.leaves(params)),
            "tokens_per_domain": note["steps"] * budget.gate_batch * model.window,
        },
    )


def _batches(text: TrainingText, batch: int, shortest: int) -> Iterator[dict[str, np.ndarray]]:
    """{"tokens", "mask" [1, E B, L], "label" [1, E B]}: the rows of all domains in one batch."""
    rng = np.random.default_rng(text.seed)
    label = np.repeat(np.arange(len(text.names), dtype=np.int32), batch)
    for drawn in text.batches(batch):
        tokens = drawn["tokens"].reshape(-1, text.window)
        mask = (
            drawn["mask"].reshape(tokens.shape) if "mask" in drawn else np.ones(tokens.shape, bool)
        )
        # Log-uniform: every octave of the length is trained equally often.
        length = np.exp(rng.uniform(np.log(shortest), np.log(text.window + 1), len(tokens)))
        length = np.where(rng.random(len(tokens)) < 0.5, length, text.window).astype(int)
        mask = mask & (np.arange(text.window) < length[:, None])
        yield {"tokens": tokens[None], "mask": mask[None], "label": label[None]}
