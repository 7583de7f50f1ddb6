"""Do the Triton kernels work on this device?  Tried once, small, against the plain forms.

What compiles for one GPU and one version of JAX may fail or go wrong on another; a run should then
be slower, not broken.  Not in the paper.
"""

import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np

from cr_jax.models.kernels import rows

BATCH, WINDOW = 2, 32
TOLERANCE = 0.03  # of an array's norm; bfloat16 keeps 8 bits


@functools.cache
def failure(width: int, heads: int, inner: int, vocabulary: int) -> str:
    """What goes wrong with kernels of these sizes, in one line; empty where values and gradients
    are the plain forms'.

    width: d_model; inner: d_ff.  A few seconds of compilation, once per process and size.
    """
    reasons: list[str] = []

    def work():
        try:
            reasons.append(_compare(width, heads, inner, vocabulary))
        except Exception as error:  # whatever a compiler or a driver throws
            reason = (str(error).splitlines() or [""])[0][:200]
            reasons.append(f"they fail on this device: {type(error).__name__} {reason}".rstrip())

    # A thread of its own is outside the trace of the step that asks.
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return reasons[0]


def _compare(width: int, heads: int, inner: int, vocabulary: int) -> str:
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.bfloat16)
    x, y = draw(BATCH, WINDOW, width), draw(BATCH, WINDOW, width)
    three, two = (draw(n, width, m) / width**0.5 for n, m in ((3, width), (2, inner)))
    logits = 4 * draw(BATCH * WINDOW, vocabulary)
    ids = jnp.asarray(rng.integers(0, vocabulary, BATCH * WINDOW), jnp.int32)
    weights = jnp.asarray(rng.uniform(size=BATCH * WINDOW), jnp.float32)
    cases = {
        "norm": (rows.add_norm, (x, y)),
        "heads": (lambda a, k, form: rows.heads(a, k, jnp.arange(WINDOW), heads, form), (x, three)),
        "gate": (rows.gated, (x, two)),
    }
    for name, (operation, arguments) in cases.items():
        pair = [_slopes(operation, form)(*arguments) for form in ("xla", "triton")]
        if away := _apart(*pair):
            return f"{name} is off by {away:.0%} on this device"
    pair = [
        jax.jit(functools.partial(rows.cross_entropy, form=form))(logits, ids, weights)
        for form in ("xla", "triton")
    ]
    if away := _apart(*pair):
        return f"the loss is off by {away:.0%} on this device"
    return ""


def _slopes(operation, form):
    """Compiled: arguments -> (gradients of a sum over the values, values)."""

    def run(*arguments):
        def total(*a):
            values = jax.tree.leaves(operation(*a, form=form))
            return sum(jnp.sum(jnp.sin(v.astype(jnp.float32))) for v in values), values

        places = tuple(range(len(arguments)))
        return jax.grad(total, places, has_aux=True)(*arguments)

    return jax.jit(run)


def _apart(wanted, got) -> float:
    """The largest difference of two arrays over the first's norm; 0 where all are close."""
    worst = 0.0
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(got), strict=True):
        a, b = (np.asarray(v, np.float64) for v in (a, b))
        away = np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-6)
        worst = max(worst, away if np.isfinite(away) else np.inf)
    return worst if worst > TOLERANCE else 0.0
