"""What more devices of one host give, and a billion parameters on one device.

    python -m benchmarks.scaling --quick                                   # pretended CPU devices
    python -m benchmarks.scaling --out results/scaling.json                # all GPUs of the host
    python -m benchmarks.scaling --model 1b --out results/scaling.json     # one GPU

The first two time whole training steps on 1 and N devices, synthetic tokens: the 87 M model
data-parallel (the same global batch; one device also at the N-th part of it, and the faster of
the two is what efficiency is measured against), and a bank of experts side by side
(the same experts on 1 and N devices).  The first steps' losses on N devices must be those of one.
A billion parameters: see `benchmarks.one_billion`.  `--out` is merged: each call replaces its
own part.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import shlex
import sys

from benchmarks import memory_plan

TOLERANCE = {"cpu": 1e-4, "gpu": 0.02}  # nats/token; bfloat16 sums in another order
COLUMNS = ("devices", "kind", "mode", "parallel", "batch", "tokens_per_s", "efficiency")
STEPS = 4  # whose losses are compared


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; `--quick` replaces sizes and times by tiny ones."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--quick", action="store_true", help="tiny sizes on pretended CPU devices")
    p.add_argument("--model", default="87m", choices=("87m", "1b"))
    p.add_argument("--devices", type=int, default=0, help="N (default: all of the host)")
    p.add_argument("--work", default="data,pmap,fsdp,expert", help="which rows, in this order")
    p.add_argument("--batch", type=int, default=256, help="windows per step over all devices")
    p.add_argument("--experts", type=int, default=16, help="of the bank")
    p.add_argument("--expert-batch", type=int, default=32, help="windows per expert and step")
    p.add_argument("--chunk", type=int, default=32768, help="tokens of a device with logits")
    p.add_argument("--seconds", type=float, default=6.0, help="timed per row")
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="1b: change a field of ModelConfig, for example scan=False",
    )
    p.add_argument("--micro", type=int, default=0, help="1b: windows per micro-batch")
    p.add_argument("--steps", type=int, default=8, help="1b: steps timed")
    p.add_argument("--out", default="", metavar="FILE")
    a = p.parse_args(argv)
    if a.quick:
        a.devices = a.devices or 2
        a.batch, a.experts, a.expert_batch, a.chunk, a.seconds, a.steps = 16, 4, 4, 256, 0.2, 2
    return a


def main(argv: list[str] | None = None) -> int:
    """Prints rows and checks, writes --out; 1 when the losses differ, 2 for bad flags."""
    a = parse_arguments(argv)
    if a.quick:
        memory_plan.pretend_devices(a.devices)
        os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # compiles in half the time
    import jax

    from benchmarks import one_billion
    from cr_jax.errors import UserError

    count = a.devices or len(jax.devices())
    try:
        if count > len(jax.devices()):
            raise UserError(f"--devices={count}: there are {len(jax.devices())}")
        if a.model == "1b":
            part = {"params_1b": one_billion.run(a)}
            print(json.dumps(part["params_1b"], indent=1))
            good = True
        else:
            rows, checks = scale(a, count)
            part = {"rows": rows, "checks": checks}
            good = all(c["same"] for c in checks)
        if a.out:
            _merge(a.out, a.model, part, shlex.join(argv if argv is not None else sys.argv[1:]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if good else 1


@dataclasses.dataclass(frozen=True)
class Work:
    """One workload: a model, how many experts, windows per expert and step."""

    mode: str  # "data": rows over devices; "fsdp": parameters too; "expert": experts
    parallel: str  # "jit" or "pmap"
    model: object
    experts: int
    batch: int

    def plan(self, devices: list):
        from cr_jax.parallel import plan as parallel

        n = len(devices)
        return parallel.make_plan(
            self.parallel,
            self.experts,
            self.batch,
            n if self.mode == "expert" else 1,
            devices,
            n if self.mode == "fsdp" else 1,
        )


def works(a: argparse.Namespace) -> list[Work]:
    """The workloads that `--work` names.  Raises `UserError` for a name that is none."""
    from benchmarks import workload
    from cr_jax.config import ModelConfig
    from cr_jax.errors import UserError

    large = workload.size("tiny" if a.quick else "87m")
    # The shape of configs/bank.py.
    small = (
        large
        if a.quick
        else ModelConfig(
            vocab_size=32768,
            d_model=256,
            d_latent=384,
            heads=4,
            d_ff=768,
            encoder_blocks=3,
            decoder_blocks=3,
            bottleneck="fold",
        )
    )
    known = {
        "data": Work("data", "jit", large, 1, a.batch),
        "pmap": Work("data", "pmap", large, 1, a.batch),
        "fsdp": Work("fsdp", "jit", large, 1, a.batch),
        "expert": Work("expert", "jit", small, a.experts, a.expert_batch),
    }
    for name in a.work.split(","):
        if name not in known:
            raise UserError(f"--work: there is no '{name}'; there are {', '.join(known)}")
    return [known[name] for name in a.work.split(",")]


def scale(a: argparse.Namespace, count: int) -> tuple[list[dict], list[dict]]:
    """Rows of 1 and `count` devices, and whether the losses of the two agree."""
    import jax

    from benchmarks.jax_bench import release

    rows, checks, alone = [], [], {}
    print("  ".join(f"{c:>14}" for c in COLUMNS))
    one_of = lambda work: (dataclasses.replace(work, parallel="jit", mode=_base(work)), 1)
    part_of = lambda work: (dataclasses.replace(one_of(work)[0], batch=work.batch // count), 1)
    wanted = works(a)
    needed = list(
        dict.fromkeys(
            key
            for work in wanted
            for key in (
                one_of(work),
                *((part_of(work),) if work.mode != "expert" and count > 1 else ()),
                *(((work, count),) if count > 1 else ()),
            )
        )
    )
    # Compilation is most of the wall time and runs on host cores: all programs side by side.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        ready = dict(
            zip(
                needed,
                pool.map(lambda key: prepare(key[0], jax.devices()[: key[1]], a.chunk), needed),
                strict=True,
            )
        )

    def measure(work, devices):
        row, losses = time_steps(ready.pop((work, devices)), a.seconds)
        release()
        return row, losses

    def tell(row):
        rows.append(row)
        print("  ".join(f"{_show(row[c]):>14}" for c in COLUMNS), flush=True)

    for work in wanted:
        key = one_of(work)
        if key not in alone:
            row, losses = measure(*key)
            tell(row | {"efficiency": 1.0})
            best = row["tokens_per_s"]
            if part_of(work) in ready:
                part, _ = measure(*part_of(work))
                best = max(best, part["tokens_per_s"])
                tell(part | {"efficiency": 1.0})
            alone[key] = best, losses
        if count == 1:
            continue
        best, losses = alone[key]
        row, found = measure(work, count)
        tell(row | {"efficiency": row["tokens_per_s"] / best / count})
        apart = max(abs(x - y) for a, b in zip(losses, found) for x, y in zip(a, b))
        limit = TOLERANCE["cpu" if jax.default_backend() == "cpu" else "gpu"]
        checks.append(
            {
                "mode": work.mode,
                "parallel": work.parallel,
                "steps": STEPS,
                "losses_one_device": losses,
                "losses": found,
                "largest_difference": apart,
                "tolerance": limit,
                "same": apart <= limit,
            }
        )
        print(
            f"  losses of {STEPS} steps differ by at most {apart:.1e} nats/token "
            f"({'same' if apart <= limit else 'NOT THE SAME'}, limit {limit:g})",
            flush=True,
        )
    return rows, checks


def _base(work: Work) -> str:
    """The mode that stands for one device: data-parallel and FSDP are the same there."""
    return "expert" if work.mode == "expert" else "data"


@dataclasses.dataclass
class Ready:
    """A workload compiled for its devices, not yet started."""

    work: Work
    devices: list
    start: object  # () -> the fresh state on the devices
    program: object
    batches: list


def prepare(work: Work, devices: list, chunk: int) -> Ready:
    """Compiles a workload's step; its state is made only when it is timed."""
    import jax
    import numpy as np

    from benchmarks import workload
    from cr_jax.config import TrainConfig
    from cr_jax.parallel import plan as parallel
    from cr_jax.training.losses import CompressorLoss
    from cr_jax.training.step import init_state, make_train_step

    plan, optimizer = work.plan(devices), workload.optimizer("muon")
    train = TrainConfig(batch=work.batch, steps=1, loss_chunk=chunk)
    loss = CompressorLoss(work.model, train, plan.devices_seen)
    start = lambda: plan.init(
        lambda key: init_state(loss, optimizer, key),
        parallel.expert_keys(0, [f"e{i}" for i in range(work.experts)]),
    )
    drawn = [
        workload.draw_tokens(work.model, work.batch, STEPS, seed) for seed in range(work.experts)
    ]
    batches = [plan.put({"tokens": np.stack([d[i] for d in drawn])}) for i in range(STEPS)]
    state = start()
    program = plan.compile_step(
        lambda axis: make_train_step(loss, optimizer, axis_name=axis), "vmap", state, batches[0]
    )
    jax.block_until_ready(state)
    return Ready(work, devices, start, program, batches)


def time_steps(ready: Ready, seconds: float):
    """(a row without efficiency, losses [steps][E] of the first steps) of one workload."""
    import jax
    import numpy as np

    from benchmarks import timing
    from cr_jax import models
    from cr_jax.training import speed

    work, program, held = ready.work, ready.program, [ready.start()]

    def call(i):
        held[0], sums = program(held[0], ready.batches[i % STEPS], np.float32(0.5))
        return sums

    losses = []
    for i in range(STEPS):
        sums = jax.device_get(call(i))
        losses.append([float(n / t) for n, t in zip(sums["nll"], sums["tokens"])])
    took = timing.time_calls(call, jax.block_until_ready, seconds)
    rate = work.experts * work.batch * work.model.window / took.median
    peak, count = speed.peak_flops(), len(ready.devices)
    memory = program.memory and {k: v / 2**30 for k, v in program.memory.items()}
    return {
        "devices": count,
        "kind": ready.devices[0].device_kind,
        "mode": work.mode,
        "parallel": work.parallel,
        "batch": work.batch,
        "experts": work.experts,
        "parameters": models.count_parameters(work.model),
        "tokens_per_s": rate,
        "step_ms": 1e3 * took.median,
        "step_ms_range": [1e3 * took.fastest, 1e3 * took.slowest],
        "steps_timed": took.calls,
        "planned_gib_per_device": memory,
        "mfu_datasheet": peak and rate * speed.flops_per_token(work.model) / peak / count,
    }, losses


def _merge(path: str, model: str, part: dict, flags: str) -> None:
    """Writes `part` into the file beside what other calls left there."""
    from benchmarks import results
    from cr_jax.errors import UserError

    file = pathlib.Path(path)
    try:
        old = json.loads(file.read_text()) if file.exists() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; choose another --out") from error
    runs = {
        **old.get("runs", {}),
        model: {
            "command": f"python -m benchmarks.scaling {flags}",
            "commit": results.commit(),
            "versions": results.versions(),
        },
    }
    results.write(path, json.dumps({**old, **part, "runs": runs}, indent=1) + "\n")


def _show(value) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)[:14]


if __name__ == "__main__":
    sys.exit(main())
