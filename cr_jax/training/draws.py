"""What a step draws: lower rates, hidden and replaced tokens, short windows, the softmax's ids.

Not in the paper.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from cr_jax import models
from cr_jax.config import ModelConfig, TrainConfig

_KEYS = 9  # of a step: `draw_for` has the first, then `draw_ids`, then `replace_some`
_IDS, _REPLACED = 7, 8


def draw_for(
    model: ModelConfig,
    train: TrainConfig,
    shape: tuple[int, int],
    key: PRNGKeyArray,
    axis_name: str | None = None,
) -> tuple[dict[str, Array], Bool[Array, "B L"] | None]:
    """Arguments of the model ("rate" [B], "hidden" [B, L]), and the mask of shortened windows.

    shape: B, L of this device's rows.  Drawn for the global batch and sliced, so that device
    counts do not change a run.
    """
    options, kept = {}, None
    if not (train.nested or train.hidden or train.short):
        return options, kept
    rows, window = shape
    devices = jax.lax.psum(1, axis_name) if axis_name else 1
    index = jax.lax.axis_index(axis_name) if axis_name else 0
    mine = lambda x: jax.lax.dynamic_slice_in_dim(x, index * rows, rows)
    keys = jax.random.split(key, _KEYS)
    everyone = rows * devices

    def some(share, which, full):
        """1 to `full` for a share of the rows, `full` for the others."""
        chosen = jax.random.uniform(keys[which], (everyone,)) < share
        # Log-uniform: k as often as log((k + 1) / k), so every octave equally often.
        place = jax.random.uniform(keys[which + 1], (everyone,))
        drawn = jnp.floor(jnp.exp(place * jnp.log(full + 1.0))).astype(jnp.int32)
        return jnp.where(chosen, jnp.minimum(drawn, full), full)

    if train.nested:
        options["rate"] = mine(some(train.nested, 0, models.make_bottleneck(model).rates))
    if train.hidden:
        share = jax.random.uniform(
            keys[2], (everyone, 1), minval=train.hidden_low, maxval=train.hidden_high
        )
        share = jnp.where(jax.random.uniform(keys[3], (everyone, 1)) < train.hidden, share, 0.0)
        options["hidden"] = mine(jax.random.uniform(keys[4], (everyone, window)) < share)
    if train.short:
        kept = jnp.arange(window)[None] < mine(some(train.short, 5, window))[:, None]
    return options, kept


def draw_ids(
    tokens: Int[Array, "B L"],
    vocab_size: int,
    size: int,
    key: PRNGKeyArray,
    axis_name: str | None = None,
) -> Int[Array, " S"]:
    """S = `size` different ids in ascending order: those of the batch, filled up at random.

    Of a batch with more different ids a random part.  tokens: this device's rows; the ids are
    those of the global batch, so that device counts do not change a run.  key: of the step, as
    `draw_for` has it; the two draw apart.
    """
    key = jax.random.split(key, _KEYS)[_IDS]  # fold_in would give a key of `draw_for` again
    here = jnp.zeros(vocab_size, jnp.int32).at[tokens].set(1)
    if axis_name:
        here = jax.lax.pmax(here, axis_name)
    order = here.astype(jnp.float32) + jax.random.uniform(key, (vocab_size,), maxval=0.999)
    return jnp.sort(jax.lax.top_k(order, size)[1]).astype(jnp.int32)


def replace_some(
    tokens: Int[Array, "B L"], share: float, key: PRNGKeyArray, axis_name: str | None = None
) -> Int[Array, "B L"]:
    """The tokens, of which a `share` gave way to tokens of random places of the global batch.

    So a compressor meets its own ids where they do not belong.  tokens: this device's rows; device
    counts do not change a run.  key: of the step, as `draw_for` has it.
    """
    which, where = jax.random.split(jax.random.split(key, _KEYS)[_REPLACED])
    everything = jax.lax.all_gather(tokens, axis_name, tiled=True) if axis_name else tokens
    index = jax.lax.axis_index(axis_name) if axis_name else 0
    rows = len(tokens)
    mine = lambda x: jax.lax.dynamic_slice_in_dim(x, index * rows, rows)
    others = everything.ravel()[
        jax.random.randint(where, everything.shape, 0, everything.size)
    ].reshape(everything.shape)
    chosen = jax.random.uniform(which, everything.shape) < share
    return jnp.where(mine(chosen), mine(others), tokens)
