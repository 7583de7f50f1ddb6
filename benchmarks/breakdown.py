"""The pieces of one training step timed alone, so that lost time can be located.

A piece that is fast alone and a step slower than the sum of its pieces point at layouts, copies
or memory between them; `benchmarks.hlo` shows those.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import optax

from benchmarks import hlo, jax_bench, rows, timing, workload
from benchmarks.results import write
from cr_jax import models
from cr_jax.config import ModelConfig
from cr_jax.models import kernels, objective
from cr_jax.models.layers import (
    Attention,
    Stack,
    SwiGlu,
    attention_kernel,
    compute_dtype,
    row_kernels,
)
from cr_jax.training import speed
from cr_jax.training.optimizer import make_optimizer


@dataclasses.dataclass(frozen=True)
class Piece:
    """A function of device arrays, how often the step runs it, and the products it forms."""

    name: str
    call: Callable
    arguments: tuple
    times: float = 0.0  # per step; 0: not part of the sum (a part of another piece, or a variant)
    flops: float = 0.0


def with_gradient(function: Callable, fixed: int = 0) -> Callable:
    """f(*args) -> g(cotangent, *args): forward and backward; the last `fixed` are constants.

    Integer arrays are passed as fixed arguments, never closed over: the compiler would fold work
    on them away.
    """

    def both(cotangent, *arguments):
        free = len(arguments) - fixed
        _, pull = jax.vjp(lambda *a: function(*a, *arguments[free:]), *arguments[:free])
        return pull(cotangent)

    return both


def pieces(
    c: ModelConfig, windows: int, chunk: int, chunks: list[int], optimizers: list[str]
) -> Iterator[Piece]:
    """The pieces of a step on `windows` windows, one at a time: arrays are made when asked for."""
    dtype, key, form = compute_dtype(c), jax.random.key(0), row_kernels(c)
    b, window, d = windows, c.window, c.d_model
    params = jax.jit(lambda k: models.init(c, k))(key)
    tree = params["params"]
    tokens = jnp.asarray(workload.draw_tokens(c, b, 1)[0])
    keys = iter(jax.random.split(key, 64))
    draw = lambda *shape: jax.random.normal(next(keys), shape, dtype)
    x, ct = draw(b, window, d), draw(b, window, d)
    positions = jnp.arange(window)
    flops = {k: n * b for k, n in speed.forward_flops(c).items()}

    lookup = lambda table, ids: table[ids].astype(dtype)
    yield Piece("embedding lookup, forward", lookup, (tree["embedding"], tokens))
    yield Piece(
        "embedding lookup, forward + backward",
        with_gradient(lookup, 1),
        (ct, tree["embedding"], tokens),
        1,
    )

    def module(net, subtree, *more):
        return lambda p, y: net.apply({"params": p}, y, *more), subtree

    for name, blocks in (("encoder", c.encoder_blocks), ("decoder", c.decoder_blocks)):
        f, p = module(Stack(c, blocks), tree[name], positions)
        yield Piece(f"{name}, {blocks} blocks, forward", f, (p, x), flops=flops[name])
        yield Piece(
            f"{name}, {blocks} blocks, forward + backward",
            with_gradient(f),
            (ct, p, x),
            1,
            3 * flops[name],
        )
    if c.encoder_blocks:
        block = jax.tree.map(lambda p: p[0], tree["encoder"]["blocks"])
        score = 4.0 * b * window * window * d
        project = 8.0 * b * window * d * d
        f, p = module(Attention(c), block["attention"], positions)
        yield Piece(
            "one attention layer, forward + backward",
            with_gradient(f),
            (ct, p, x),
            flops=3 * (score + project),
        )
        split = lambda: draw(b, window, c.heads, d // c.heads)
        attend = lambda q, k, v: jax.nn.dot_product_attention(
            q, k, v, implementation=attention_kernel(c)
        )
        q, k, v = split(), split(), split()
        yield Piece(
            f"  scores and values only ({attention_kernel(c)}), forward",
            attend,
            (q, k, v),
            flops=score,
        )
        yield Piece(
            f"  scores and values only ({attention_kernel(c)}), forward + backward",
            with_gradient(attend),
            (split(), q, k, v),
            flops=3 * score,
        )
        turn = lambda q: kernels.rotate(kernels.rms_norm(q), positions)
        yield Piece(
            "  plain QK-norm and rotation of q, forward + backward",
            with_gradient(turn),
            (split(), q),
        )
        f, p = module(SwiGlu(c), block["mlp"])
        yield Piece(
            "one feed-forward layer, forward + backward",
            with_gradient(f),
            (ct, p, x),
            flops=3 * 6.0 * b * window * d * c.d_ff,
        )
        norm = lambda x: kernels.rms_norm(x, form)
        yield Piece(f"one RMSNorm ({form}), forward + backward", with_gradient(norm), (ct, x))
        del q, k, v

    net = models.make_bottleneck(c)
    through = lambda p, y: net.apply({"params": p}, y, method=lambda m, y: m.expand(m.compress(y)))
    wide = jax.eval_shape(through, tree["bottleneck"], x)
    yield Piece("bottleneck, forward", through, (tree["bottleneck"], x), flops=flops["bottleneck"])
    yield Piece(
        "bottleneck, forward + backward",
        with_gradient(through),
        (draw(*wide.shape), tree["bottleneck"], x),
        1,
        3 * flops["bottleneck"],
    )

    kernel = models.head(c, params)
    weights = jnp.full((b, window), 1.0 / (b * window))
    for size in sorted({*chunks, chunk}):
        if size > max(chunk, b * window):
            continue
        loss = lambda h, w, ids, share, size=size: objective.linear_cross_entropy(
            h, w, ids, share, size, form
        )[0]
        yield Piece(
            f"loss, chunk {size}, forward only",
            lambda h, w, ids, size=size: objective.token_scores(h, w, ids, size),
            (x, kernel, tokens),
            flops=flops["vocabulary"],
        )
        yield Piece(
            f"loss, chunk {size}, with gradient",
            jax.grad(loss, (0, 1)),
            (x, kernel, tokens, weights),
            float(size == chunk),
            3 * flops["vocabulary"],
        )

    autoencoder = models.Autoencoder(c)

    def whole(p, ids, share):
        h, _ = autoencoder.apply(p, ids)
        return objective.linear_cross_entropy(h, models.head(c, p), ids, share, chunk, form)[0]

    states = lambda p, ids: autoencoder.apply(p, ids)[0]
    trunk = sum(flops.values()) - flops["vocabulary"]
    yield Piece("whole forward pass, no loss", states, (params, tokens), flops=trunk)
    yield Piece(
        "whole forward + backward, no loss",
        with_gradient(states, 1),
        (ct, params, tokens),
        flops=3 * trunk,
    )
    yield Piece(
        "whole gradient", jax.grad(whole), (params, tokens, weights), flops=3 * sum(flops.values())
    )
    # Bare arrays die before the optimiser's state is made.
    del x, ct
    for name in optimizers:
        tx = make_optimizer(workload.optimizer(name))
        state = jax.jit(tx.init)(params)
        gradient = jax.tree.map(lambda p: 1e-3 * p, params)

        def update(g, s, p, tx=tx):
            updates, s = tx.update(g, s, p)
            return optax.apply_updates(p, updates), s

        yield Piece(
            f"optimiser alone, {name}",
            update,
            (gradient, state, params),
            float(name == optimizers[0]),
        )


def time_piece(piece: Piece, seconds: float) -> timing.Timing:
    """Compiles a piece alone and times it on its own arguments."""
    compiled = jax.jit(piece.call).lower(*piece.arguments).compile()
    return timing.time_calls(
        lambda i: compiled(*piece.arguments), jax.block_until_ready, seconds, groups=3
    )


def run(
    name: str,
    c: ModelConfig,
    batch: workload.Batch,
    chunk: int,
    chunks: list[int],
    optimizers: list[str],
    seconds: float,
    budget: timing.Budget,
    matmul_size: int,
    trace: str = "",
    hlo_file: str = "",
    only: str = "",
) -> None:
    """Times whole steps, then every piece whose name matches `only`; prints and emits them.

    Records: `pieces` (one each as it comes: ms is a median, `floor_ms` its products' time at the
    measured matmul rate, `share` floor / ms, `per_step` how often a step runs it) and `breakdown`
    (operations of the first optimiser's step, and its profile where `trace` names a folder).
    """
    c = dataclasses.replace(c, remat=c.remat or batch.remat)
    matmul = jax_bench.matmul_tflops(matmul_size)
    device = jax.devices()[0].device_kind
    print(
        f"{name}, batch {batch.windows} ({batch.windows * c.window:,} tokens), {device}, "
        f"matmul {matmul:.1f} TFLOP/s\n{'piece':60s} {'ms':>9s} {'floor ms':>9s} {'share':>6s}",
        flush=True,
    )

    def note(label, ms, flops, times=0.0):
        floor = flops / matmul / 1e9
        share = f"{100 * floor / ms:5.1f}%" if flops else ""
        print(f"{label:60s} {ms:9.3f} {floor:9.3f} {share:>6s}", flush=True)
        rows.emit(
            "pieces",
            {
                "model": name,
                "batch": batch.windows,
                "remat": c.remat,
                "device": device,
                "piece": label,
                "ms": ms,
                "floor_ms": floor,
                "per_step": times,
                "share": floor / ms if flops else None,
                "peak_tflops_measured": matmul,
            },
        )

    for optimizer in optimizers:
        compiled = jax_bench.compile_step(c, optimizer, batch, chunk)
        took = timing.time_calls(compiled, jax.block_until_ready, seconds, groups=3)
        note(
            f"whole step, {optimizer}",
            1e3 * took.median,
            speed.flops_per_token(c) * batch.windows * c.window,
        )
        if optimizer == optimizers[0]:
            rows.emit(
                "breakdown",
                {
                    "model": name,
                    "batch": batch.windows,
                    "remat": c.remat,
                    "device": device,
                    "optimizer": optimizer,
                    "planned_memory_gib": jax_bench.planned_memory_gib(compiled.step),
                    **look_inside(compiled, trace, hlo_file),
                },
            )
        del compiled
        jax_bench.release()
    total, wanted = 0.0, re.compile(only)
    for piece in pieces(c, batch.windows, chunk, chunks, optimizers):
        if not wanted.search(piece.name):
            continue
        if budget.left() < 0:
            print(f"time is up before: {piece.name}")
            return
        try:
            took = time_piece(piece, seconds)
        except Exception as error:
            if not rows.out_of_memory(error):
                raise
            print(f"{piece.name:60s} out of memory")
            continue
        total += piece.times * 1e3 * took.median
        note(piece.name, 1e3 * took.median, piece.flops, piece.times)
    if not only:
        print(f"{'sum of the pieces of one step':60s} {total:9.3f}")


def look_inside(compiled: jax_bench.Compiled, trace: str, hlo_file: str) -> dict:
    """Prints the step's operations, saves its HLO text, profiles three steps; as asked for."""
    text = compiled.step.as_text()
    if hlo_file:
        write(hlo_file, text)
    found = {"hlo": hlo.summary(text)}
    hlo.print_summary(found["hlo"])
    if trace:
        with jax.profiler.trace(trace):
            for i in range(3):
                last = compiled(i)
            jax.block_until_ready(last)
        found["trace"] = hlo.trace_summary(trace)
        if found["trace"]:
            hlo.print_trace(found["trace"])
    return found
