"""One layer of a language model as pure functions, and the module that declares all of them.

    Layers(config)() -> [weights of one layer, ...]
    read(config, layer, x, positions) -> (queries, keys, values)
    attend(config, queries, keys and values) -> what was read
    finish(config, layer, x, read) -> x with it and the feed-forward layer added

A kind of model says what attends to what and calls these, so kinds differ in nothing else and have
the same parameters.  `config.style` "rms" has the parameters of `decoder.Decoder`, tree and shapes;
"layer_norm" is the layer that TLinFormer's paper reports (arXiv 2508.20407): LayerNorm with bias,
biases on queries, keys, values and output, none in SwiGLU, no normalised queries, and a start of
zeros, so that 8 layers of width 432 and a tied head are its 40,982,544 parameters.
Letters: B texts, T positions, S positions attended to, D width, H heads, G heads of keys and
values, K head width.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cr_jax.config import LmConfig
from cr_jax.models import kernels
from cr_jax.models.kernels import project, rms_norm
from cr_jax.models.layers import attention_kernel, compute_dtype, fan_in

Layer = Mapping[str, Mapping[str, Any]]  # "attention" and "mlp": name -> array


class KeysValues(NamedTuple):
    """What can be attended to; lengths: how many of each row's leading positions, None: all."""

    keys: Any  # [B, S, G, K]
    values: Any  # [B, S, G, K]
    lengths: Any = None  # int32 [B], at least 1


class _Weights(nn.Module):
    """Named arrays; shapes: name -> (initialiser, shape)."""

    shapes: Mapping[str, Any]

    @nn.compact
    def __call__(self):
        return {name: self.param(name, init, shape) for name, (init, shape) in self.shapes.items()}


class Layers(nn.Module):
    """Parameters of all layers, stacked [N, ...] for Muon; called, one `Layer` each."""

    config: LmConfig

    @nn.compact
    def __call__(self) -> list[Layer]:
        c = self.config
        n, d, f = c.blocks, c.d_model, c.d_ff
        width = (c.kv_heads or c.heads) * (d // c.heads)
        small = fan_in(0.5 / n)
        ones, zeros = nn.initializers.ones_init(), nn.initializers.zeros_init()
        attention: dict[str, Any] = {"out": (small, (n, d, d))}
        if width == d:
            attention["qkv"] = (fan_in(), (n, 3, d, d))
        else:
            attention |= {"q": (fan_in(), (n, d, d)), "kv": (fan_in(), (n, 2, d, width))}
        mlp = {"up": (fan_in(), (n, 2, d, f)), "down": (small, (n, f, d))}
        if c.style == "layer_norm":
            norm = {"scale": (ones, (n, d)), "bias": (zeros, (n, d))}
            biases = {"q_bias": (zeros, (n, d)), "kv_bias": (zeros, (n, 2, width))}
            attention |= {**norm, **biases, "out_bias": (zeros, (n, d))}
            mlp |= norm
        stacked = {
            name: _Weights(shapes, name=name)()
            for name, shapes in (("attention", attention), ("mlp", mlp))
        }
        return [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(n)]


class Model(nn.Module):
    """What every kind made of these layers shares: inputs, layers, final norm.

    A kind defines `__call__(tokens [B, L]) -> states [B, L, D]`, `prefill`, `step` and `sync` as
    `models.lm` lists them.
    """

    config: LmConfig

    def setup(self):
        c = self.config
        self.embedding = self.param(
            "embedding", nn.initializers.normal(1.0), (c.vocab_size, c.d_model)
        )
        if c.style == "rms":
            self.start = self.param("start", nn.initializers.normal(1.0), (c.d_model,))
        else:
            ones, zeros = nn.initializers.ones_init(), nn.initializers.zeros_init()
            self.final = _Weights({"scale": (ones, (c.d_model,)), "bias": (zeros, (c.d_model,))})
        if not c.tie_embeddings:
            self.head_kernel = self.param(
                "head", nn.initializers.zeros_init(), (c.d_model, c.vocab_size)
            )
        self.blocks = Layers(c)

    def embedded(
        self, ids: Int[Array, "B T"], positions: Int[Array, "B T"] | Int[Array, " T"]
    ) -> Float[Array, "B T D"]:
        """Inputs at their positions: position 0 is the start, whatever its id says."""
        c = self.config
        # float32 rows: the gather's gradient is then a float32 scatter-add.
        x = self.embedding[ids]
        start = self.start if c.style == "rms" else jnp.zeros(c.d_model, x.dtype)
        first = (positions if positions.ndim == 2 else positions[None]) == 0
        x = jnp.where(first[..., None], start[None, None], x).astype(compute_dtype(c))
        return rms_norm(x) if c.style == "rms" else x

    def shifted(self, tokens: Int[Array, "B L"]) -> Int[Array, "B T"]:
        """Ids of the inputs [B, L + 1]: one stands at the start's place."""
        return jnp.pad(tokens, ((0, 0), (1, 0)))

    def finished(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return rms_norm(x) if self.config.style == "rms" else _layer_norm(self.final(), x)


def read(
    config: LmConfig, layer: Layer, x: Float[Array, "B T D"], positions: Any
) -> tuple[Float[Array, "B T H K"], Float[Array, "B T G K"], Float[Array, "B T G K"]]:
    """(queries, keys, values) of states at `positions` ([T], or of each row [B, T])."""
    w = layer["attention"]
    width = config.d_model // config.heads
    split = lambda y: y.reshape(*y.shape[:-1], -1, width)
    x = _norm(w, x)
    three = w["qkv"] if "qkv" in w else (w["q"], w["kv"][0], w["kv"][1])
    q, k, v = (project(x, three[i]) for i in range(3))
    if "q_bias" in w:
        biases = (w["q_bias"], w["kv_bias"][0], w["kv_bias"][1])
        q, k, v = (y + _as_row(b, y) for y, b in zip((q, k, v), biases, strict=True))
        q, k = split(q), split(k)
    else:
        q, k = rms_norm(split(q)), rms_norm(split(k))
    return kernels.rotate(q, positions), kernels.rotate(k, positions), split(v)


def attend(
    config: LmConfig,
    queries: Float[Array, "B T H K"],
    over: KeysValues,
    causal: bool = False,
    mask: Any = None,
) -> Float[Array, "B T H K"]:
    """Softmax attention of every query; mask [1, 1, T, S]: True where it may look."""
    kind, given = attention_kernel(config), over.lengths
    if queries.shape[1] == 1 and mask is None and not causal:
        return one_query(queries, over)
    odd = mask is not None and (mask.shape[-1] % 2 or mask.shape[-2] % 2)
    if queries.shape[-1] % 8 or odd:
        kind = "xla"  # cuDNN wants heads of a multiple of 8, and even lengths under a mask
    return jax.nn.dot_product_attention(
        queries,
        over.keys,
        over.values,
        mask=mask,
        is_causal=causal,
        key_value_seq_lengths=given,
        query_seq_lengths=None
        if given is None or kind == "xla"
        else jnp.full_like(given, queries.shape[1]),
        implementation=kind,
    )


def one_query(queries: Float[Array, "B 1 H K"], over: KeysValues) -> Float[Array, "B 1 H K"]:
    """`attend` of one query, which reads every key and value once: products of matrix and vector.

    A cuDNN kernel gives one query to one multiprocessor a head, and leaves the others idle.
    """
    return jax.nn.dot_product_attention(
        queries, over.keys, over.values, key_value_seq_lengths=over.lengths, implementation="xla"
    )


def one_query_by_sums(
    queries: Float[Array, "B 1 H K"], over: KeysValues
) -> Float[Array, "B 1 H K"]:
    """`one_query` as sums of products that a compiler can fuse; also of keys and values in int8.

    Sums are float32.  Queries of one group of heads read their keys once each.
    """
    k, v = over.keys, over.values
    wide = lambda x: x.astype(jnp.float32)
    q = wide(queries).reshape(len(queries), 1, k.shape[2], -1, queries.shape[-1])
    scores = jnp.sum(q * wide(k)[:, :, :, None], axis=-1) * queries.shape[-1] ** -0.5
    if over.lengths is not None:
        seen = jnp.arange(k.shape[1])[None] < over.lengths[:, None]
        scores = jnp.where(seen[:, :, None, None], scores, jnp.float32(-1e30))
    weights = jax.nn.softmax(scores, axis=1)
    out = jnp.sum(weights[..., None] * wide(v)[:, :, :, None], axis=1, keepdims=True)
    return out.reshape(queries.shape).astype(queries.dtype)


def finish(
    config: LmConfig, layer: Layer, x: Float[Array, "B T D"], attended: Float[Array, "B T H K"]
) -> Float[Array, "B T D"]:
    """x + what attention read, projected; then + SwiGLU of that."""
    w, mlp = layer["attention"], layer["mlp"]
    y = project(attended.reshape(x.shape), w["out"])
    x = x + (y + _as_row(w["out_bias"], y) if "out_bias" in w else y)
    return x + project(kernels.gated(_norm(mlp, x), mlp["up"]), mlp["down"])


def _norm(part: Mapping[str, Any], x):
    return _layer_norm(part, x) if "scale" in part else rms_norm(x)


def _layer_norm(part: Mapping[str, Any], x):
    wide = x.astype(jnp.float32)
    wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
    wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + 1e-5)
    return (wide * _as_row(part["scale"], wide) + _as_row(part["bias"], wide)).astype(x.dtype)


def _as_row(vector, x):
    return vector.astype(x.dtype)[(None,) * (x.ndim - 1)]
