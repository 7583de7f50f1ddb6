"""The pure training step of one expert; `cr_jax.parallel.plan` maps it over experts and devices.

The only place where a model's parameters are updated (tests/training/test_one_trainer.py).
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray

from cr_jax.config import OptimizerConfig
from cr_jax.training.losses import Loss, joined, parted
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
    key: Any  # raw key data: the run's seed, never changed
    rate: Any = None  # float32, of its peak learning rates relative to the optimizer's; None: 1
    best: Any = None  # the parameters of its best look at valid, where they are kept


def init_state(
    loss: Loss,
    optimizer: OptimizerConfig,
    key: PRNGKeyArray,
    rate: float | None = None,
    keep_best: bool = False,
    blank: bool = False,
) -> TrainState:
    """Fresh state of one expert; call it under `jax.jit`.  blank: with zeros for parameters, where
    others take their place at once: drawing them compiles for seconds."""
    params = (
        jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(loss.init, key))
        if blank
        else loss.init(key)
    )
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=make_optimizer(optimizer).init(parted(loss, params)[0]),
        key=jax.random.key_data(key),
        rate=None if rate is None else jnp.float32(rate),
        best=jax.tree.map(jnp.zeros_like, params) if keep_best else None,
    )


def make_train_step(
    loss: Loss, optimizer: OptimizerConfig, accumulate: int = 1, axis_name: str | None = None
) -> Callable[[TrainState, dict, Array], tuple[TrainState, dict]]:
    """-> `train_step(state, batch, progress) -> (state, sums)`.

    batch: what the loss takes, such as {"tokens" int32 [B, L], optional "mask" bool [B, L]};
    progress in [0, 1] sets the learning rate, and from 1 on the parameters stay.  sums: those of
    the loss over the batch, and the gradient norm.  accumulate: into how many micro-batches a
    device's rows are cut.  Where each device runs a step of its own
    (`parallel.plan.Plan.steps_alone`), `axis_name` names the data axis that gradients and sums are
    added over.
    """
    tx = make_optimizer(optimizer)
    total = (lambda x: jax.lax.psum(x, axis_name)) if axis_name else lambda x: x
    gradient = jax.grad(
        lambda trained, held, rows, count: loss(joined(trained, held), rows, count), has_aux=True
    )

    def train_step(state: TrainState, batch: dict, progress: Array):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        rows, count = loss.rows(batch, key, axis_name)
        count = total(count)
        trained, held = parted(loss, state.params)
        if accumulate == 1:
            grads, sums = gradient(trained, held, rows, count)
        else:
            # Every accumulate-th row: a block of rows would lie on few of the devices and have to
            # be moved.
            split = lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1)
            pieces = jax.tree.map(split, rows)

            def add(carry, piece):
                return jax.tree.map(jnp.add, carry, gradient(trained, held, piece, count)), None

            first = jax.tree.map(lambda x: x[0], pieces)
            zero = jax.tree.map(
                lambda s: jnp.zeros(s.shape, s.dtype),
                jax.eval_shape(gradient, trained, held, first, count),
            )
            (grads, sums), _ = jax.lax.scan(add, zero, pieces)
        grads, sums = total(grads), total(sums)
        updates, opt_state = tx.update(grads, state.opt_state, trained)
        factor = rate(optimizer, progress)
        if state.rate is not None:
            factor *= state.rate
        trained = optax.apply_updates(trained, jax.tree.map(lambda u: u * factor, updates))
        sums["gradient_norm"] = optax.tree.norm(grads)
        params = joined(trained, held)
        return state.replace(step=state.step + 1, params=params, opt_state=opt_state), sums

    return train_step
