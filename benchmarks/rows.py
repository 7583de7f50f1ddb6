"""One row of the results, and how rows travel from a child process to its parent."""

import json

from benchmarks import workload
from benchmarks.timing import Timing
from cr_jax.config import ModelConfig
from cr_jax.training import speed


def row(
    name: str,
    model: ModelConfig,
    framework: str,
    optimizer: str,
    batch: workload.Batch,
    took: Timing,
    matmul: float,
    *,
    device: str,
    **more,
) -> dict:
    """A results row from a `Timing` of steps; `mfu` is against `matmul` TFLOP/s."""
    tokens = batch.windows * model.window
    rate = speed.flops_per_token(model) * tokens / took.median / 1e12
    sheet = (speed.peak_flops(device) or 0.0) / 1e12 or None
    return {
        "model": name,
        "framework": framework,
        "optimizer": optimizer,
        "batch": batch.windows,
        "remat": batch.remat or model.remat,
        "tokens_per_s": tokens / took.median,
        "tokens_per_s_range": [tokens / took.slowest, tokens / took.fastest],
        "step_ms": 1e3 * took.median,
        "steps_timed": took.calls,
        "tflops": rate,
        "flops_per_token": speed.flops_per_token(model),
        "mfu": rate / matmul,
        "peak_tflops_measured": matmul,
        "process_matmul_tflops": matmul,
        "mfu_datasheet": rate / sheet if sheet else None,
        "peak_tflops_datasheet": sheet,
        "device": device,
        **more,
    }


def out_of_memory(error: Exception) -> bool:
    """Whether the device ran out of memory, by the messages of XLA and PyTorch."""
    text = str(error).lower()
    return any(s in text for s in ("resource_exhausted", "out of memory", "outofmemory"))


def emit(kind: str, record: dict) -> None:
    """One JSON line on stdout, which the parent process merges as it comes."""
    print(json.dumps({"kind": kind, **record}), flush=True)
