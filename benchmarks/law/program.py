"""One stack of cells as one program: first weights, training and test score without the host.

Windows are drawn on the device from rows of ids that lie there, so that the host's cores are free
to compile the next programs while this one trains.
"""

import functools
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from cr_jax import models
from cr_jax.config import ModelConfig, OptimizerConfig, TrainConfig
from cr_jax.models import objective
from cr_jax.training.losses import CompressorLoss
from cr_jax.training.step import init_state, make_train_step

LOG = 16  # entries of a cell's training curve


class Rows(NamedTuple):
    """Text on the device; all sources of a stack share a vocabulary.

    train: ids [S, T], padded; lengths: how many of each are real; test: windows [S, N, L].
    """

    train: Int[Array, "S T"]
    lengths: Int[Array, " S"]
    test: Int[Array, "S N L"]


class Program:
    """Compiled for one shape, one number of cells and one size of the text; any number of steps."""

    def __init__(
        self,
        model: ModelConfig,
        optimizer: OptimizerConfig,
        train: TrainConfig,
        cells: int,
        rows: Rows,
    ):
        """rows: arrays or their shapes.  Compiles, in the calling thread."""
        began = time.perf_counter()
        of = jax.ShapeDtypeStruct
        shapes = jax.tree.map(lambda x: of(x.shape, x.dtype), rows)
        per_cell = of((cells,), jnp.int32)
        self.call = (
            jax.jit(functools.partial(_measure, model, optimizer, train))
            .lower(per_cell, per_cell, shapes, of((), jnp.int32))
            .compile()
        )
        self.compile_seconds = time.perf_counter() - began

    def __call__(
        self, seeds: Sequence[int], sources: Sequence[int], rows: Rows, steps: int
    ) -> tuple[list[dict], list[list[float]], float]:
        """Per cell `objective.metrics` of its test windows and its curve of training nats/token;
        seconds.  seeds, sources: of each cell; a source is a row of `rows`.
        """
        began = time.perf_counter()
        ints = lambda x: np.asarray(x, np.int32)
        sums, curve = jax.device_get(self.call(ints(seeds), ints(sources), rows, ints(steps)))
        cells = [
            objective.metrics({k: float(v[e]) for k, v in sums.items()}) for e in range(len(seeds))
        ]
        return cells, curve.T.tolist(), time.perf_counter() - began


def _measure(model, optimizer, train, seeds, sources, rows, steps):
    """-> (sums of the test windows, each [E]; nats/token of the training curve [LOG, E])."""
    loss = CompressorLoss(model, train)
    make = functools.partial(init_state, loss, optimizer)
    state = jax.vmap(lambda seed: make(jax.random.key(seed)))(seeds)
    together = jax.vmap(make_train_step(loss, optimizer, train.accumulate), in_axes=(0, 0, None))

    def draw(seed, source, step):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), seed), step)
        first = jax.random.randint(
            key, (train.batch, 1), 0, rows.lengths[source] - model.window + 1
        )
        return rows.train[source, first + jnp.arange(model.window)[None]].astype(jnp.int32)

    def step(i, carry):
        state, curve = carry
        tokens = jax.vmap(draw, in_axes=(0, 0, None))(seeds, sources, i)
        progress = i.astype(jnp.float32) / jnp.float32(steps)
        state, sums = together(state, {"tokens": tokens}, progress)
        return state, curve.at[i * LOG // steps].set(
            sums["nll"] / sums["tokens"].astype(jnp.float32)
        )

    curve = jnp.zeros((LOG, len(seeds)), jnp.float32)
    state, curve = jax.lax.fori_loop(0, steps, step, (state, curve))
    return jax.vmap(lambda p, s: _score(model, p, rows.test[s], train.batch))(
        state.params, sources
    ), curve


def _score(model, params, windows, batch):
    """`objective.score_sums` over windows [N, L]; N is a multiple of `batch`."""
    net, kernel = models.Autoencoder(model), models.head(model, params)

    def sums(tokens):
        h, _ = net.apply(params, tokens)
        scores = objective.token_scores(h, kernel, tokens)
        return objective.score_sums(scores, jnp.ones(tokens.shape, bool))

    parts = jax.lax.map(sums, windows.reshape(-1, batch, model.window).astype(jnp.int32))
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), parts)
