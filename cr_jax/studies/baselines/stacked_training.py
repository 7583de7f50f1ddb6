"""Training on JAX's devices for the baselines `gate` and `lm`: the compressors' optimiser and plan.

No checkpoints: a baseline trains for minutes and is measured at once.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import flax.struct
import jax
import numpy as np
import optax

from cr_jax.config import OptimizerConfig
from cr_jax.errors import UserError
from cr_jax.parallel.plan import Plan
from cr_jax.training.optimizer import make_optimizer, rate


@flax.struct.dataclass
class State:
    """Of one model, or stacked [E, ...]; also a tree of shapes, so types are not declared."""

    params: Any
    opt_state: Any


@dataclasses.dataclass(frozen=True)
class Fitted:
    params: Any  # stacked [E, ...], on the devices
    note: dict  # steps, seconds, the last step's loss of each model in nats


def train(
    plan: Plan,
    keys: jax.Array,
    init: Callable[[jax.Array], Any],
    loss: Callable[[Any, dict, Callable], jax.Array],
    optimizer: OptimizerConfig,
    batches: Iterator[dict[str, np.ndarray]],
    steps: int,
    seconds: float = 0.0,
    experts_by: str = "vmap",
) -> Fitted:
    """Trains `len(keys)` models side by side for `steps`, at most `seconds` after the first step.

    init(key) -> parameters; loss(params, batch, total) -> this device's share of the mean loss,
    where total(x) adds x over the devices that share a batch.  The learning rate reaches its end
    whichever limit comes first.  `UserError` when a loss is not finite.
    """
    tx = make_optimizer(optimizer)

    def make_state(key):
        params = init(key)
        return State(params, tx.init(params))

    def make_step(axis_name):
        total = (lambda x: jax.lax.psum(x, axis_name)) if axis_name else lambda x: x

        def step(state, batch, progress):
            value, grads = jax.value_and_grad(loss)(state.params, batch, total)
            updates, opt_state = tx.update(total(grads), state.opt_state, state.params)
            factor = rate(optimizer, progress)
            params = optax.apply_updates(
                state.params, jax.tree.map(lambda u: u * factor, updates))
            return State(params, opt_state), total(value)

        return step

    state = plan.init(make_state, keys)
    batch = plan.put(next(batches))
    program = plan.compile_step(make_step, experts_by, state, batch)
    done, progress, began, value, pending = 0, 0.0, None, None, None
    while progress < 1:
        if done:
            batch = plan.put(next(batches))
        state, value = program(state, batch, np.float32(progress))
        done += 1
        # One step ahead, so that the clock below is the device's; none on a CPU, where run-ahead
        # gains nothing.
        ahead, pending = (value, None) if jax.default_backend() == "cpu" else (pending, value)
        if ahead is not None:
            jax.block_until_ready(ahead)
        if began is None:
            jax.block_until_ready(value)
            began = time.perf_counter()
        passed = time.perf_counter() - began
        progress = max(done / steps, passed / seconds if seconds else 0.0)
    last = np.asarray(jax.device_get(value), np.float64).reshape(-1)
    if not np.isfinite(last).all():
        raise UserError("the loss of a trained baseline is not finite; lower "
                        "config.optimizer.learning_rate and muon_learning_rate")
    return Fitted(plan.gather(state).params,
                  {"steps": done, "seconds": time.perf_counter() - began,
                   "last_loss": last.tolist()})
