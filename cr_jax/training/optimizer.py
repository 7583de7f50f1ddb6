"""Muon for the matrices inside blocks, AdamW for everything else, at unit schedule.

The schedule is a factor on the updates (`rate`), a function of the run's progress in [0, 1], so
that a run may last a number of steps, tokens or seconds.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from cr_jax.config import OptimizerConfig
from cr_jax.training.muon import half_precision_muon

# Leaf names of attention and SwiGlu: [..., in, out] matrices that Muon orthogonalises.
BLOCK_MATRICES = ("qkv", "q", "kv", "out", "up", "down")


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The optax chain at peak learning rates; multiply its updates by `rate(config, progress)`.

    Muon: arXiv 2502.16982 and the nanoGPT speed runs; Not in the paper, which does not name an
    optimiser.  Beside Muon, optax gives AdamW Nesterov momentum too (its first steps are longer,
    by 1.47 at b1=0.9); `name="adamw"` is plain AdamW.
    """
    tx = _chain(config)

    def update(grads, state, params=None):
        # optax raises Python numbers to the power of an int32 count.
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(grads, state, params)

    return optax.GradientTransformation(tx.init, update)


def _chain(config: OptimizerConfig) -> optax.GradientTransformation:
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    if config.name == "adamw":
        return optax.chain(
            clip,
            optax.adamw(
                config.learning_rate, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay
            ),
        )
    if config.newton_schulz == "bfloat16":
        return optax.chain(clip, half_precision_muon(config, muon_dimensions))
    muon = optax.contrib.muon(
        config.muon_learning_rate,
        adam_learning_rate=config.learning_rate,
        adam_b1=config.b1,
        adam_b2=config.b2,
        weight_decay=config.weight_decay,
        adam_weight_decay=config.weight_decay,
        mu_dtype=config.momentum_dtype,
        muon_weight_dimension_numbers=muon_dimensions,
    )
    return optax.chain(clip, _half_precision_products(muon))


def _half_precision_products(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """`tx` with its matrix products in bfloat16, added up in float32, where the backend is a GPU.

    What lies between the products stays float32.  Newton-Schulz iterations only bring singular
    values near 1 and are made for bfloat16; a GPU's default for float32 products is half as fast.
    TPUs do this by default, CPUs gain nothing.
    """

    def update(grads, state, params=None):
        if jax.default_backend() != "gpu":
            return tx.update(grads, state, params)
        with jax.default_matmul_precision("BF16_BF16_F32"):
            return tx.update(grads, state, params)

    return optax.GradientTransformation(tx.init, update)


def muon_dimensions(params):
    """A tree like `params`: which leaves Muon takes (their last two axes), None for AdamW."""
    spec = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    pick = lambda path, x: spec if path[-1].key in BLOCK_MATRICES and x.ndim >= 2 else None
    return jax.tree_util.tree_map_with_path(pick, params)


def rate(config: OptimizerConfig, progress: Float[Array, ""]) -> Float[Array, ""]:
    """Schedule factor in [0, 1] at `progress` in [0, 1): warm-up, plateau, cool-down; then 0."""
    warm = jnp.minimum(1.0, (progress + 1e-3) / max(config.warmup, 1e-3))
    start = max(config.warmup, 1.0 - config.cooldown)
    fall = jnp.clip((progress - start) / max(1.0 - start, 1e-6), 0.0, 1.0)
    shape = {
        "linear": 1.0 - fall,
        "cosine": 0.5 * (1.0 + jnp.cos(jnp.pi * fall)),
        "constant": jnp.ones_like(fall),
    }[config.schedule]
    return jnp.where(progress < 1, warm * (config.final + (1.0 - config.final) * shape), 0.0)
