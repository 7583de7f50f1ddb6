"""What `benchmarks.speed.long_context` times: arms, their caches and programs, and the prediction.

Arms, all of the width and depth of configs/long_context.py:

    static_kv    plain Transformer, a static cache of keys and values of all N positions
    grouped_kv   the same with 2 heads of keys and values for 8 of queries
    int8_kv      static_kv with keys and values in int8, one float32 scale a head and position
    sliding      4 sinks and the last 508 positions
    tlin, tconst, tlin_one, tconst_one, recurrent
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cr_jax.config import LmConfig
from cr_jax.models import lm
from cr_jax.models.lm import layer
from cr_jax.models.lm.chunked import through
from cr_jax.models.lm.sliding import Sliding, SlidingCache

FULL = LmConfig(
    vocab_size=32768, d_model=512, heads=8, d_ff=1280, blocks=8, tie_embeddings=True, chunk=256
)
QUICK = dataclasses.replace(FULL, vocab_size=256, d_model=32, heads=2, d_ff=64, blocks=4, chunk=16)
ARMS: dict[str, dict[str, Any]] = {
    "static_kv": dict(kind="sliding", chunk=0),
    "tconst": dict(kind="tconstformer", stages=2),
    "tlin": dict(kind="tlinformer", stages=2),
    "tlin_one": dict(kind="tlinformer"),
    "tconst_one": dict(kind="tconstformer"),
    "recurrent": dict(kind="recurrent"),
    "sliding": dict(kind="sliding"),
    "grouped_kv": dict(kind="sliding", chunk=0, kv_heads=2),
    "int8_kv": dict(kind="sliding", chunk=0),
}
LENGTHS = (1 << 10, 10 << 10, 100 << 10, 1 << 20)

# Written on 2026-11-30, before any run.  Per token of a whole window: bytes read (weights, state)
# over 4 TB/s, multiplications of syncs over 300 TFLOP/s, and 0.3 ms of launches a step, which no
# arm escapes; static_kv at 1 M tokens reads 17.2 GB.
BANDWIDTH, FLOPS, LAUNCHES = 4e12, 300e12, 0.3e-3
# What the papers' counts of query-key pairs say per token (N = 1): 8 static, 6 + 2 TLin, 4 TConst;
# and what was thought honest for one GPU and batch 1 (static_kv in bfloat16 = 1).
EXPECTED = {
    "pairs_of_static": {"tlin": 1.0, "tconst": 2.0},
    "tokens_per_s_over_static_kv": {
        "tlin": "<= 4 at 1 M tokens",
        "tconst": "<= 20 at 1 M tokens, 1 to 1.5 at 100 K",
    },
    "state": "static_kv / (H + 2) for tlin: 1/4 of it with 2 blocks of depth 4, 1/8 with one of 8",
}


class Int8(Sliding):
    """`Sliding` with chunk=0 whose cache is int8; it steps, and cannot be filled."""

    def step(self, token, cache):
        """As `Sliding.step`; a layer holds (keys, values, their scales [B, S, G])."""
        c, at = self.config, cache.length
        put = jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0))

        def own(i, q, k, v):
            new = [y for x in (k, v) for y in _int8(x)]
            held = tuple(map(put, cache.layers[i], new, [at] * 4))
            return _over_int8(q, held, at + 1), held

        x = self.embedded(token[:, None], at[:, None])
        x, kept = through(c, self.blocks(), x, at[:, None], own, lambda i, q: None)
        return self.finished(x)[:, 0], SlidingCache(tuple(kept), at + 1)


def _int8(x):
    """(int8 numbers, float32 scale of each head and position)."""
    wide = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(wide), axis=-1) / 127 + 1e-12
    return jnp.round(wide / scale[..., None]).astype(jnp.int8), scale


def _over_int8(q, held, lengths):
    """One query over int8 keys and values, which are read once and widened where they are used."""
    k, k_scale, v, v_scale = held
    wide = lambda x: x.astype(jnp.float32)
    scores = jnp.sum(wide(q) * wide(k), axis=-1) * k_scale * q.shape[-1] ** -0.5
    seen = jnp.arange(k.shape[1])[None] < lengths[:, None]
    weights = jax.nn.softmax(jnp.where(seen[..., None], scores, jnp.float32(-1e30)), axis=1)
    out = jnp.sum((weights * v_scale)[..., None] * wide(v), axis=1, keepdims=True)
    return out.astype(q.dtype)


def predicted(base: LmConfig) -> dict[str, dict[str, float]]:
    """arm -> N -> tokens/s over static_kv's, batch 1, by the constants above."""
    weights = 2.0 * lm.count_lm_parameters(base)
    half = dataclasses.replace(base, dtype="bfloat16")

    def seconds(arm: str, n: int) -> float:
        config = dataclasses.replace(half, **ARMS[arm])
        state = state_and_ids(arm, config, n)[0]
        hit = LAUNCHES + (weights + state) / BANDWIDTH
        w = config.chunk
        if not compresses(config):
            return hit
        pairs = config.stages * 4.0 * w * n * base.d_model
        made = 2.0 * n * 2 * base.d_model**2  # keys and values of the history
        if arm == "recurrent":
            pairs = made = 0.0
        elif arm == "tlin_one":
            made = 0.0
        more = 2.0 * n * (2 * base.d_model**2 + 3 * base.d_model * base.d_ff)
        work = pairs + config.stages * made + (config.stages - 1) * more
        return hit + (work / FLOPS + LAUNCHES) / w

    return {
        arm: {str(n): seconds("static_kv", n) / seconds(arm, n) for n in LENGTHS} for arm in ARMS
    }


def compresses(config: LmConfig) -> bool:
    """Whether it has a window, compressed positions and syncs."""
    return hasattr(lm.make_lm(config), "form")


@functools.cache
def state_and_ids(arm: str, config: LmConfig, n: int) -> tuple[int, int]:
    """(bytes of one text's cache of n positions but for its ids, bytes of these)."""
    cache = cache_shapes(arm, config, n, 1)
    ids = 4 * cache.ids.size if compresses(config) else 0
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache)) - ids, ids


def cache_shapes(arm: str, config: LmConfig, n: int, batch: int, room: int = 0) -> Any:
    """Shapes of a cache of n positions, with room for more."""
    if compresses(config):
        net, blank = lm.make_lm(config), jax.ShapeDtypeStruct((batch, 1), jnp.int32)
        fill = lambda p, t: net.apply(p, t, t >= 0, n + room, method="fill")[1]
        return jax.eval_shape(fill, params_shapes(config), blank)
    groups, of = config.kv_heads or config.heads, jax.ShapeDtypeStruct
    places = min(n, 2 * config.chunk) if config.chunk else n + room
    whole = (batch, places, groups, config.d_model // config.heads)
    pair = (of(whole, layer.compute_dtype(config)),)
    if arm == "int8_kv":
        pair = (of(whole, jnp.int8), of(whole[:3], jnp.float32))
    return SlidingCache((pair * 2,) * config.blocks, of((batch,), jnp.int32))


def some_cache(config: LmConfig, shapes: Any, n: int) -> Any:
    """Any numbers: what a step or a sync costs does not depend on them.

    A window of compressed positions is full, so that a sync is due.
    """

    def array(x):
        if x.dtype == jnp.int32:
            ids = np.random.default_rng(0).integers(0, config.vocab_size, x.shape, np.int32)
            return jnp.asarray(ids)
        return jnp.full(x.shape, 0.01 if jnp.issubdtype(x.dtype, jnp.floating) else 1, x.dtype)

    cache = jax.tree.map(array, shapes)
    cache = cache._replace(length=jnp.full_like(cache.length, n))
    return cache._replace(synced=cache.length - config.chunk) if compresses(config) else cache


def params_shapes(config: LmConfig) -> Any:
    return jax.eval_shape(lambda: fresh(config))


@functools.partial(jax.jit, static_argnums=0)
def fresh(config: LmConfig) -> Any:
    """Weights in the dtype of the steps."""
    made = lm.init(config, jax.random.key(0))
    return jax.tree.map(lambda x: x.astype(layer.compute_dtype(config)), made)


def lowered(arm: str, config: LmConfig, cache: Any, steps: int, one_query: Any) -> dict[str, Any]:
    """ "steps" and, where there is one, "sync", ready for the compiler.

    Both change their cache in place: a copy of a static one would cost as much as a step.
    """
    net = Int8(config) if arm == "int8_kv" else lm.make_lm(config)
    params, real = params_shapes(config), layer.one_query

    def go_on(params, token, cache):
        head = lm.head(config, params)

        def one(carry, _):
            states, cache = net.apply(params, *carry, method="step")
            logits = states @ head.astype(states.dtype)
            return (jnp.argmax(logits, -1).astype(jnp.int32), cache), None

        return jax.lax.scan(one, (token, cache), None, length=steps)[0]

    token = jax.ShapeDtypeStruct(cache.length.shape, jnp.int32)
    layer.one_query = one_query
    try:
        made = {"steps": jax.jit(go_on, donate_argnums=2).lower(params, token, cache)}
    finally:
        layer.one_query = real
    if compresses(config):
        sync = lambda params, cache: net.apply(params, cache, method="sync")
        made["sync"] = jax.jit(sync, donate_argnums=1).lower(params, cache)
    return made


def allotted(config: LmConfig, n: int) -> dict[str, int]:
    """Bytes that the compiler allots: the state, and what a step or a sync takes beside it.

    Weights, and ids, which grow by 4 bytes a token, are counted apart.
    """
    cache = cache_shapes("", config, n, 1)
    programs = lowered("", config, cache, 1, layer.one_query)
    temporary = {
        name: int(program.compile().memory_analysis().temp_size_in_bytes)
        for name, program in programs.items()
    }
    state = lm.state_bytes(cache)
    return {"bytes": state + max(temporary.values()), "state": state, **temporary}
