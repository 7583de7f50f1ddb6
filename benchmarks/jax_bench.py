"""The JAX side: the project's own training step, compiled, donated and timed."""

import dataclasses
import functools
import gc
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import rows, search, timing, workload
from cr_jax import models
from cr_jax.config import ModelConfig, TrainConfig
from cr_jax.models.layers import attention_kernel, compute_dtype, row_kernels
from cr_jax.training.losses import CompressorLoss
from cr_jax.training.step import init_state, make_train_step


def matmul_tflops(n: int = 8192, seconds: float = 1.0) -> float:
    """TFLOP/s of an n x n x n bf16 product on random data (float32 on a CPU).

    Zeros would run faster: they move fewer bits through the multipliers.
    """
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    keys = jax.random.split(jax.random.key(0), 4)
    sets = [jax.random.normal(k, (n, n), dtype) for k in keys]
    product = jax.jit(lambda a, b: a @ b)
    took = timing.time_calls(
        lambda i: product(sets[i % 4], sets[(i + 1) % 4]), jax.block_until_ready, seconds
    )
    return 2.0 * n**3 / took.median / 1e12


@dataclasses.dataclass
class Compiled:
    """A compiled step with its state and batches on the device."""

    step: Any
    state: Any
    batches: list
    seconds: float  # tracing and compiling the step; the state's own program apart

    def __call__(self, i: int) -> dict:
        """Runs the step on batch i, in rotation; the step's sums.  The old state is donated."""
        batch = self.batches[i % len(self.batches)]
        self.state, sums = self.step(self.state, batch, jnp.float32(0.5))
        return sums


def compile_step(
    model: ModelConfig, optimizer: str, batch: workload.Batch, chunk: int, sets: int = 4
) -> Compiled:
    """The step exactly as training runs it: `make_train_step`, jitted, its state donated."""
    model = dataclasses.replace(model, remat=model.remat or batch.remat)
    settings = workload.optimizer(optimizer)
    loss = CompressorLoss(model, TrainConfig(batch=batch.windows, steps=1, loss_chunk=chunk))
    state = jax.jit(functools.partial(init_state, loss, settings))(jax.random.key(0))
    drawn = workload.draw_tokens(model, batch.windows, sets)
    batches = [{"tokens": jnp.asarray(tokens)} for tokens in drawn]
    step = jax.jit(make_train_step(loss, settings), donate_argnums=0)
    start = time.perf_counter()
    compiled = step.lower(state, batches[0], jnp.float32(0.5)).compile()
    return Compiled(compiled, state, batches, time.perf_counter() - start)


def peak_memory_gib() -> float | None:
    """Highest use since the process began; None where the backend does not say (CPU)."""
    stats = jax.local_devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 2**30 if stats else None


def planned_memory_gib(compiled) -> float | None:
    """What the compiler reserves for one call: arguments + outputs + temporaries - donated."""
    plan = compiled.memory_analysis()
    if plan is None:
        return None
    total = (
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        + plan.temp_size_in_bytes
        - plan.alias_size_in_bytes
    )
    return total / 2**30


def train_row(
    name: str,
    model: ModelConfig,
    optimizer: str,
    batch: workload.Batch,
    chunk: int,
    seconds: float,
    matmul: float,
) -> dict:
    """Times one training step; a row of the results.  Raises when the loss is not finite."""
    before = peak_memory_gib()
    compiled = compile_step(model, optimizer, batch, chunk)
    took = timing.time_calls(compiled, jax.block_until_ready, seconds)
    sums = compiled(0)
    nll = float(sums["nll"]) / float(sums["tokens"])
    if not np.isfinite(nll):
        raise FloatingPointError(f"{name}: the loss is {nll} after {took.calls} steps")
    peak, planned = peak_memory_gib(), planned_memory_gib(compiled.step)
    # The backend's peak never falls again: it is this row's only if this row raised it.
    own = peak is not None and (before is None or peak > before)
    return rows.row(
        name,
        model,
        "jax",
        optimizer,
        batch,
        took,
        matmul,
        params=models.count_parameters(model),
        device=jax.devices()[0].device_kind,
        peak_memory_gib=peak if own else planned,
        peak_memory_from="memory_stats" if own else "compiled plan",
        planned_memory_gib=planned,
        compile_seconds=compiled.seconds,
        nll=nll,
        loss_chunk=chunk,
        dtype=str(compute_dtype(model)),
        kernels=row_kernels(model),
        variant=f"attention {attention_kernel(model)}, kernels {row_kernels(model)}",
    )


def release() -> None:
    """Frees arrays and programs of the last trial."""
    gc.collect()
    jax.clear_caches()
    gc.collect()


def run(
    name: str,
    model: ModelConfig,
    batches: list,
    optimizers: list,
    forms: list,
    chunk: int,
    trial_seconds: float,
    budget: timing.Budget,
    matmul_size: int,
) -> None:
    """The last optimiser at the batches in turn, all others at its fastest batch.

    forms: of `config.model.kernels`; the first goes through the batches too.  Stops when the time
    is up; rows go out as they come.
    """
    matmul = matmul_tflops(matmul_size)
    rows.emit(
        "note",
        {
            "text": f"jax {name}: {models.count_parameters(model):,} parameters, "
            f"matmul {matmul:.1f} TFLOP/s"
        },
    )
    found = search.BatchSearch()

    def trial(batch, optimizer, form) -> float | None:
        """Tokens/s; 0 out of memory, None not tried."""
        what = {
            "model": name,
            "framework": "jax",
            "optimizer": optimizer,
            "kernels": form,
            "batch": batch.windows,
        }
        if not budget.fits():
            return rows.emit("skipped", {**what, "why": "time"})
        start, rate = time.perf_counter(), 0.0
        try:
            chosen = dataclasses.replace(model, kernels=form)
            done = train_row(name, chosen, optimizer, batch, chunk, trial_seconds, matmul)
            rows.emit("row", done)
            rate = done["tokens_per_s"]
        except Exception as error:
            if not rows.out_of_memory(error):
                raise
            rows.emit("skipped", {**what, "why": "memory"})
        release()
        budget.spent(time.perf_counter() - start)
        return rate

    for batch in batches:
        if found.worth(batch):
            rate = trial(batch, optimizers[-1], forms[0])
            if rate is not None:
                found.add(batch, rate)
    if found.best():
        for form in forms:
            for optimizer in optimizers[:-1] if form == forms[0] else optimizers:
                trial(found.best(), optimizer, form)
