"""The decoder of `models.lm` for texts that are each spoken by their own expert.  Not in the paper.

Texts sit in groups, one group an expert, so that a step multiplies every expert's matrices once,
by all its texts.  Only these products know groups: attention, and with it the cache, keep one row
a text, so that a group of few texts costs no padded cache, and a text that changes its expert
keeps its row.  The same numbers as `Decoder` gives text by text, up to the order of sums.
Letters: B texts, G groups, R seats of a group, L tokens, D width, H heads, J heads of keys and
values, K head width, S cache length, F inner width, V vocabulary.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from cr_jax.config import LmConfig
from cr_jax.errors import UserError
from cr_jax.models.autoencoder import head
from cr_jax.models.kernels import rms_norm, rotate
from cr_jax.models.layers import attention_kernel, compute_dtype


class Seats(NamedTuple):
    """Where texts sit.  One group with as many seats as texts holds them in their order."""

    slots: Any  # int32 [G, R]: the text of each seat; empty seats repeat a text
    place: Any  # int32 [B]: the seat of each text, counted through all groups


class BlockWeights(NamedTuple):
    """One block of G experts; products that read the same input stand side by side."""

    qkv: Any  # [G, D, D + 2JK]
    out: Any  # [G, D, D]
    up: Any  # [G, D, 2F]
    down: Any  # [G, F, D]


class Weights(NamedTuple):
    """Decoders of G experts in the dtype that they compute in."""

    embedding: Any  # [G, V, D]
    start: Any  # [G, D]
    head: Any  # [G, D, V]
    blocks: tuple[BlockWeights, ...]


class RowCache(NamedTuple):
    """Keys and values of B texts, block by block: each array is written in place."""

    keys: tuple[Any, ...]  # of [B, S, J, K]
    values: tuple[Any, ...]  # of [B, S, J, K]
    length: Any  # int32 [B]: positions read, the start among them


def seat(
    experts: Sequence[int] | Integer[np.ndarray, " B"], most: int
) -> tuple[Int[np.ndarray, " G"], Seats]:
    """(the experts of G groups, seats for texts spoken by `experts`).

    G and R are powers of two, G at most `most`, the number of experts there are: few shapes, few
    programs.  A group without texts repeats an expert.
    """
    present, group, counts = np.unique(experts, return_inverse=True, return_counts=True)
    groups = min(_power(len(present)), most)
    each = len(group) if groups == 1 else _power(int(counts.max()))
    order = np.argsort(group, kind="stable")
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    place = np.empty(len(group), np.int32)
    place[order] = group[order] * each + np.arange(len(group)) - first[group[order]]
    slots = np.zeros(groups * each, np.int32)
    slots[place] = np.arange(len(group))
    filled = np.concatenate([present, np.repeat(present[-1:], groups - len(present))])
    return filled, Seats(slots.reshape(groups, each), place)


def _power(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()


@functools.partial(jax.jit, static_argnums=0)
def weights(config: LmConfig, params: Any) -> Weights:
    """Decoders ready for steps, of stacked parameters [G, ...]."""
    tree = params["params"]
    dtype = compute_dtype(config)
    attention, mlp = tree["blocks"]["attention"], tree["blocks"]["mlp"]

    def beside(x):  # [G, N, P, D, F] -> [G, N, D, PF]
        return jnp.moveaxis(x, 2, 3).reshape(*x.shape[:2], x.shape[3], -1)

    if "qkv" in attention:
        qkv = beside(attention["qkv"])
    else:
        qkv = jnp.concatenate([attention["q"], beside(attention["kv"])], -1)
    stacked = BlockWeights(qkv, attention["out"], beside(mlp["up"]), mlp["down"])
    stacked = jax.tree.map(lambda x: x.astype(dtype), stacked)
    return Weights(
        tree["embedding"].astype(dtype),
        tree["start"].astype(dtype),
        jax.vmap(lambda p: head(config, p))(params).astype(dtype),
        tuple(jax.tree.map(lambda x, n=n: x[:, n], stacked) for n in range(config.blocks)),
    )


def check_kind(config: LmConfig) -> None:
    """`UserError` for a kind of language model that cannot be stepped in groups."""
    if config.kind != "decoder":
        raise UserError(f"texts are spoken by kind='decoder', and this bank's is {config.kind!r}")


def prefill(
    config: LmConfig,
    weights: Weights,
    seats: Seats,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    length: int,
) -> tuple[Float[Array, "B D"], RowCache]:
    """(states that predict what follows each text, a cache of `length` >= L + 1 positions).

    mask: True on real tokens, which come first; a text may have none.
    """
    start = jnp.repeat(weights.start, seats.slots.shape[1], 0)[seats.place]
    inputs = jnp.concatenate([start[:, None], _embedded(weights, seats, tokens)], 1)
    x, positions = _seated(rms_norm(inputs), seats), jnp.arange(inputs.shape[1])
    keys, values = [], []
    room = ((0, 0), (0, length - inputs.shape[1]), (0, 0), (0, 0))
    for w in weights.blocks:
        q, k, v = _heads(config, w, x, seats, positions)
        y = jax.nn.dot_product_attention(
            q, k, v, is_causal=True, implementation=attention_kernel(config)
        )
        x = _rest(w, x, y, seats)
        keys.append(jnp.pad(k, room))
        values.append(jnp.pad(v, room))
    seen = jnp.sum(mask, axis=-1, dtype=jnp.int32)
    last = jnp.take_along_axis(_back(rms_norm(x), seats), seen[:, None, None], 1)[:, 0]
    return last, RowCache(tuple(keys), tuple(values), seen + 1)


def step(
    config: LmConfig, weights: Weights, seats: Seats, token: Int[Array, " B"], cache: RowCache
) -> tuple[Float[Array, "B D"], RowCache]:
    """(states that predict the token after this one, the cache with it).

    A full cache is the caller's to avoid: what is beyond it is not written.
    """
    x = _seated(rms_norm(_embedded(weights, seats, token[:, None])), seats)
    rows, kind = jnp.arange(len(token)), attention_kernel(config)
    keys, values = [], []
    for w, old_keys, old_values in zip(weights.blocks, cache.keys, cache.values, strict=True):
        q, k, v = _heads(config, w, x, seats, cache.length[:, None])
        put = dict(mode="drop", unique_indices=True, indices_are_sorted=True)
        keys.append(old_keys.at[rows, cache.length].set(k[:, 0], **put))
        values.append(old_values.at[rows, cache.length].set(v[:, 0], **put))
        y = jax.nn.dot_product_attention(
            q,
            keys[-1],
            values[-1],
            key_value_seq_lengths=cache.length + 1,
            query_seq_lengths=None if kind == "xla" else jnp.ones_like(cache.length),
            implementation=kind,
        )
        x = _rest(w, x, y, seats)
    states = _back(rms_norm(x), seats)[:, 0]
    return states, RowCache(tuple(keys), tuple(values), cache.length + 1)


def log_probs(weights: Weights, seats: Seats, states: Float[Array, "B D"]) -> Float[Array, "B V"]:
    """log P of every next token, float32, by each text's own expert."""
    rows = _seated(states, seats)
    logits = jnp.einsum("grd,gdv->grv", rows, weights.head, preferred_element_type=jnp.float32)
    return jax.nn.log_softmax(_back(logits, seats), axis=-1)


def with_rows(cache: RowCache, rows: Int[Array, " N"], new: RowCache) -> RowCache:
    """The cache with other texts in `rows`; a row beyond the cache is left out."""
    put = lambda old, x: old.at[rows].set(x, mode="drop")
    return jax.tree.map(put, cache, new)


def _embedded(weights: Weights, seats: Seats, tokens):
    """[B, L, D]: each text's tokens in its own expert's table."""
    group = seats.place // seats.slots.shape[1]
    return weights.embedding[group[:, None], tokens]


def _in_order(seats: Seats) -> bool:
    return seats.slots.shape == (1, len(seats.place))


def _seated(x, seats: Seats):
    """[B, ...] -> [G, R, ...]."""
    return x[None] if _in_order(seats) else x[seats.slots]


def _back(x, seats: Seats):
    """[G, R, ...] -> [B, ...]."""
    return x[0] if _in_order(seats) else x.reshape(-1, *x.shape[2:])[seats.place]


def _product(x: Float[Array, "G R L D"], kernel: Float[Array, "G D F"]) -> Float[Array, "G R L F"]:
    if len(kernel) == 1:  # no batched product, which a CPU does slowly
        return (x.reshape(-1, x.shape[-1]) @ kernel[0]).reshape(*x.shape[:3], -1)
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    return jnp.einsum("gtd,gdf->gtf", flat, kernel).reshape(*x.shape[:3], -1)


def _heads(config: LmConfig, w: BlockWeights, x, seats: Seats, positions):
    """q [B, L, H, K], k and v [B, L, J, K] of the stream x [G, R, L, D]."""
    width = config.d_model // config.heads
    flat = _back(_product(rms_norm(x), w.qkv), seats)
    split = flat.reshape(*flat.shape[:-1], -1, width)
    h, j = config.heads, config.kv_heads or config.heads
    q, k = (rotate(rms_norm(y), positions) for y in (split[:, :, :h], split[:, :, h : h + j]))
    return q, k, split[:, :, h + j :]


def _rest(w: BlockWeights, x, y, seats: Seats):
    """The stream after a block, given what attention read, y [B, L, H, K]."""
    x = x + _product(_seated(y.reshape(*y.shape[:2], -1), seats), w.out)
    gate, up = jnp.split(_product(rms_norm(x), w.up), 2, -1)
    return x + _product(jax.nn.silu(gate) * up, w.down)
