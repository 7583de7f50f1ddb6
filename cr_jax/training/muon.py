"""Muon with a Newton-Schulz iteration in half precision, in the state of optax's own."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from cr_jax.config import OptimizerConfig

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # optax's, of the nanoGPT speed runs
STEPS = 5


def half_precision_muon(config: OptimizerConfig, dimensions) -> optax.GradientTransformation:
    """`optax.contrib.muon` whose iteration is `newton_schulz` in bfloat16, on a CPU in float32.

    dimensions: a function of the parameters, as for optax.  The state has the leaves of optax's,
    so that a checkpoint of one is one of the other.
    """
    spec = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    everywhere = lambda updates: jax.tree.map(lambda _: spec, updates)
    muon = optax.chain(
        # Without a step of its own: momentum, each matrix divided by its Frobenius norm.
        optax.contrib.scale_by_muon(
            COEFFICIENTS,
            ns_steps=0,
            mu_dtype=config.momentum_dtype,
            weight_dimension_numbers=everywhere,
        ),
        optax.stateless(lambda updates, params: jax.tree.map(_orthogonal, updates)),
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(config.muon_learning_rate),
    )
    adamw = optax.adamw(
        config.learning_rate,
        b1=config.b1,
        b2=config.b2,
        weight_decay=config.weight_decay,
        mu_dtype=config.momentum_dtype,
        nesterov=True,
    )
    labels = lambda params: jax.tree.map(
        lambda taken: "adam" if taken is None else "muon",
        dimensions(params),
        is_leaf=lambda x: x is None or isinstance(x, optax.contrib.MuonDimensionNumbers),
    )
    return optax.partition({"muon": muon, "adam": adamw}, labels)


def newton_schulz(
    x: Float[Array, "... R C"], dtype: DTypeLike = jnp.bfloat16
) -> Float[Array, "... R C"]:
    """Matrices of Frobenius norm 1 -> singular values near 1, computed and returned in `dtype`.

    bfloat16's rounding moves a matrix by some 5 % of its norm; the iteration itself leaves singular
    values up to 30 % from 1.
    """
    a, b, c = COEFFICIENTS
    turned = x.shape[-2] > x.shape[-1]  # the shorter side makes the smaller products
    x = (x.swapaxes(-1, -2) if turned else x).astype(dtype)
    for _ in range(STEPS):
        s = x @ x.swapaxes(-1, -2)
        x = a * x + (b * s + c * (s @ s)) @ x
    return x.swapaxes(-1, -2) if turned else x


def _orthogonal(x):
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    rows, columns = x.shape[-2:]
    # As optax scales it: longer steps for matrices that widen.
    return newton_schulz(x, dtype).astype(x.dtype) * max(1.0, columns / rows) ** 0.5
