"""Real steps of `configs/cr_1b.py` on one device; `python -m benchmarks.scaling --model 1b`."""

import argparse
import dataclasses
import time

import jax
import numpy as np

from benchmarks import jax_bench, memory_plan, workload
from cr_jax import models
from cr_jax.parallel import plan as parallel
from cr_jax.training import speed
from cr_jax.training.losses import CompressorLoss
from cr_jax.training.step import init_state, make_train_step


def run(a: argparse.Namespace) -> dict:
    """tokens/s, MFU, memory and losses; `a` as `benchmarks.scaling` parses it."""
    e = memory_plan.experiment("1b", a.quick)
    model = workload.changed(e.model, a.set)
    micro = a.micro or e.train.batch // e.train.accumulate
    train = dataclasses.replace(e.train, accumulate=e.train.batch // micro)
    plan = parallel.make_plan("jit", 1, train.batch, 1, jax.devices()[:1])
    loss = CompressorLoss(model, train, plan.devices_seen)
    state = plan.init(
        lambda key: init_state(loss, e.optimizer, key), parallel.expert_keys(0, ("code",))
    )
    batches = [plan.put({"tokens": x[None]}) for x in workload.draw_tokens(model, train.batch, 2)]
    began = time.perf_counter()
    program = plan.compile_step(
        lambda axis: make_train_step(loss, e.optimizer, train.accumulate, axis),
        "vmap",
        state,
        batches[0],
    )
    compiled = time.perf_counter() - began
    losses, seconds = [], []
    for i in range(2 + a.steps):
        began = time.perf_counter()
        state, sums = program(state, batches[i % 2], np.float32(0.5))
        losses.append(float(sums["nll"][0]) / float(sums["tokens"][0]))
        seconds.append(time.perf_counter() - began)
    step = float(np.median(seconds[2:]))
    rate, flops = train.batch * model.window / step, speed.flops_per_token(model)
    peak, matmul = speed.peak_flops(), jax_bench.matmul_tflops(512 if a.quick else 8192)
    return {
        "parameters": models.count_parameters(model),
        "devices": 1,
        "kind": jax.devices()[0].device_kind,
        "tokens_per_s": rate,
        "step_seconds": step,
        "step_seconds_range": [min(seconds[2:]), max(seconds[2:])],
        "steps_timed": a.steps,
        "tflops": rate * flops / 1e12,
        "mfu_datasheet": peak and rate * flops / peak,
        "mfu_measured_matmul": rate * flops / 1e12 / matmul,
        "matmul_tflops": matmul,
        "peak_memory_gib": jax_bench.peak_memory_gib(),
        "planned_gib": {k: v / 2**30 for k, v in program.memory.items()},
        "batch": train.batch,
        "accumulate": train.accumulate,
        "remat": model.remat,
        "scan": model.scan,
        "momentum_dtype": e.optimizer.momentum_dtype,
        "compile_seconds": compiled,
        "losses": losses,
        "finite": bool(np.isfinite(losses).all()),
    }
