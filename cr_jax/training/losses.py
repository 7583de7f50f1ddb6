"""What a training step lowers, and of which model: one loss each, trained by the same loop.

`training.step` and `training.loop` know of a model only what `Loss` says.  Not in the paper, but
for the compressor's loss, its cross-entropy (section 1).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from cr_jax import models
from cr_jax.config import LmConfig, ModelConfig, TrainConfig, TransformerConfig
from cr_jax.models import lm, objective
from cr_jax.models.layers import row_kernels
from cr_jax.training.draws import draw_for, draw_ids, replace_some
from cr_jax.training.speed import classifier_flops_per_token, flops_per_token, lm_flops_per_token

Rows = Mapping[str, Array]  # leaves [B, ...]


@runtime_checkable
class Loss(Protocol):
    """A model to train.  All methods are pure; each expert calls them for itself.

    A loss may have `frozen`, names at the top of its parameters: a step reads these and leaves them
    as they are (`parted`).
    """

    @property
    def model(self) -> TransformerConfig:
        """Sizes, for a workdir's record and the banner."""

    @property
    def window(self) -> int:
        """Tokens of a training window."""

    @property
    def flops_per_token(self) -> float:
        """Of training, for MFU (`training.speed`)."""

    def init(self, key: PRNGKeyArray) -> Any:
        """Fresh parameters."""

    def rows(
        self, batch: Rows, key: PRNGKeyArray, axis_name: str | None
    ) -> tuple[dict[str, Array], Float[Array, ""]]:
        """(the batch with what the step draws for its rows, how many targets its mean is over).

        key: of this step and expert.  axis_name: over whose devices the rows are split.
        """

    def __call__(
        self, params: Any, rows: Rows, count: Float[Array, ""]
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """(these rows' part of the mean loss over `count` targets, `objective.score_sums`).

        The rows are those of `rows`, or some of them.
        """

    def score(self, params: Any, rows: Rows) -> dict[str, Array]:
        """`objective.score_sums` of windows for validation, as every evaluation makes them.

        rows: "tokens" and "mask" [B, L], and "counted" [B, L], the tokens that are summed over.
        """


def parted(loss: Loss, params: Any) -> tuple[Any, dict[str, Any]]:
    """(what a step trains, what it leaves as it is), by the names in `loss.frozen`."""
    frozen = getattr(loss, "frozen", ())
    if not frozen:
        return params, {}
    return {k: v for k, v in params.items() if k not in frozen}, {k: params[k] for k in frozen}


def joined(trained: Any, held: dict[str, Any]) -> Any:
    """The tree that `parted` took apart."""
    return {**trained, **held} if held else trained


@dataclasses.dataclass(frozen=True)
class CompressorLoss:
    """Cross-entropy of rebuilding every token; of a predictive model also of predicting it.

    nats/token; predictions weigh `train.predict_weight`.  With `train.vocab_sample` the softmax of
    a step is over so many ids alone (sampled softmax, arXiv 1412.2007): all of the batch and others
    at random; validation and every evaluation are over all.  devices: how many devices' rows one
    traced step sees (`parallel.plan.Plan.devices_seen`): `train.loss_chunk` counts tokens of one.
    """

    model: ModelConfig
    train: TrainConfig
    devices: int = 1

    @property
    def window(self) -> int:
        return self.model.window

    @property
    def flops_per_token(self) -> float:
        ids = self.train.vocab_sample or self.model.vocab_size
        return flops_per_token(dataclasses.replace(self.model, vocab_size=ids))

    @property
    def chunk(self) -> int:
        return self.train.loss_chunk * self.devices

    def init(self, key):
        return models.init(self.model, key)

    def rows(self, batch, key, axis_name):
        fields, kept = draw_for(self.model, self.train, batch["tokens"].shape, key, axis_name)
        tokens, mask = batch["tokens"], batch.get("mask")
        if kept is not None:
            mask = kept if mask is None else mask & kept
        if self.train.replaced:
            tokens = replace_some(tokens, self.train.replaced, key, axis_name)
        fields["tokens"] = tokens
        if size := self.train.vocab_sample:
            ids = draw_ids(tokens, self.model.vocab_size, size, key, axis_name)
            # One row for each window: a micro-batch takes its rows of all fields.
            fields["vocab"] = jnp.broadcast_to(ids, (len(tokens), size))
        if mask is None:
            return fields, jnp.float32(tokens.size)
        return {**fields, "mask": mask}, jnp.sum(mask, dtype=jnp.float32)

    def __call__(self, params, rows, count):
        model, tokens, mask = self.model, rows["tokens"], rows.get("mask")
        net, kernel = models.Autoencoder(model), models.head(model, params)
        options = {k: rows[k] for k in ("rate", "hidden") if k in rows}
        if model.predictive:
            h, ahead = net.apply(params, tokens, mask, **options, method="rebuild_and_predict")
        else:
            (h, _), ahead = net.apply(params, tokens, mask, **options), None
        counted = jnp.ones(tokens.shape, bool) if mask is None else mask
        targets = tokens
        if "vocab" in rows:
            kernel, targets, inside = _sampled(kernel, tokens, rows["vocab"][0])
            counted &= inside

        def cross_entropy(states, weights):
            return objective.linear_cross_entropy(
                states, kernel, targets, weights, self.chunk, row_kernels(model)
            )

        value, scores = cross_entropy(h, counted.astype(jnp.float32) / count)
        sums = objective.score_sums(scores, counted)
        if ahead is not None:
            weights = self.train.predict_weight * counted.astype(jnp.float32) / count
            more, scores = cross_entropy(ahead, weights)
            value += more
            sums["predicted_nll"] = jnp.sum(jnp.where(counted, scores.nll, 0.0))
        return value, sums

    def score(self, params, rows):
        model, tokens, mask = self.model, rows["tokens"], rows.get("mask")
        net, kernel = models.Autoencoder(model), models.head(model, params)
        if model.predictive:
            h, ahead = net.apply(params, tokens, mask, method="rebuild_and_predict")
        else:
            (h, _), ahead = net.apply(params, tokens, mask), None
        sums = objective.score_sums(
            objective.token_scores(h, kernel, tokens, self.chunk), rows["counted"]
        )
        if ahead is not None:
            nll = objective.token_scores(ahead, kernel, tokens, self.chunk).nll
            sums["predicted_nll"] = jnp.sum(jnp.where(rows["counted"], nll, 0.0))
        return sums


# How long a run lasts, and what it writes: no step reads them.
_OF_THE_RUN = ("steps", "tokens", "seconds", "max_epochs", "log_every", "wandb")
_OF_THE_RUN += ("checkpoint_every", "keep_checkpoints", "profile", "watchdog")


def of_a_step(loss: Loss) -> Loss:
    """A loss that a step computes alike, and that is equal in runs that differ in length or in what
    they write."""
    if not isinstance(loss, CompressorLoss):
        return loss
    usual = {f.name: f.default for f in dataclasses.fields(TrainConfig) if f.name in _OF_THE_RUN}
    return dataclasses.replace(loss, train=dataclasses.replace(loss.train, **usual))


def _sampled(
    kernel: Float[Array, "D V"], tokens: Int[Array, "B L"], ids: Int[Array, " S"]
) -> tuple[Float[Array, "D S"], Int[Array, "B L"], Bool[Array, "B L"]]:
    """(the columns of `ids`, the tokens' places among them, whether they are among them)."""
    columns = kernel.at[:, ids].get(indices_are_sorted=True, unique_indices=True)
    place = (
        jnp.full(kernel.shape[1], -1, jnp.int32)
        .at[ids]
        .set(jnp.arange(len(ids), dtype=jnp.int32), indices_are_sorted=True, unique_indices=True)[
            tokens
        ]
    )
    return columns, jnp.maximum(place, 0), place >= 0


@dataclasses.dataclass(frozen=True)
class LanguageModelLoss:
    """Cross-entropy of predicting each token by a `models.lm`, in nats/token.

    window: tokens of a training window.  chunk: tokens whose logits stand in memory at once.
    """

    model: LmConfig
    window: int
    chunk: int = 8192

    @property
    def flops_per_token(self) -> float:
        return lm_flops_per_token(self.model, self.window)

    def init(self, key):
        return lm.init(self.model, key)

    def rows(self, batch, key, axis_name):
        mask = batch.get("mask")
        return dict(batch), (
            jnp.float32(batch["tokens"].size) if mask is None else jnp.sum(mask, dtype=jnp.float32)
        )

    def __call__(self, params, rows, count):
        tokens = rows["tokens"]
        mask = rows.get("mask", jnp.ones(tokens.shape, bool))
        value, scores = objective.linear_cross_entropy(
            lm.make_lm(self.model).apply(params, tokens),
            lm.head(self.model, params),
            tokens,
            mask.astype(jnp.float32) / count,
            self.chunk,
            row_kernels(self.model),
        )
        return value, objective.score_sums(scores, mask)

    def score(self, params, rows):
        h = lm.make_lm(self.model).apply(params, rows["tokens"])
        return objective.score_sums(
            objective.token_scores(h, lm.head(self.model, params), rows["tokens"], self.chunk),
            rows["counted"],
        )


# Logits of all models of a step that stand in memory at once: 4 GiB in half precision.
_LOGITS = 1 << 31


def logits_chunk(train: TrainConfig, vocab_size: int, models: int) -> int:
    """Tokens of each of several language models whose logits a step holds at once."""
    together = models if train.experts_by == "vmap" else 1
    return min(train.loss_chunk, max(1, _LOGITS // (vocab_size * together)))


@dataclasses.dataclass(frozen=True)
class ClassifierLoss:
    """Cross-entropy of naming a window's class, in nats/window; its "tokens" are windows.

    net: `apply(params, tokens, mask) -> logits [B, classes]`.  Batches have "tokens" and "mask"
    [B, L], and "label" [B].
    """

    model: ModelConfig
    net: nn.Module

    @property
    def window(self) -> int:
        return self.model.window

    @property
    def flops_per_token(self) -> float:
        return classifier_flops_per_token(self.model)

    def init(self, key):
        blank = jnp.zeros((1, self.model.window), jnp.int32)
        return self.net.init(key, blank, blank == 0)

    def rows(self, batch, key, axis_name):
        return dict(batch), jnp.float32(len(batch["label"]))

    def __call__(self, params, rows, count):
        logits = self.net.apply(params, rows["tokens"], rows["mask"])
        own = jnp.take_along_axis(jax.nn.log_softmax(logits), rows["label"][:, None], axis=1)
        right = jnp.argmax(logits, -1)[:, None] == rows["label"][:, None]
        sums = objective.score_sums(objective.TrainScores(-own, right), jnp.ones(own.shape, bool))
        return -jnp.sum(own) / count, sums

    def score(self, params, rows):
        raise NotImplementedError("a classifier is judged where its labels are")
