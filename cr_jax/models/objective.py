"""From decoder states to numbers: chunked linear cross-entropy, TRA, exact sums.

Training, evaluation and routing all score tokens here, so their figures cannot drift apart.
The [B, L, V] logits never stand in memory at once: the vocabulary product runs over chunks of
windows.  Shapes: B batch, L window, D model width, V vocabulary.
"""

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from cr_jax.models.kernels import Form, cross_entropy, softmax_terms

UNROLL = 8  # chunks of a loop with Triton kernels


class TokenScores(NamedTuple):
    """Per token: nll in nats, the rebuilt id, whether it is right, and its probability; the entropy
    of the prediction in nats, which is the nll to expect if the model is right, or None."""

    nll: Float[Array, "B L"]
    predicted: Int[Array, "B L"]
    correct: Bool[Array, "B L"]
    confidence: Float[Array, "B L"]
    entropy: Float[Array, "B L"] | None = None


def token_scores(
    h: Float[Array, "B L D"],
    kernel: Float[Array, "D V"],
    targets: Int[Array, "B L"],
    chunk: int = 8192,
    entropy: bool = False,
) -> TokenScores:
    """Scores of every token; `chunk` bounds the tokens whose logits stand in memory.

    TRA (paper section 1) is the mean of `correct`; `nll` is the cross-entropy in nats/token;
    `confidence` is the probability of the rebuilt id, and `entropy`, one more sum over the
    vocabulary, that of the prediction (Not in the paper).  Logits are float32.
    """
    kernel, steps = kernel.astype(h.dtype), _steps(targets.shape, chunk)
    x, t = _split(h, steps), _split(targets, steps)

    def score(i):
        logits = jnp.einsum("bld,dv->blv", x[:, i], kernel, preferred_element_type=jnp.float32)
        top, log_z, target, spread = softmax_terms(logits, t[:, i], entropy=entropy)
        # argmax as a plain maximum over places: `jnp.argmax` reduces pairs, several times slower.
        # Places are exact in float32 up to 2^24 ids; the first of equal logits wins.
        places = jnp.arange(logits.shape[-1], 0, -1, dtype=jnp.float32)
        best = jnp.max(jnp.where(logits == top[..., None], places[None, None], 1.0), axis=-1)
        predicted = (logits.shape[-1] - best).astype(jnp.int32)
        right, sure = predicted == t[:, i], jnp.exp(top - log_z)
        return TokenScores(log_z - target, predicted, right, sure, spread)

    return jax.tree.map(_join, jax.lax.map(score, jnp.arange(steps)))


class TrainScores(NamedTuple):
    """What a training step reads off its logits: nll in nats, and whether the target won.

    A target among several equal largest logits counts as right; `token_scores` takes the first of
    them.  Ties are common in half precision, so training TRA may lie a little above evaluation's.
    """

    nll: Float[Array, "B L"]
    correct: Bool[Array, "B L"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def linear_cross_entropy(
    h: Float[Array, "B L D"],
    kernel: Float[Array, "D V"],
    targets: Int[Array, "B L"],
    weights: Float[Array, "B L"],
    chunk: int = 8192,
    form: Form = "xla",
) -> tuple[Float[Array, ""], TrainScores]:
    """(sum of weights * nll, the scores); differentiable in h and kernel through the sum only.

    The gradient is formed in the forward pass while a chunk's logits are at hand: three matrix
    products per chunk, where recomputing the logits in the backward pass would take four.  Under
    differentiation logits have h's dtype: writing and reading them is what this costs on a GPU.
    form: of `kernels.cross_entropy`, which differentiation takes.
    """
    scores = token_scores(h, kernel, targets, chunk)
    return jnp.sum(weights * scores.nll), TrainScores(scores.nll, scores.correct)


def _forward(h, kernel, targets, weights, chunk, form):
    half, steps = kernel.astype(h.dtype), _steps(targets.shape, chunk)
    x, t, w = _split(h, steps), _split(targets, steps), _split(weights, steps)

    def score(carry, i):
        d_kernel, d_h = carry
        rows, ids = x[:, i].reshape(-1, h.shape[-1]), t[:, i].reshape(-1)
        d_logits, nll, won = cross_entropy(rows @ half, ids, w[:, i].reshape(-1), form)
        d_x = jnp.einsum("tv,dv->td", d_logits, half).reshape(x[:, i].shape)
        d_kernel += jnp.einsum("td,tv->dv", rows, d_logits, preferred_element_type=jnp.float32)
        d_h = jax.lax.dynamic_update_index_in_dim(d_h, d_x[:, None], i, 1)
        shape = t[:, i].shape
        return (d_kernel, d_h), TrainScores(nll.reshape(shape), won.reshape(shape))

    start = (jnp.zeros(kernel.shape, jnp.float32), jnp.zeros_like(x))
    # A loop copies what the kernel writes in place; a few chunks are cheap to unroll.
    unroll = min(steps, UNROLL) if form == "triton" else 1
    (d_kernel, d_h), scores = jax.lax.scan(score, start, jnp.arange(steps), unroll=unroll)
    scores = TrainScores(*(_join(s) for s in scores))
    loss = jnp.sum(weights * scores.nll)
    return (loss, scores), (d_h.reshape(h.shape), d_kernel.astype(kernel.dtype))


def _backward(chunk, form, residuals, cotangents):
    d_h, d_kernel = residuals
    scale = cotangents[0]
    return (d_h * scale.astype(d_h.dtype), d_kernel * scale, None, None)


linear_cross_entropy.defvjp(_forward, _backward)


def _steps(shape, chunk: int) -> int:
    """Number of chunks: the fewest that divide B and hold at most `chunk` tokens, or one window."""
    batch, window = shape
    wanted = min(batch, math.ceil(batch * window / chunk))
    return next(n for n in range(wanted, batch + 1) if batch % n == 0)


def _split(x, steps: int):
    """[B, ...] -> [B / steps, steps, ...]: chunk i is [:, i], every steps-th window.

    Neither transposes the batch nor moves rows that are split over devices along B.
    """
    return x.reshape(x.shape[0] // steps, steps, *x.shape[1:])


def _join(x):
    """The chunks' results [steps, B / steps, ...] back to [B, ...]."""
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def score_sums(scores: TokenScores | TrainScores, mask: Bool[Array, "B L"]) -> dict[str, Array]:
    """Sums and counts of a batch, to be added over batches and divided once by `metrics`."""
    right = scores.correct & mask
    return {
        "nll": jnp.sum(jnp.where(mask, scores.nll, 0.0)),
        "correct": jnp.sum(right, dtype=jnp.int32),
        "tokens": jnp.sum(mask, dtype=jnp.int32),
        "windows": jnp.sum(jnp.any(mask, -1), dtype=jnp.int32),
        "exact": jnp.sum(jnp.all(scores.correct | ~mask, -1) & jnp.any(mask, -1), dtype=jnp.int32),
    }


def metrics(sums: Mapping[str, float]) -> dict[str, float]:
    """Divides once.  tra and window_exact are shares, nll is in nats/token.

    With `bytes` among the sums, also `bits_per_byte` of the text that the tokens stand for.

    >>> metrics({"nll": 5.0, "correct": 8, "tokens": 10, "windows": 2, "exact": 1})
    {'tra': 0.8, 'nll': 0.5, 'window_exact': 0.5, 'tokens': 10, 'windows': 2}
    """
    tokens, windows = max(1, float(sums["tokens"])), max(1, float(sums["windows"]))
    out = {
        "tra": float(sums["correct"]) / tokens,
        "nll": float(sums["nll"]) / tokens,
        "window_exact": float(sums["exact"]) / windows,
        "tokens": int(sums["tokens"]),
        "windows": int(sums["windows"]),
    }
    if sums.get("bytes"):
        out["bits_per_byte"] = float(sums["nll"]) / math.log(2) / float(sums["bytes"])
    return out


def majority_rate(tokens: Integer[np.ndarray, "N L"], mask: Bool[np.ndarray, "N L"]) -> float:
    """Share of the most frequent id: the TRA of a model that always answers with it."""
    counts = np.bincount(tokens[mask])
    return float(counts.max() / counts.sum())
