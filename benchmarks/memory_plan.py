"""Memory of a training step on each device, from the compiled program; needs no accelerator.

    python -m benchmarks.memory_plan --out results/memory_plan.json

Compiles the whole step of `configs/cr_1b.py` over pretended CPU devices and reads off what the
compiler reserves for each.  The state is exact for any device.  Temporaries are the CPU
compiler's: it has no fused attention, so a block's scores [B, H, L, L] stand in memory, and it
widens bfloat16 to float32; a GPU should need less.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import runpy
import shlex
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
GIB = 1 << 30
CASES = (("1b", 1, 1), ("1b", 8, 8), ("7b", 8, 8))  # config variant, devices, of them fsdp
ROOM = 80e9 / GIB  # of an 80 GB device
COLUMNS = (
    "model",
    "parameters",
    "devices",
    "mesh_fsdp",
    "state_gib",
    "temporary_gib",
    "total_gib",
    "fits_80_gb",
)


def main(argv: list[str] | None = None) -> int:
    """Prints the table, writes --out; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="", help="write rows and provenance as JSON")
    parser.add_argument("--quick", action="store_true", help="tiny models: shows that it works")
    args = parser.parse_args(argv)
    pretend_devices(max(devices for _, devices, _ in CASES))
    from benchmarks import results

    print("  ".join(f"{c:>13}" for c in COLUMNS))
    rows = []
    for variant, devices, fsdp in CASES:
        row = plan_row(variant, experiment(variant, args.quick), devices, fsdp)
        rows.append(row)
        print("  ".join(f"{_show(row[c]):>13}" for c in COLUMNS), flush=True)
    if args.out:
        command = shlex.join(["python", "-m", "benchmarks.memory_plan", *(argv or sys.argv[1:])])
        results.write(
            args.out,
            json.dumps(
                {
                    "rows": rows,
                    "command": command,
                    "commit": results.commit(),
                    "versions": results.versions(),
                    "note": __doc__.split("\n\n")[-1].strip(),
                    "hardware": f"compiled for pretended CPU devices on {platform.machine()}",
                },
                indent=1,
            )
            + "\n",
        )
    return 0


def experiment(variant: str, quick: bool = False):
    """`configs/cr_1b.py:VARIANT`; quick: its kind at a thousandth of the size."""
    from cr_jax import config

    built = config.build(runpy.run_path(str(ROOT / "configs" / "cr_1b.py"))["get_config"](variant))
    if not quick:
        return built
    return dataclasses.replace(
        built,
        model=dataclasses.replace(
            built.model,
            vocab_size=512,
            window=32,
            d_model=64,
            d_latent=32,
            heads=2,
            d_ff=192,
            fold_channels=8,
            encoder_blocks=2,
            decoder_blocks=2,
        ),
        train=dataclasses.replace(built.train, batch=32, accumulate=2, loss_chunk=512),
    )


def plan_row(variant: str, e, devices: int, fsdp: int) -> dict:
    """One row: bytes of each device for the step of experiment `e`, in GiB."""
    import jax
    import jax.numpy as jnp

    from cr_jax import models
    from cr_jax.parallel import plan as parallel
    from cr_jax.training.losses import CompressorLoss
    from cr_jax.training.step import init_state, make_train_step

    model = dataclasses.replace(e.model, dtype="bfloat16", attention="xla")
    plan = parallel.make_plan("jit", 1, e.train.batch, 1, jax.devices()[:devices], fsdp)
    train = e.train
    loss = CompressorLoss(model, train, plan.devices_seen)
    state = plan.shapes(
        lambda key: init_state(loss, e.optimizer, key), parallel.expert_keys(0, ("code",))
    )
    batch = {"tokens": jax.ShapeDtypeStruct((1, train.batch, model.window), jnp.int32)}
    began = time.perf_counter()
    program = plan.compile_step(
        lambda axis: make_train_step(loss, e.optimizer, train.accumulate, axis),
        "vmap",
        state,
        batch,
    )
    memory = {k: v / GIB for k, v in program.memory.items()}
    total = sum(memory.values())
    return {
        "model": variant,
        "parameters": models.count_parameters(model),
        "devices": devices,
        "mesh_fsdp": fsdp,
        "batch": train.batch,
        "accumulate": train.accumulate,
        "tokens_per_step": train.batch * model.window,
        "remat": model.remat,
        "scan": model.scan,
        "momentum_dtype": e.optimizer.momentum_dtype,
        "state_gib": memory["state"],
        "temporary_gib": memory["temporary"],
        "total_gib": total,
        "fits_80_gb": total < 0.95 * ROOM,
        "compile_seconds": time.perf_counter() - began,
    }


def _show(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        f"{value:.2f}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else value
    )


def pretend_devices(count: int) -> None:
    """Before JAX starts: the CPU as so many devices."""
    flag = "--xla_force_host_platform_device_count"
    if flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}={count}".strip()
    os.environ["JAX_PLATFORMS"] = "cpu"


if __name__ == "__main__":
    sys.exit(main())
