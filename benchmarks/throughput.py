"""Tokens per second, share of the chip and peak memory of whole training steps, beside PyTorch.

    python benchmarks/throughput.py --quick                        # any CPU, under a minute
    python benchmarks/throughput.py --seconds 1500 --out results/throughput.json
    python benchmarks/throughput.py --breakdown --models 87m --batches 128 --trace traces/87m

This process only reads arguments and merges rows.  Every (framework, size) runs in a child of its
own, one after another, so that neither shares memory with the other; rows are written to `--out`
as they come, so a killed run keeps what it measured.  `cr_jax.training.speed.forward_flops` is
the FLOP count that TFLOP/s and MFU rest on; the rules are in benchmarks/README.md.
"""

import argparse
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import timing, workload  # noqa: E402
from benchmarks.results import Results  # noqa: E402
from cr_jax.errors import UserError  # noqa: E402


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; `--quick` replaces sizes and times by tiny ones."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--quick", action="store_true", help="a tiny size of everything; for a CPU")
    p.add_argument("--models", default="87m,10m,350m,1b", help="sizes, in this order")
    p.add_argument("--framework", default="both", choices=("both", "jax", "torch"))
    p.add_argument("--optimizers", default="muon,adamw", help="of the JAX side")
    p.add_argument(
        "--kernels",
        default="",
        help="of the JAX side: auto (unless --set says "
        "another), xla, triton; auto,xla times the plain ones beside the usual ones",
    )
    p.add_argument(
        "--batches",
        default="",
        help="windows per step, such as 128,64r (r: "
        "rematerialised blocks); empty: each size's own list",
    )
    p.add_argument("--chunk", type=int, default=32768, help="tokens whose logits stand in memory")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of ModelConfig, for example remat=True",
    )
    p.add_argument(
        "--variant",
        default="",
        help="PyTorch: loss/attention/projection instead of "
        "searching, for example plain/flash/split",
    )
    p.add_argument(
        "--torch-compile",
        default="default",
        choices=("default", "max-autotune-no-cudagraphs", "off"),
    )
    p.add_argument("--seconds", type=float, default=1500.0, help="of the whole run")
    p.add_argument("--trial-seconds", type=float, default=4.0, help="timed per row")
    p.add_argument("--breakdown", action="store_true", help="time the pieces of a step instead")
    p.add_argument("--chunks", default="4096,8192,16384,32768,65536", help="for --breakdown")
    p.add_argument("--pieces", default="", metavar="PATTERN", help="with --breakdown: only these")
    p.add_argument("--trace", default="", metavar="DIR", help="with --breakdown: a profile")
    p.add_argument("--hlo", default="", metavar="FILE", help="with --breakdown: the step's HLO")
    p.add_argument("--out", default="", metavar="FILE", help="results as JSON")
    p.add_argument("--child", default="", help=argparse.SUPPRESS)
    a = p.parse_args(arguments)
    if a.quick:
        a.models, a.seconds, a.trial_seconds = "tiny", min(a.seconds, 120.0), 0.2
        a.chunk, a.chunks = 128, "128"
        a.pieces = a.pieces or "embedding|attention layer|loss.*gradient"
    try:
        re.compile(a.pieces)
        a.chunks = [int(n) for n in a.chunks.split(",")]
    except (re.error, ValueError) as error:
        raise UserError(f"--pieces or --chunks: {error}") from error
    a.models, a.optimizers = a.models.split(","), a.optimizers.split(",")
    a.kernels = a.kernels.split(",") if a.kernels else []
    a.matmul_size = 512 if a.quick else 8192
    if not (0 < a.seconds < math.inf and a.trial_seconds > 0):
        raise UserError("--seconds and --trial-seconds must be above 0")
    if a.chunk < 1 or min(a.chunks) < 1:
        raise UserError("--chunk and --chunks must be at least 1")
    for name in a.optimizers:
        if name not in ("muon", "adamw"):
            raise UserError(f"--optimizers: unknown '{name}'; there are muon, adamw")
    for name in a.kernels:
        if name not in ("auto", "xla", "triton"):
            raise UserError(f"--kernels: unknown '{name}'; there are auto, xla, triton")
    for name in a.models:
        workload.size(name, tuple(a.set))
        batches_of(a, name)
    return a


def batches_of(a: argparse.Namespace, model: str) -> list[workload.Batch]:
    """The batches to try at a size."""
    listed = a.batches.split(",") if a.batches else workload.BATCHES[model]
    return [workload.parse_batch(text) for text in listed]


def child(a: argparse.Namespace) -> None:
    """Runs one (framework, size), or the breakdown of one size, in this process."""
    framework, name = a.child.split(":")
    model, batches = workload.size(name, tuple(a.set)), batches_of(a, name)
    budget = timing.Budget(a.seconds)
    if framework == "torch":
        from benchmarks import torch_bench
        from benchmarks.torch_peer import Variant

        variant = Variant.parse(a.variant) if a.variant else None
        torch_bench.run(
            name,
            model,
            batches,
            variant,
            a.chunk,
            a.trial_seconds,
            budget,
            a.matmul_size,
            a.torch_compile,
        )
    elif framework == "jax":
        from benchmarks import jax_bench

        jax_bench.run(
            name,
            model,
            batches,
            a.optimizers,
            a.kernels or [model.kernels],
            a.chunk,
            a.trial_seconds,
            budget,
            a.matmul_size,
        )
    else:
        from benchmarks import breakdown

        optimizers = a.optimizers[-1:] if a.quick else a.optimizers
        breakdown.run(
            name,
            model,
            batches[0],
            a.chunk,
            a.chunks,
            optimizers,
            a.trial_seconds / 4,
            budget,
            a.matmul_size,
            a.trace,
            a.hlo,
            a.pieces,
        )


def run_child(name: str, arguments: list[str], seconds: float, add) -> int | None:
    """One child with a time limit; its records go to `add(kind, record)`.  None: stopped."""
    environment = dict(os.environ)
    # Nothing else runs on the device meanwhile; the default three quarters is for sharing.
    environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
    environment.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    if "--quick" in arguments:
        # Compilation is nearly all of a quick run, whose figures mean nothing.
        environment.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    # The child stops starting trials a little before it would be stopped.
    command = [
        sys.executable,
        os.path.abspath(__file__),
        *arguments,
        "--child",
        name,
        "--seconds",
        str(max(1.0, seconds - 10)),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    stopped = threading.Event()

    def stop():
        stopped.set()
        process.kill()

    timer = threading.Timer(max(1.0, seconds), stop)
    timer.start()
    try:
        for line in process.stdout:
            if not line.startswith('{"kind"'):
                print(line, end="", flush=True)
                continue
            record = json.loads(line)
            add(record.pop("kind"), record)
        code = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
    return None if stopped.is_set() else code


def show(kind: str, record: dict) -> None:
    """Prints one record as a line."""
    if kind == "note":
        print(record["text"], flush=True)
    elif kind == "skipped":
        print("skipped " + ", ".join(str(v) for v in record.values()), flush=True)
    elif kind == "row":
        memory = record["peak_memory_gib"]
        memory = f"{memory:6.1f} GiB" if memory is not None else "     - GiB"
        batch = f"{record['batch']}{'r' if record['remat'] else ''}"
        print(
            f"{record['model']:5s} {record['framework']:5s} {record['optimizer']:5s} "
            f"batch {batch:5s} {record['tokens_per_s']:12,.0f} tok/s {record['step_ms']:9.2f} ms "
            f"{record['tflops']:7.2f} TFLOP/s  MFU {100 * record['mfu']:5.1f}%  {memory}  "
            f"compile {record['compile_seconds']:5.1f} s  nll {record['nll']:.3f}  "
            f"{record['variant']}",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        a = parse_arguments(given)
        if a.child:
            child(a)
            return 0
        return parent(a, given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parent(a: argparse.Namespace, given: list[str]) -> int:
    """Runs the children within the time and prints the best rows."""
    results = Results(a.out, "python benchmarks/throughput.py " + " ".join(given))
    frameworks = ("jax", "torch") if a.framework == "both" else (a.framework,)
    if a.breakdown:
        frameworks = ("breakdown",)
    elif a.quick:
        frameworks = (*frameworks, "breakdown")
    jobs = [(f, m) for m in a.models for f in frameworks]
    budget, failed, variant = timing.Budget(a.seconds), [], a.variant

    def add(kind, record):
        nonlocal variant
        if kind == "variant":
            # What won at the first size is kept for the others: a search costs compilations.
            variant = record["best"] if record["found"] else variant
            return
        results.add(kind, record)
        show(kind, record)

    for i, (framework, name) in enumerate(jobs):
        if budget.left() < 5:
            add("skipped", {"model": name, "framework": framework, "why": "time"})
            continue
        # What a child leaves unused passes on to the ones after it.
        # The first size gets twice the time: its variants are searched.
        weights = [2 if m == a.models[0] else 1 for _, m in jobs[i:]]
        share = budget.left() * weights[0] / sum(weights)
        extra = ["--variant", variant] if variant and framework == "torch" else []
        start = time.monotonic()
        code = run_child(f"{framework}:{name}", [*given, *extra], share, add)
        took = time.monotonic() - start
        if code is None:
            add(
                "skipped",
                {"model": name, "framework": framework, "why": f"stopped after {took:.0f} s"},
            )
        elif code != 0:
            failed.append(f"{framework}:{name}")
            add("skipped", {"model": name, "framework": framework, "why": f"exit status {code}"})
    if results.data["rows"]:
        print(
            "\nbest of each; MFU against the fastest measured product, "
            f"{results.data['rows'][0]['peak_tflops_measured']:.1f} TFLOP/s"
        )
        for row in results.data["rows"]:
            show("row", row)
        for model, ratio in results.data["torch_ratios"].items():
            print(
                f"{model}: JAX / PyTorch tokens/s, PyTorch with AdamW: "
                + ", ".join(f"{o} {r:.2f}x" for o, r in ratio.items())
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
