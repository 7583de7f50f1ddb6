"""From decoder states to numbers: chunked linear cross-entropy, TRA, exact sums.

Training, evaluation and routing all score tokens here, so their figures cannot drift apart.
The [B, L, V] logits never stand in memory at once: the vocabulary product runs over chunks of
window positions.  Shapes: B batch, L window, D model width, V vocabulary.
"""

import functools
import math
from typing import Mapping, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class TokenScores(NamedTuple):
    """Per token: nll in nats, the rebuilt id, whether it is right, and its probability."""

    nll: Float[Array, "B L"]
    predicted: Int[Array, "B L"]
    correct: Bool[Array, "B L"]
    confidence: Float[Array, "B L"]


def token_scores(
    h: Float[Array, "B L D"],
    kernel: Float[Array, "D V"],
    targets: Int[Array, "B L"],
    chunk: int = 8192,
) -> TokenScores:
    """Scores of every token; `chunk` bounds the tokens whose logits stand in memory.

    TRA (paper section 1) is the mean of `correct`; `nll` is the cross-entropy in nats/token;
    `confidence` is the probability of the rebuilt id (Not in the paper).
    """
    kernel = kernel.astype(h.dtype)

    def score(carry, piece):
        scores, _, _ = _score_chunk(piece[0], kernel, piece[1])
        return carry, scores

    steps = _steps(targets.shape, chunk)
    _, scores = jax.lax.scan(score, None, (_split(h, steps), _split(targets, steps)))
    return TokenScores(*(_join(x) for x in scores))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def linear_cross_entropy(
    h: Float[Array, "B L D"],
    kernel: Float[Array, "D V"],
    targets: Int[Array, "B L"],
    weights: Float[Array, "B L"],
    chunk: int = 8192,
) -> tuple[Float[Array, ""], TokenScores]:
    """(sum of weights * nll, the scores); differentiable in h and kernel through the sum only.

    The gradient is formed in the forward pass while a chunk's logits are at hand: three matrix
    products per chunk, where recomputing the logits in the backward pass would take four.
    """
    scores = token_scores(h, kernel, targets, chunk)
    return jnp.sum(weights * scores.nll), scores


def _forward(h, kernel, targets, weights, chunk):
    half = kernel.astype(h.dtype)

    def score(total, piece):
        x, t, w = piece
        scores, logits, top = _score_chunk(x, half, t)
        log_z = scores.nll + jnp.take_along_axis(logits, t[..., None], -1)[..., 0]
        p = jnp.exp(logits - log_z[..., None])
        wrong = p - (t[..., None] == jnp.arange(kernel.shape[1]))
        d_logits = (wrong * w[..., None]).astype(h.dtype)
        d_x = jnp.einsum("blv,dv->bld", d_logits, half)
        d_kernel = jnp.einsum("bld,blv->dv", x, d_logits, preferred_element_type=jnp.float32)
        return total + d_kernel, (scores, d_x)

    steps = _steps(targets.shape, chunk)
    pieces = (_split(h, steps), _split(targets, steps), _split(weights, steps))
    zero = jnp.zeros(kernel.shape, jnp.float32)
    d_kernel, (scores, d_h) = jax.lax.scan(score, zero, pieces)
    scores = TokenScores(*(_join(x) for x in scores))
    loss = jnp.sum(weights * scores.nll)
    return (loss, scores), (_join(d_h), d_kernel.astype(kernel.dtype))


def _backward(chunk, residuals, cotangents):
    d_h, d_kernel = residuals
    scale = cotangents[0]
    return (d_h * scale.astype(d_h.dtype), d_kernel * scale, None, None)


linear_cross_entropy.defvjp(_forward, _backward)


def _score_chunk(x, kernel, targets):
    logits = jnp.einsum("bld,dv->blv", x, kernel, preferred_element_type=jnp.float32)
    top = jnp.max(logits, axis=-1)
    log_z = top + jnp.log(jnp.sum(jnp.exp(logits - top[..., None]), axis=-1))
    target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    predicted = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    scores = TokenScores(log_z - target, predicted, predicted == targets, jnp.exp(top - log_z))
    return scores, logits, top


def _steps(shape, chunk: int) -> int:
    """Chunks along the window: the fewest that divide L and hold at most `chunk` tokens.

    Chunks run along L, never along B, so a batch sharded over devices stays where it is.
    """
    batch, window = shape
    wanted = max(1, min(window, math.ceil(batch * window / chunk)))
    return next(n for n in range(wanted, window + 1) if window % n == 0)


def _split(x, steps: int):
    x = x.reshape(x.shape[0], steps, x.shape[1] // steps, *x.shape[2:])
    return jnp.moveaxis(x, 1, 0)


def _join(x):
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:])


def window_nll(
    nll: Float[Array, "*E B L"], mask: Bool[Array, "B L"]
) -> Float[Array, "*E B"]:
    """Mean residual of each window in nats/token; padding does not count."""
    weight = mask.astype(nll.dtype)
    return jnp.sum(nll * weight, -1) / jnp.maximum(jnp.sum(weight, -1), 1)


def score_sums(scores: TokenScores, mask: Bool[Array, "B L"]) -> dict[str, Array]:
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
    """
    tokens, windows = max(1, float(sums["tokens"])), max(1, float(sums["windows"]))
    out = {"tra": float(sums["correct"]) / tokens, "nll": float(sums["nll"]) / tokens,
           "window_exact": float(sums["exact"]) / windows,
           "tokens": int(sums["tokens"]), "windows": int(sums["windows"])}
    if sums.get("bytes"):
        out["bits_per_byte"] = float(sums["nll"]) / math.log(2) / float(sums["bytes"])
    return out


def majority_rate(tokens: Int[np.ndarray, "N L"], mask: Bool[np.ndarray, "N L"]) -> float:
    """Share of the most frequent id: the TRA of a model that always answers with it."""
    counts = np.bincount(tokens[mask])
    return float(counts.max() / counts.sum())
