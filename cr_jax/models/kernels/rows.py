"""What each row operation computes; the plain form stands here, the Triton form in `triton/`.

Shapes: B batch, L window, D model width, H heads, K head width, F feed-forward width, T tokens,
V vocabulary.  Sums, norms and exponentials are float32 in both forms.
"""

import importlib
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Form = Literal["xla", "triton"]


def _triton():
    """The Triton forms; imported when used: the part of JAX that they need may go away."""
    return importlib.import_module("cr_jax.models.kernels.triton")


def missing() -> str:
    """Why this installation of JAX has no Triton forms, in one line; empty where it has them."""
    try:
        _triton()
    except ImportError as error:
        return f"this JAX has no Pallas for Triton ({error})"
    return ""


def project(x: Float[Array, "... D"], kernel: Float[Array, "D F"]) -> Float[Array, "... F"]:
    """x @ kernel over one flat row axis.

    With two row axes the kernel's gradient contracts over both, and XLA transposes whole
    activations for it (a tenth of a step on an H100).
    """
    flat = x.reshape(-1, x.shape[-1]) @ kernel.astype(x.dtype)
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


def rms_norm(x: Float[Array, "... D"], form: Form = "xla") -> Float[Array, "... D"]:
    """x / rms(x) along the last axis, in float32; no learned scale."""
    if form == "triton":
        return _triton().rms_norm(x)
    wide = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + 1e-6)
    return (wide * scale).astype(x.dtype)


def add_norm(
    x: Float[Array, "... D"], y: Float[Array, "... D"] | None, form: Form = "xla"
) -> tuple[Float[Array, "... D"], Float[Array, "... D"]]:
    """(x + y, rms_norm(x + y)): a residual stream and what the next layer reads of it.

    y None: nothing is to be added.
    """
    if y is None:
        return x, rms_norm(x, form)
    if form == "triton":
        return _triton().add_norm(x, y)
    x = x + y
    return x, rms_norm(x)


def rotate(
    x: Float[Array, "B L H K"], positions: Int[Array, " L"] | Int[Array, "B L"]
) -> Float[Array, "B L H K"]:
    """Rotary position embedding (RoPE), base 10,000, halves rotated against each other.

    positions: of all rows alike, or of each row.
    """
    half = x.shape[-1] // 2
    frequency = 10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half)
    rows = positions[None] if positions.ndim == 1 else positions
    angle = rows.astype(jnp.float32)[..., None] * frequency[None, None, :]
    cos, sin = jnp.cos(angle)[:, :, None, :], jnp.sin(angle)[:, :, None, :]
    a, b = x[..., :half].astype(jnp.float32), x[..., half:].astype(jnp.float32)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).astype(x.dtype)


def heads(
    x: Float[Array, "B Q D"],
    kernel: Float[Array, "3 D D"],
    positions: Int[Array, " Q"] | Int[Array, "B Q"],
    count: int,
    form: Form = "xla",
    context: tuple[Float[Array, "B S D"], Int[Array, " S"]] | None = None,
) -> tuple[Float[Array, "B Q H K"], Float[Array, "B S H K"], Float[Array, "B S H K"]]:
    """What attention takes: (q, k, v) of H = `count` heads, q and k normalised and rotated.

    Queries of `x`; keys and values of `context`, (states, their positions), None: of `x`.  With a
    context it is always the plain form.
    Triton: one product with the three kernels side by side, and one pass over it.
    """
    if form == "triton" and context is None:
        return _triton().heads(x, kernel, positions, count)
    source, source_positions = (x, positions) if context is None else context
    split = lambda y: y.reshape(*y.shape[:-1], count, y.shape[-1] // count)
    q = rotate(rms_norm(split(project(x, kernel[0]))), positions)
    k = rotate(rms_norm(split(project(source, kernel[1]))), source_positions)
    return q, k, split(project(source, kernel[2]))


def gated(
    x: Float[Array, "... D"], kernel: Float[Array, "2 D F"], form: Form = "xla"
) -> Float[Array, "... F"]:
    """silu(x W1) * x W2: the inner layer of SwiGLU.

    Triton: one product with both kernels side by side, and one pass over it.
    """
    if form == "triton":
        return _triton().gated(x, kernel)
    return jax.nn.silu(project(x, kernel[0])) * project(x, kernel[1])


def cross_entropy(
    logits: Float[Array, "T V"],
    ids: Int[Array, " T"],
    weights: Float[Array, " T"],
    form: Form = "xla",
) -> tuple[Float[Array, "T V"], Float[Array, " T"], Bool[Array, " T"]]:
    """(gradient of sum(weights * nll) in the logits, nll in nats, whether the target won).

    The gradient has the logits' dtype.  Not differentiable.  A target among several equal largest
    logits has won.  Triton: one kernel, which writes the gradient over the logits.
    """
    if form == "triton":
        return _triton().cross_entropy(logits, ids, weights)
    top, log_z, target, _ = softmax_terms(logits, ids)
    p = jnp.exp(logits.astype(jnp.float32) - log_z[:, None])
    wrong = p - (ids[:, None] == jnp.arange(logits.shape[1])[None]).astype(p.dtype)
    return (wrong * weights[:, None]).astype(logits.dtype), log_z - target, target >= top


class SoftmaxTerms(NamedTuple):
    """Of each row, float32: largest logit, log of the sum of exponentials, the target's logit, and
    the entropy of the softmax in nats, None where it was not asked for."""

    top: Float[Array, "..."]
    log_z: Float[Array, "..."]
    target: Float[Array, "..."]
    entropy: Float[Array, "..."] | None


def softmax_terms(
    logits: Float[Array, "... V"],
    targets: Int[Array, "..."],
    one_pass: bool | None = None,
    entropy: bool = False,
) -> SoftmaxTerms:
    """What a loss reads off its logits.

    With s = logit - top and T = sum exp(s):
    log_z = top + log T, entropy = log T - sum(s exp(s)) / T.

    one_pass: read the logits once instead of twice; None: on accelerators.
    """
    wide = logits.astype(jnp.float32)
    target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    one_pass = jax.default_backend() != "cpu" if one_pass is None else one_pass
    if not one_pass:
        top = jnp.max(wide, axis=-1)
        below = wide - top[..., None]
        total = jnp.sum(jnp.exp(below), axis=-1)
        weighted = jnp.sum(below * jnp.exp(below), axis=-1) if entropy else None
    else:
        # Memory traffic is what this costs on an accelerator.
        def merge(a, b):
            m = jnp.maximum(a[0], b[0])
            x, y = jnp.exp(a[0] - m), jnp.exp(b[0] - m)
            total = a[1] * x + b[1] * y
            if not entropy:
                return m, total
            # exp(s) * s moves with the largest logit: all s become less by as much.
            moved = (a[2] + a[1] * (a[0] - m)) * x + (b[2] + b[1] * (b[0] - m)) * y
            return m, total, moved

        zero, lowest = jnp.float32(0), jnp.float32(jnp.finfo(jnp.float32).min)
        columns = (wide, jnp.ones_like(wide)) + (jnp.zeros_like(wide),) * entropy
        start = (lowest, zero) + (zero,) * entropy
        top, total, *rest = jax.lax.reduce(columns, start, merge, (wide.ndim - 1,))
        weighted = rest[0] if entropy else None
    log_t = jnp.log(total)
    return SoftmaxTerms(
        top,
        top + log_t,
        target.astype(jnp.float32),
        None if weighted is None else log_t - weighted / total,
    )
