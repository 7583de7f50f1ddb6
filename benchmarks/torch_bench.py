"""The PyTorch side: compiled peer, fused AdamW, timed; the fastest variant is searched for."""

import dataclasses
import functools
import gc
import time

import torch
from torch import nn

from benchmarks import rows, search, timing, workload
from benchmarks.torch_peer import Peer, Variant, make_loss
from cr_jax.config import ModelConfig


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _wait(result) -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_name() -> str:
    """The accelerator's name, or `cpu`."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def matmul_tflops(n: int = 8192, seconds: float = 1.0) -> float:
    """TFLOP/s of an n x n x n bf16 product on random data (float32 on a CPU)."""
    device = _device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    sets = [torch.randn(n, n, device=device).to(dtype) for _ in range(4)]
    took = timing.time_calls(lambda i: sets[i % 4] @ sets[(i + 1) % 4], _wait, seconds)
    return 2.0 * n**3 / took.median / 1e12


def compiler(mode: str):
    """`--torch-compile` -> a function that compiles; a CPU takes `aot_eager`: no C++ build."""
    if mode == "off":
        return lambda f: f
    if _device().type == "cpu":
        return functools.partial(torch.compile, dynamic=False, backend="aot_eager")
    return functools.partial(torch.compile, dynamic=False, mode=mode)


def train_row(
    name: str,
    model: ModelConfig,
    batch: workload.Batch,
    variant: Variant,
    chunk: int,
    seconds: float,
    matmul: float,
    mode: str,
) -> dict:
    """Times one training step of the peer; a row of the results.  Non-finite loss raises."""
    device = _device()
    half = model.dtype == "bfloat16" or (model.dtype == "auto" and device.type == "cuda")
    dtype = torch.bfloat16 if half else torch.float32
    torch.manual_seed(0)
    settings = workload.optimizer("adamw")
    net = Peer(dataclasses.replace(model, remat=model.remat or batch.remat), dtype, variant)
    net = net.to(device)
    optimizer = torch.optim.AdamW(
        net.parameters(),
        lr=settings.learning_rate,
        betas=(settings.b1, settings.b2),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    loss_of = make_loss(net, variant, chunk, compiler(mode))
    drawn = torch.from_numpy(workload.draw_tokens(model, batch.windows, 4)).long().to(device)

    def step(i):
        loss = loss_of(drawn[i % 4])
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    _wait(step(0))
    compile_seconds = time.perf_counter() - start
    last = []

    def call(i):
        last[:] = [step(i)]

    took = timing.time_calls(call, _wait, seconds)
    nll = last[0].item()
    if nll != nll or nll in (float("inf"), -float("inf")):
        raise FloatingPointError(f"{name}: the loss is {nll} after {took.calls} steps")
    cuda = device.type == "cuda"
    return rows.row(
        name,
        model,
        "torch",
        "adamw",
        batch,
        took,
        matmul,
        params=sum(p.numel() for p in net.parameters()),
        device=device_name(),
        peak_memory_gib=torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
        peak_memory_from="max_memory_allocated" if cuda else None,
        planned_memory_gib=None,
        compile_seconds=compile_seconds,
        nll=nll,
        loss_chunk=chunk,
        dtype=str(dtype).removeprefix("torch."),
        variant=f"{variant}/{mode}",
    )


def release() -> None:
    """Frees tensors and programs of the last trial."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def neighbours(best: Variant) -> list[Variant]:
    """Variants that differ from `best` in one choice: the search's second stage."""
    if _device().type == "cpu":
        return [dataclasses.replace(best, loss="chunked")]
    return [
        dataclasses.replace(best, loss="chunked"),
        dataclasses.replace(best, attention="cudnn"),
        dataclasses.replace(best, projection="joined"),
    ]


def run(
    name: str,
    model: ModelConfig,
    batches: list,
    variant: Variant | None,
    chunk: int,
    trial_seconds: float,
    budget: timing.Budget,
    matmul_size: int,
    mode: str,
) -> None:
    """The first batch with each variant in turn, the others with the fastest.

    Every change that helps is kept before the next one is tried.  A given `variant` skips the
    search.
    """
    matmul = matmul_tflops(matmul_size)
    rows.emit("note", {"text": f"torch {name}: matmul {matmul:.1f} TFLOP/s"})

    def trial(batch, candidate) -> float:
        """Tokens/s, 0 when it does not run."""
        what = {
            "model": name,
            "framework": "torch",
            "optimizer": "adamw",
            "batch": batch.windows,
            "variant": str(candidate),
        }
        if not budget.fits():
            rows.emit("skipped", {**what, "why": "time"})
            return 0.0
        start, rate = time.perf_counter(), 0.0
        try:
            done = train_row(name, model, batch, candidate, chunk, trial_seconds, matmul, mode)
            rows.emit("row", done)
            rate = done["tokens_per_s"]
        except Exception as error:
            # A variant that this PyTorch cannot compile or has no kernel for is not the peer's
            # best; it is named in the results and the search goes on.
            why = "memory" if rows.out_of_memory(error) else f"{type(error).__name__}: {error}"
            rows.emit("skipped", {**what, "why": why[:300]})
        release()
        budget.spent(time.perf_counter() - start)
        return rate

    searched = variant is None
    best = variant or Variant(attention="flash" if _device().type == "cuda" else "math")
    fastest = trial(batches[0], best)
    if searched:
        for field in ("loss", "attention", "projection"):
            for candidate in neighbours(best):
                if getattr(candidate, field) == getattr(best, field):
                    continue
                rate = trial(batches[0], candidate)
                if rate > fastest:
                    best, fastest = candidate, rate
    sizes = search.BatchSearch()
    sizes.add(batches[0], fastest)
    for batch in batches[1:]:
        if sizes.worth(batch):
            sizes.add(batch, trial(batch, best))
    rows.emit("variant", {"best": str(best), "found": fastest > 0})
