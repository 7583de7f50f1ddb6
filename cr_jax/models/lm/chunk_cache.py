"""Reading and writing token by token with compressed positions: caches of fixed shape.

    fill    ids of a text -> its cache, and the state that predicts what follows
    step    one more token inside the window ("hit"): constant cost, but for TLinFormer's history
    sync    the window is full: it joins the history, which is compressed anew

`step` and `sync` are one program each, whatever the length; `full` says when a sync is due.  What a
cache holds, of N layers, B texts, W positions of a chunk and capacity S (a multiple of W):

    window     every layer's keys and values of the window            2 x [B, W, G, K]
    context    of the layers that read compressed positions           2 x [B, W, G, K]
    history    TLinFormer: of each stage's first layer                2 x [B, S, G, K]
    memory     recurrent: each stage's compressed positions           [B, W, D]
    ids        what a sync compresses anew                            int32 [B, S]

Recurrent, and TLinFormer of one stage, whose history's keys and values depend on embeddings alone
and are appended to, keep the ids of the window only.  What a sync computes of the history is cut in
pieces, as many as the longest text has, with a running softmax: its memory is constant too.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cr_jax.config import LmConfig
from cr_jax.models.lm import chunked
from cr_jax.models.lm.chunked import Form
from cr_jax.models.lm.layer import KeysValues, Layer, attend, read

PIECE = 8192  # positions of the history at once


class ChunkCache(NamedTuple):
    """See the module; pairs are (keys, values), `context` has None where a layer reads none.

    synced: positions of the history.  length: positions read, the start among them.
    """

    ids: Any
    window: tuple[Any, ...]
    context: tuple[Any, ...]
    history: tuple[Any, ...]
    memory: tuple[Any, ...]
    synced: Any  # int32 [B]
    length: Any  # int32 [B]


class Net(NamedTuple):
    """A model's parameters ready for use; embedded(ids [B, T], positions) -> inputs [B, T, D]."""

    embedded: Callable
    layers: Sequence[Layer]


def full(config: LmConfig, cache: ChunkCache) -> Bool[Array, " B"]:
    """Whose window has no place left: a sync is due before the next step."""
    return cache.length - cache.synced == config.chunk


def state_bytes(cache: ChunkCache) -> int:
    """Bytes of a cache but for the ids, of arrays or of their shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache._replace(ids=None)))


def fill(
    config: LmConfig,
    form: Form,
    net: Net,
    ids: Int[Array, "B T"],
    length: Int[Array, " B"],
    room: int,
) -> tuple[Float[Array, "B D"], ChunkCache]:
    """(state before the final norm of each text's last input, a cache for `room` positions).

    ids: inputs from position 0 on; length: how many of each row are real, at least 1.
    """
    chunk, piece = config.chunk, _piece(config, room)
    ids = jnp.pad(ids, ((0, 0), (0, -(-max(room, ids.shape[1]) // piece) * piece - ids.shape[1])))
    synced = (length - 1) // chunk * chunk
    if form.recurrent:
        context, memory = _read_all(config, net, ids, synced)
        history: tuple[Any, ...] = ()
    else:
        own = _rows(ids, jnp.maximum(synced - chunk, 0), chunk)
        context, history = refresh(config, form, net, Past(ids, own, synced))
        memory = ()
    window_ids, at = _rows(ids, synced, chunk), synced[:, None] + jnp.arange(chunk)[None]

    def own_window(i, q, k, v):
        return attend(config, q, KeysValues(k, v), causal=True), (k, v)

    across = _across(config, context, history, synced)
    x, window = chunked.through(
        config, net.layers, net.embedded(window_ids, at), at, own_window, across
    )
    last = jnp.take_along_axis(x, (length - 1 - synced)[:, None, None], axis=1)[:, 0]
    kept = window_ids if _short(config, form) else ids
    return last, ChunkCache(kept, tuple(window), context, history, memory, synced, length)


def step(
    config: LmConfig, form: Form, net: Net, token: Int[Array, " B"], cache: ChunkCache
) -> tuple[Float[Array, "B D"], ChunkCache]:
    """(state before the final norm, the cache with this token).

    A full window, and more tokens than the cache has room for, are the caller's to avoid.
    """
    at, used = cache.length, cache.length - cache.synced
    put = jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0))

    def own_window(i, q, k, v):
        pair = tuple(put(old, new, used) for old, new in zip(cache.window[i], (k, v), strict=True))
        return attend(config, q, KeysValues(*pair, used + 1)), pair

    across = _across(config, cache.context, cache.history, cache.synced)
    x = net.embedded(token[:, None], at[:, None])
    x, window = chunked.through(config, net.layers, x, at[:, None], own_window, across)
    ids = put(cache.ids, token[:, None], used if _short(config, form) else at)
    return x[:, 0], cache._replace(ids=ids, window=tuple(window), length=at + 1)


def sync(config: LmConfig, form: Form, net: Net, cache: ChunkCache) -> ChunkCache:
    """The cache after every full window has joined its history; other rows stay as they are."""
    chunk, due = config.chunk, full(config, cache)
    synced = cache.synced + jnp.where(due, chunk, 0)
    later = jnp.maximum(synced, chunk)  # rows without history compute what is not kept
    short = _short(config, form)
    own = cache.ids if short else _rows(cache.ids, later - chunk, chunk)
    if form.recurrent:
        at = later[:, None] - chunk + jnp.arange(chunk)[None]
        found, memory = chunked.advance(
            config, net.layers, cache.memory, net.embedded(own, at), later
        )
        context, history = _pairs(found), ()
    else:
        first = None
        if form.reads_history:
            put = jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0))
            # Rows that are not due write beyond their history, where it is not read.
            pairs = zip(cache.history[0], cache.window[0], strict=True)
            first = tuple(put(old, new, cache.synced) for old, new in pairs)
        past = Past(None if short else cache.ids, own, synced, first)
        context, history = refresh(config, form, net, past)
        memory = ()
    keep = lambda new, old: jnp.where(due.reshape(-1, *(1,) * (new.ndim - 1)), new, old)
    return cache._replace(
        context=jax.tree.map(keep, context, cache.context),
        memory=jax.tree.map(keep, memory, cache.memory),
        history=history,
        synced=synced,
    )


class Past(NamedTuple):
    """What is compressed: inputs from position 0 on, or None where `first` is enough.

    own [B, W]: the last chunk's ids; synced [B]: positions of the history, or 0; first: keys and
    values of the first stage's first layer [B, S, G, K], where they are kept.
    """

    ids: Any
    own: Any
    synced: Any
    first: Any = None


def refresh(
    config: LmConfig, form: Form, net: Net, past: Past
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(context of every layer, history), as a cache holds them, of the whole history."""
    chunk, source = config.chunk, past.first[0] if past.ids is None else past.ids
    rows, room = source.shape[:2]
    piece = _piece(config, room)
    lengths = jnp.maximum(past.synced, chunk)
    pieces = (jnp.max(lengths) + piece - 1) // piece
    own_at = lengths[:, None] - chunk + jnp.arange(chunk)[None]
    parts = chunked.stages(config, net.layers)
    found: list[Any] = []
    histories = []

    def entering(stage, ids, at):
        """Positions of the history as they enter a stage: they depend on earlier contexts only."""
        x = net.embedded(ids, at)
        for part, context in zip(parts[:stage], ends, strict=False):
            x = chunked.restore(config, part, x, read(config, part[0], x, at)[0], context)
        return x

    ends: list[KeysValues] = []
    for i, part in enumerate(parts):
        last = entering(i, past.own, own_at)
        q = read(config, part[0], last, own_at)[0]
        first = past.first if i == 0 else None

        def keys_values(j, i=i, part=part, first=first):
            if first is not None:
                return tuple(_piece_of(x, j, piece) for x in first)
            at = j * piece + jnp.arange(piece)
            return read(config, part[0], entering(i, _piece_of(past.ids, j, piece), at), at)[1:]

        stored = ()
        if form.reads_history and first is None:
            shape = jax.eval_shape(keys_values, 0)
            stored = tuple(jnp.zeros((rows, room, *x.shape[2:]), x.dtype) for x in shape)
        attended, stored = _over_pieces(q, keys_values, lengths, pieces, stored)
        inner, _ = chunked.compress(config, part, last, attended, own_at)
        ends.append(inner[-1])
        found += [None, *inner]
        if form.reads_history:
            histories.append(stored if first is None else first)
    return _pairs(found), tuple(histories)


def _over_pieces(q, keys_values, lengths, pieces, stored):
    """(attention of q [B, W, H, K] over the first `lengths` positions, `stored` with their pairs).

    A softmax that is corrected as larger scores come, in float32.
    """
    shape = jax.eval_shape(keys_values, 0)[0].shape
    piece, groups = shape[1], shape[2]
    width = q.shape[-1]
    split = q.reshape(*q.shape[:2], groups, -1, width)
    wide = dict(preferred_element_type=jnp.float32)

    def one(j, carry):
        top, total, out, stored = carry
        k, v = keys_values(j)
        scores = jnp.einsum("bwgrk,bpgk->bgrwp", split, k, **wide) * width**-0.5
        seen = (j * piece + jnp.arange(piece))[None] < lengths[:, None]
        scores = jnp.where(seen[:, None, None, None], scores, jnp.float32(-1e30))
        new = jnp.maximum(top, jnp.max(scores, axis=-1))
        weights, scale = jnp.exp(scores - new[..., None]), jnp.exp(top - new)
        read_of = jnp.einsum("bgrwp,bpgk->bgrwk", weights.astype(v.dtype), v, **wide)
        put = lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, j * piece, axis=1)
        stored = tuple(map(put, stored, (k, v))) if stored else ()
        total = total * scale + jnp.sum(weights, axis=-1)
        return new, total, out * scale[..., None] + read_of, stored

    lead = (q.shape[0], groups, split.shape[3], q.shape[1])
    zeros = jnp.zeros(lead, jnp.float32)
    start = (zeros - 1e30, zeros, jnp.zeros((*lead, width), jnp.float32), stored)
    _, total, out, stored = jax.lax.fori_loop(0, pieces, one, start)
    out = jnp.moveaxis(out / total[..., None], 3, 1)
    return out.reshape(q.shape).astype(q.dtype), stored


def _read_all(config, net, ids, synced):
    """(context, memory) of the recurrent form after the first `synced` positions of each row."""
    chunk, rows = config.chunk, len(ids)

    def one(j, carry):
        at = j * chunk + jnp.arange(chunk)
        x = net.embedded(_piece_of(ids, j, chunk), at)
        after = jnp.full((rows,), (j + 1) * chunk, jnp.int32)
        found, memory = chunked.advance(config, net.layers, carry[1], x, after)
        keep = lambda new, old: jnp.where(
            (after <= synced).reshape(-1, *(1,) * (new.ndim - 1)), new, old
        )
        return jax.tree.map(keep, (_pairs(found), memory), carry)

    x = net.embedded(ids[:, :chunk], jnp.arange(chunk))
    blank = tuple(jnp.zeros_like(x) for _ in range(config.stages))
    # The first chunk is read anyway: rows without history do not look at what it leaves.
    found, memory = chunked.advance(
        config, net.layers, blank, x, jnp.full((rows,), chunk, jnp.int32)
    )
    return jax.lax.fori_loop(1, jnp.max(synced) // chunk, one, (_pairs(found), memory))


def _across(config, context, history, synced):
    """What a window's queries read beside the window; zeros for a text without history."""
    depth = config.blocks // config.stages

    def across(i, q):
        if i % depth == 0 and history:
            over = KeysValues(*history[i // depth], jnp.maximum(synced, 1))
        elif context[i] is not None:
            over = KeysValues(*context[i])
        else:
            return None
        y = attend(config, q, over)
        return jnp.where((synced > 0)[:, None, None, None], y, jnp.zeros_like(y))

    return across


def _short(config: LmConfig, form: Form) -> bool:
    """Whether the ids of the window are all that a sync needs."""
    return form.recurrent or (form.reads_history and config.stages == 1)


def _piece(config: LmConfig, room: int) -> int:
    """Positions of a piece: a multiple of W, PIECE at most where W allows it."""
    most = max(1, PIECE // config.chunk) * config.chunk
    return min(most, -(-room // config.chunk) * config.chunk)


def _piece_of(x, j, piece: int):
    return jax.lax.dynamic_slice_in_dim(x, j * piece, piece, axis=1)


def _rows(x, start, size: int):
    """[B, size, ...]: of each row its own places from start[b] on."""
    return jax.vmap(lambda row, i: jax.lax.dynamic_slice_in_dim(row, i, size, axis=0))(x, start)


def _pairs(found) -> tuple[Any, ...]:
    return tuple(f and (f.keys, f.values) for f in found)
