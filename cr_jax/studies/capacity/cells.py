"""Cells of the ablation side by side: what they read in training, and their scores afterwards."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cr_jax import models
from cr_jax.config import ModelConfig
from cr_jax.data.windows import Windows
from cr_jax.models import objective


class SideBySide:
    """One data iterator per cell, stacked [E, b, L]: a cell's text does not depend on its
    neighbours.  All are at the same step, so one state serves."""

    def __init__(self, parts):
        self.parts = parts

    def __next__(self) -> dict[str, np.ndarray]:
        drawn = [next(part) for part in self.parts]
        return {k: np.concatenate([d[k] for d in drawn]) for k in drawn[0]}

    def get_state(self):
        return self.parts[0].get_state()

    def set_state(self, state) -> None:
        for part in self.parts:
            part.set_state(state)


def scorer(model: ModelConfig, batch: int) -> Callable[[object, Windows], dict[str, float]]:
    """-> f(params of one cell, windows) -> tra, nll, window_exact, tokens, windows."""
    net = models.Autoencoder(model)

    @jax.jit
    def sums(params, tokens, mask, counted):
        h, _ = net.apply(params, tokens, mask)
        scores = objective.token_scores(h, models.head(model, params), tokens)
        return objective.score_sums(scores, mask & counted[:, None])

    def score(params, windows):
        params, total = jax.tree.map(jnp.asarray, params), {}
        for at in range(0, len(windows), batch):
            # The last batch is filled with repeated rows that do not count: one compilation.
            rows = np.arange(at, at + batch)
            here = rows % len(windows)
            part = jax.device_get(
                sums(params, windows.tokens[here], windows.mask[here], rows < len(windows))
            )
            total = {k: total.get(k, 0.0) + float(v) for k, v in part.items()}
        return objective.metrics(total)

    return score
