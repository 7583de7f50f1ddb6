"""The pure training step of one expert; `cr_jax.parallel.plan` maps it over experts and devices."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from cr_jax import models
from cr_jax.config import ModelConfig, OptimizerConfig, TrainConfig
from cr_jax.models import objective
from cr_jax.models.layers import row_kernels
from cr_jax.training.optimizer import make_optimizer, rate


@flax.struct.dataclass
class TrainState:
    """Everything a step changes; checkpointed whole.

    Of one expert, or stacked with a leading axis [E, ...] on every leaf; also a tree of shapes or
    of numpy arrays, so the leaves' types are not declared.
    """

    step: Any  # int32, steps done
    params: Any
    opt_state: Any
    average: Any  # averaged weights, or None when train.ema is 0
    key: Any  # raw key data: the run's seed, never changed


def init_state(
    model: ModelConfig, optimizer: OptimizerConfig, train: TrainConfig, key: PRNGKeyArray
) -> TrainState:
    """Fresh state of one expert; call it under `jax.jit`."""
    params = models.init(model, key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=make_optimizer(optimizer).init(params),
        average=jax.tree.map(jnp.copy, params) if train.ema else None,
        key=jax.random.key_data(key))


def make_train_step(
    model: ModelConfig, optimizer: OptimizerConfig, train: TrainConfig, axis_name: str | None = None
) -> Callable[[TrainState, dict, Array], tuple[TrainState, dict]]:
    """-> `train_step(state, batch, progress) -> (state, sums)`.

    batch: {"tokens" int32 [B, L], optional "mask" bool [B, L]}; progress in [0, 1] sets the
    learning rate, and from 1 on the parameters stay.  sums: `objective.score_sums` of the batch,
    the gradient norm and, for a predictive model, the sum of its predictions' nll.  Where
    each device runs a step of its own (`parallel.Plan.steps_alone`), `axis_name` names the data
    axis that gradients and sums are added over.
    """
    tx = make_optimizer(optimizer)
    net = models.Autoencoder(model)
    total = (lambda x: jax.lax.psum(x, axis_name)) if axis_name else lambda x: x

    def loss(params, tokens, mask, options, count):
        if model.predictive:
            h, ahead = net.apply(params, tokens, mask, **options, method="rebuild_and_predict")
        else:
            (h, _), ahead = net.apply(params, tokens, mask, **options), None
        counted = jnp.ones(tokens.shape, bool) if mask is None else mask
        weights = counted.astype(jnp.float32) / count
        if "hidden" in options:
            weights = jnp.where(options["hidden"], train.hidden_weight * weights, weights)
        kernel = models.head(model, params)
        value, scores = objective.linear_cross_entropy(
            h, kernel, tokens, weights, train.loss_chunk, row_kernels(model))
        sums = objective.score_sums(scores, counted)
        if ahead is not None:
            more, scores = objective.linear_cross_entropy(
                ahead, kernel, tokens, train.predict_weight * counted.astype(jnp.float32) / count,
                train.loss_chunk, row_kernels(model))
            value += more
            sums["predicted_nll"] = jnp.sum(jnp.where(counted, scores.nll, 0.0))
        return value, sums

    def train_step(state: TrainState, batch: dict, progress: Array):
        tokens, mask = batch["tokens"], batch.get("mask")
        options, kept = _draw(model, train, state, tokens.shape, axis_name, progress)
        if kept is not None:
            mask = kept if mask is None else mask & kept
        count = total(
            jnp.float32(tokens.size) if mask is None else jnp.sum(mask, dtype=jnp.float32))
        gradient = jax.grad(loss, has_aux=True)
        if train.accumulate == 1:
            grads, sums = gradient(state.params, tokens, mask, options, count)
        else:
            # Every accumulate-th row: a block of rows would lie on few of the devices and have to
            # be moved.
            split = lambda x: x.reshape(-1, train.accumulate, *x.shape[1:]).swapaxes(0, 1)
            pieces = jax.tree.map(split, (tokens, mask, options))

            def add(carry, piece):
                return jax.tree.map(jnp.add, carry, gradient(state.params, *piece, count)), None

            first = jax.tree.map(lambda x: x[0], pieces)
            zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype),
                                jax.eval_shape(gradient, state.params, *first, count))
            (grads, sums), _ = jax.lax.scan(add, zero, pieces)
        grads, sums = total(grads), total(sums)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        factor = rate(optimizer, progress)
        params = optax.apply_updates(state.params, jax.tree.map(lambda u: u * factor, updates))
        average = state.average
        if train.ema:
            # A young average follows the weights closely: decay grows to its final value.
            done = state.step.astype(jnp.float32)
            decay = jnp.minimum(train.ema, (1.0 + done) / (10.0 + done))
            average = jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), average, params)
        sums["gradient_norm"] = optax.tree.norm(grads)
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state,
                             average=average), sums

    return train_step


def _draw(model, train, state, shape, axis_name, progress):
    """A step's random rate, hidden tokens and shortened windows: (arguments of the model, mask).

    Drawn for the global batch and sliced, so that device counts do not change a run.
    """
    options, kept = {}, None
    hides = train.hidden or train.hidden_final
    if not (train.nested or hides or train.short):
        return options, kept
    rows, window = shape
    devices = jax.lax.psum(1, axis_name) if axis_name else 1
    index = jax.lax.axis_index(axis_name) if axis_name else 0
    mine = lambda x: jax.lax.dynamic_slice_in_dim(x, index * rows, rows)
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    keys = jax.random.split(key, 7)
    everyone = rows * devices

    def some(share, which, full):
        """1 to `full` for a share of the rows, `full` for the others."""
        chosen = jax.random.uniform(keys[which], (everyone,)) < share
        # Log-uniform: k as often as log((k + 1) / k), so every octave equally often.
        place = jax.random.uniform(keys[which + 1], (everyone,))
        drawn = jnp.floor(jnp.exp(place * jnp.log(full + 1.0))).astype(jnp.int32)
        return jnp.where(chosen, jnp.minimum(drawn, full), full)

    if train.nested:
        options["rate"] = mine(
            some(train.nested, 0, models.make_bottleneck(model).rates))
    if hides:
        share = jax.random.uniform(
            keys[2], (everyone, 1), minval=train.hidden_low, maxval=train.hidden_high)
        windows = train.hidden + (train.hidden_final - train.hidden) * progress
        share = jnp.where(jax.random.uniform(keys[3], (everyone, 1)) < windows, share, 0.0)
        options["hidden"] = mine(jax.random.uniform(keys[4], (everyone, window)) < share)
    if train.short:
        kept = jnp.arange(window)[None] < mine(some(train.short, 5, window))[:, None]
    return options, kept
