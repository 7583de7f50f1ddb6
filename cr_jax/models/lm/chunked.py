"""Language models that keep their past as few compressed positions: what attends to what.

TLinFormer (arXiv 2508.20407), TConstFormer (arXiv 2509.00202) and a recurrent form of ours differ
in two switches, `Form`; the code is one.  Built from descriptions of both papers alone.

Positions are cut into chunks of W = `config.chunk`.  The chunk that is being written is the
*window*; all chunks before it are the *history*.  The N layers are `config.stages` equal parts:

    context path     of the history, for each window anew:
      first layer    the last chunk's W positions attend to the whole history, unmasked, at their
                     true positions: from here on the context is these W positions
      between        the W positions attend to each other, unmasked
      last layer     all history positions attend to the W, with their queries of the first layer;
                     what comes out is the history of the next stage
    window path      every layer: causal attention inside the window + attention to the context as
                     it enters this layer (TLinFormer's first layer: to the history), each with a
                     softmax of its own; their sum goes through one output matrix

Both paths share all weights of a layer.  Read here where the papers leave a choice:
- as many compressed positions as window positions (all that the papers report): then the positions
  that compress for window k are window k - 1, and a first history is never shorter than W;
- history ends at a multiple of W, counted with the start vector, so that a text's states do not
  depend on where its reading began;
- the first window has no context, and with it no second term;
- the last stage's last layer restores nothing, because nobody would read it: with one stage the
  window path alone passes it;
- restored positions keep the queries that they had in the stage's first layer, so a query is made
  of what entered the stage, and not of the context.

Training computes all windows at once: the first stage's history is the same for all, so what W
positions compress is one batch of attentions over prefixes; every further stage has one history a
window (`C - 1` versions of it, quadratic in length: `stages=1` has none of it).
Letters: B texts, W positions of a chunk, C chunks, V versions of the history, S its positions,
N layers, D width; of attention as in `layer`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cr_jax.config import LmConfig
from cr_jax.models.lm.layer import KeysValues, Layer, attend, finish, read

Context = Sequence[KeysValues | None]  # of each layer: what the window attends to beside itself


class Form(NamedTuple):
    """reads_history: the window's first layer of a stage attends to the history itself.

    recurrent: the context is made of the context before it and the last chunk.
    """

    reads_history: bool = False
    recurrent: bool = False


def stages(config: LmConfig, layers: Sequence[Layer]) -> list[Sequence[Layer]]:
    depth = config.blocks // config.stages
    return [layers[i : i + depth] for i in range(0, config.blocks, depth)]


def states(
    config: LmConfig, form: Form, layers: Sequence[Layer], x: Float[Array, "B L D"]
) -> Float[Array, "B L D"]:
    """All windows of inputs at positions 0 on, whole.  Any L: the last window may be cut."""
    length = x.shape[1]
    chunks = -(-length // config.chunk)
    if chunks == 1:
        return windows(config, layers, x, [None] * len(layers))
    x = jnp.pad(x, ((0, 0), (0, chunks * config.chunk - length), (0, 0)))
    past = x[:, : (chunks - 1) * config.chunk]
    found = (_recurrent if form.recurrent else contexts)(config, form, layers, past)
    return windows(config, layers, x, found)[:, :length]


def contexts(
    config: LmConfig, form: Form, layers: Sequence[Layer], past: Float[Array, "B S D"]
) -> list[KeysValues | None]:
    """Of each layer the contexts of windows 1 to C - 1, rows [B x (C - 1)], window by window."""
    rows, length, width = past.shape
    chunk, count = config.chunk, length // config.chunk
    history, at = past[:, None], jnp.arange(length)
    ends = jnp.tile(chunk * jnp.arange(1, count + 1, dtype=jnp.int32), rows)
    context_at = ends[:, None] - chunk + jnp.arange(chunk)[None]

    def of_each(y):  # [B, V, S, ...] -> [B x (C - 1), S, ...]
        spread = jnp.broadcast_to(y, (rows, count, *y.shape[2:]))
        return spread.reshape(rows * count, *y.shape[2:])

    def last_chunk(y):  # [B, V, S, ...] -> [B x (C - 1), W, ...]: each window's own
        cut = y.reshape(*y.shape[:2], count, chunk, *y.shape[3:])
        own = jnp.arange(count)
        cut = cut[:, 0] if y.shape[1] == 1 else cut[:, own, own]
        return cut.reshape(rows * count, chunk, *y.shape[3:])

    found: list[KeysValues | None] = []
    parts = stages(config, layers)
    for i, part in enumerate(parts):
        versions = history.shape[1]
        flat = history.reshape(rows * versions, length, width)
        q, k, v = (
            y.reshape(rows, versions, length, *y.shape[2:]) for y in read(config, part[0], flat, at)
        )
        over = KeysValues(of_each(k), of_each(v), ends)
        attended = attend(config, last_chunk(q), over)
        inner, _ = compress(config, part, last_chunk(history), attended, context_at)
        found += [over if form.reads_history else None, *inner]
        if i < len(parts) - 1:
            restored = restore(config, part, of_each(history), of_each(q), inner[-1])
            history = restored.reshape(rows, count, length, width)
    return found


def compress(
    config: LmConfig,
    part: Sequence[Layer],
    last: Float[Array, "B W D"],
    attended: Float[Array, "B W H K"],
    positions: Int[Array, "B W"],
) -> tuple[list[KeysValues], Float[Array, "B W D"]]:
    """(context of every layer of a stage after its first, the context as it enters the last).

    last: the last chunk, as it enters the stage; attended: what its positions read of the history.
    """
    context = finish(config, part[0], last, attended)
    found = []
    for i, layer in enumerate(part[1:], 2):
        q, k, v = read(config, layer, context, positions)
        found.append(KeysValues(k, v))
        if i < len(part):
            context = finish(config, layer, context, attend(config, q, found[-1]))
    return found, context


def restore(
    config: LmConfig,
    part: Sequence[Layer],
    history: Float[Array, "B S D"],
    queries: Float[Array, "B S H K"],
    context: KeysValues,
) -> Float[Array, "B S D"]:
    """The next stage's history of this one's and its queries of the first layer."""
    return finish(config, part[-1], history, attend(config, queries, context))


def _recurrent(config, form, layers, past):
    """As `contexts`, chunk after chunk."""
    rows, length, width = past.shape
    count = length // config.chunk
    chunks = jnp.moveaxis(past.reshape(rows, count, config.chunk, width), 1, 0)
    memory = tuple(jnp.zeros_like(chunks[0]) for _ in range(config.stages))

    def one(carry, given):
        i, chunk = given
        synced = jnp.full((rows,), (i + 1) * config.chunk, jnp.int32)
        found, carry = advance(config, layers, carry, chunk, synced)
        return carry, [f and (f.keys, f.values) for f in found]

    _, stacked = jax.lax.scan(one, memory, (jnp.arange(count), chunks))
    flat = lambda y: jnp.moveaxis(y, 0, 1).reshape(rows * count, *y.shape[2:])
    return [f and KeysValues(*map(flat, f)) for f in stacked]


def advance(
    config: LmConfig,
    layers: Sequence[Layer],
    memory: Sequence[Float[Array, "B W D"]],
    chunk: Float[Array, "B W D"],
    synced: Int[Array, " B"],
) -> tuple[list[KeysValues | None], tuple[Float[Array, "B W D"], ...]]:
    """(every layer's context, the stages' memories) after one more chunk, of the recurrent form.

    A stage's memory is its context as it enters its last layer.  The first layer's queries are the
    chunk; keys and values are the chunk and the memory, which has the positions of the chunk that
    it was compressed for.  synced: positions read with this chunk; a text's first has no memory.
    """
    at = synced[:, None] - config.chunk + jnp.arange(config.chunk)[None]
    lengths = jnp.where(synced > config.chunk, 2 * config.chunk, config.chunk)
    found: list[KeysValues | None] = []
    kept = []
    for part, old in zip(stages(config, layers), memory, strict=True):
        q, k, v = read(config, part[0], chunk, at)
        _, old_k, old_v = read(config, part[0], old, at - config.chunk)
        both = (jnp.concatenate(pair, 1) for pair in ((k, old_k), (v, old_v)))
        attended = attend(config, q, KeysValues(*both, lengths))
        inner, context = compress(config, part, chunk, attended, at)
        found += [None, *inner]
        kept.append(context)
        chunk = restore(config, part, chunk, q, inner[-1])
    return found, tuple(kept)


def windows(
    config: LmConfig, layers: Sequence[Layer], x: Float[Array, "B L D"], found: Context
) -> Float[Array, "B L D"]:
    """The window path over all windows; found: contexts of all but the first, as `contexts`."""
    rows, length, _ = x.shape
    chunk = min(config.chunk, length)
    cut = lambda y: y.reshape(rows * (length // chunk), chunk, *y.shape[2:])
    joined = lambda y: y.reshape(rows, length, *y.shape[2:])

    def own(i, q, k, v):
        return joined(attend(config, cut(q), KeysValues(cut(k), cut(v)), causal=True)), None

    def across(i, q):
        if found[i] is None:
            return None
        later = q[:, chunk:].reshape(-1, chunk, *q.shape[2:])
        y = attend(config, later, found[i]).reshape(rows, length - chunk, *q.shape[2:])
        return jnp.pad(y, ((0, 0), (chunk, 0), (0, 0), (0, 0)))

    return through(config, layers, x, jnp.arange(length), own, across)[0]


def through(
    config: LmConfig,
    layers: Sequence[Layer],
    x: Float[Array, "B T D"],
    positions: Any,
    own: Callable,
    across: Callable,
) -> tuple[Float[Array, "B T D"], list[Any]]:
    """x after all layers, and what `own` kept of each.

    own(i, q, k, v) -> (what layer i reads of the window, anything); across(i, q) -> what it reads
    of its context, or None.
    """

    def one(i, layer, x):
        q, k, v = read(config, layer, x, positions)
        y, kept = own(i, q, k, v)
        more = across(i, q)
        return finish(config, layer, x, y if more is None else y + more), kept

    kept = []
    for i, layer in enumerate(layers):
        step = jax.checkpoint(one, static_argnums=0) if config.remat else one
        x, held = step(i, layer, x)
        kept.append(held)
    return x, kept


def forward_flops(config: LmConfig, window: int, form: Form) -> float:
    """Operations of a forward pass per token of `window`, as `training.speed` counts them.

    A layer's matrices per position, and 4 D per pair of a query and a key.  Padding, and
    what versions of the history hold beyond their end, counts as nothing.
    """
    c, d = config, config.d_model
    width = (c.kv_heads or c.heads) * (d // c.heads)
    matrices, pair, both = (
        2.0 * (2 * d * d + 2 * d * width + 3 * d * c.d_ff),
        4.0 * d,
        4.0 * d * width,
    )
    chunks = max(1, -(-window // c.chunk))
    later = (chunks - 1) / chunks  # share of windows that have a context
    history = c.chunk * (chunks - 1) / 2  # mean positions of it, per window
    depth = c.blocks // c.stages
    own = c.blocks * (matrices + pair * min(window, c.chunk)) + 2.0 * d * c.vocab_size
    inner = later * ((depth - 1) * matrices + both + (depth - 2) * pair * c.chunk)
    cross = later * (depth - 1) * pair * c.chunk
    if form.recurrent:
        first, restored = later * (2 * pair * c.chunk + both), later
    else:  # each window restores its history of all its stages but the last
        first, restored = pair * history * (2 if form.reads_history else 1), history / c.chunk
    restored *= (c.stages - 1) * (matrices + pair * c.chunk)
    return own + c.stages * (inner + first + cross) + restored
