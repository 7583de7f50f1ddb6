"""Elastic weight consolidation around any loss of windows (Kirkpatrick et al. 2017, 1612.00796).

    loss(p) + 1/2 sum_i f_i (p_i - a_i)^2        a: parameters after the last stage, f: Fisher / L

Online, as Schwarz et al. 2018: one anchor, and the sum of the stages' diagonal Fisher information.
Anchor and Fisher travel beside the parameters and get no gradient, so that one program serves every
stage and models with and without them side by side.  Not in the paper.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from cr_jax.training.losses import CompressorLoss

COLLECTION = "consolidated"  # of a pytree of parameters


@dataclasses.dataclass(frozen=True)
class AnchoredLoss:
    """A compressor's loss and what draws its parameters back, `training.losses.Loss`."""

    inner: CompressorLoss

    @property
    def model(self):
        return self.inner.model

    @property
    def window(self):
        return self.inner.window

    @property
    def flops_per_token(self):
        return self.inner.flops_per_token

    def init(self, key):
        """Fresh parameters that nothing draws back."""
        params = self.inner.init(key)
        return with_anchor(params, jnp.zeros_like(ravel_pytree(params)[0]))

    def rows(self, batch, key, axis_name):
        return self.inner.rows(batch, key, axis_name)

    def __call__(self, params, rows, count):
        own = plain(params)
        value, sums = self.inner(own, rows, count)
        held = jax.lax.stop_gradient(params[COLLECTION])
        away = ravel_pytree(own)[0] - held["anchor"]
        share = jnp.sum(rows["mask"]) if "mask" in rows else rows["tokens"].size
        return value + 0.5 * jnp.sum(held["fisher"] * away**2) * (share / count), sums

    def score(self, params, rows):
        return self.inner.score(plain(params), rows)


def plain(params: Any) -> Any:
    """The parameters without what they are drawn back to."""
    return {k: v for k, v in params.items() if k != COLLECTION}


def with_anchor(params: Any, fisher: Float[Array | np.ndarray, " P"]) -> Any:
    """Drawn back to where they are now, each as strongly as `fisher` says."""
    return {**params, COLLECTION: {"anchor": ravel_pytree(params)[0], "fisher": fisher}}


def fisher(loss: CompressorLoss, params: Any, tokens: Int[Array, "N L"]) -> Float[Array, " P"]:
    """The empirical diagonal Fisher information of a window's nats, mean over N windows, divided by
    L: with it an earlier domain weighs as much as a stage of as many tokens (Laplace)."""
    length = tokens.shape[1]

    def squared(row):
        rows = {"tokens": row[None]}
        nats = lambda p: loss(p, rows, jnp.float32(1.0))[0]  # the sum over the window's tokens
        return ravel_pytree(jax.grad(nats)(params))[0] ** 2

    return jnp.mean(jax.lax.map(squared, tokens), 0) / length
