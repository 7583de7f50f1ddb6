"""What a run is about to do: devices, mesh, memory, time."""

from collections.abc import Mapping

import jax

from cr_jax.config import TrainConfig, TransformerConfig
from cr_jax.models.layers import attention_kernel, compute_dtype, row_kernels, triton_obstacle
from cr_jax.parallel.plan import Plan
from cr_jax.training.clock import Clock
from cr_jax.training.losses import Loss
from cr_jax.training.speed import peak_flops

USUAL_MFU = 0.4  # assumed for the time of a run whose chip is known, before its first step
GIB = 1 << 30
MANY = 10  # times; an expert that read its text seventeen times found its own domain's new text
# stranger than its neighbour did (docs/results/2026-11-22-twenty-experts.md)


def lines(
    plan: Plan,
    memory: dict[str, int] | None,
    loss: Loss,
    train: TrainConfig,
    clock: Clock,
    step: int,
) -> list[str]:
    """Three lines: how the devices are laid out and used; which kernels run; how long it takes, as
    far as is known.

    memory: of `parallel.program.Program`; clock and step: where the run stands.
    """
    model = loss.model
    mesh = " x ".join(f"{name} {size}" for name, size in plan.mesh.shape.items())
    processes = jax.process_count()
    tokens = train.batch * loss.window
    per_step = f"{tokens:,} tokens per step"
    if plan.experts > 1:
        per_step += f" and expert, {plan.experts * tokens:,} in all"
    held = ""
    if memory:
        held = (
            f", {_size(sum(memory.values()))} per device ({_size(memory['state'])} of it the state)"
        )
    return [
        f"{plan.mode} over {mesh}"
        + (f", {processes} processes" if processes > 1 else "")
        + f"; {per_step}{held}",
        _kernels(plan, model),
        _time(plan, loss, train, clock, step),
    ]


def repeats(
    tokens: Mapping[str, int], positions: Mapping[str, float], train: TrainConfig, window: int
) -> list[str]:
    """A line for every expert that will read its own text over `MANY` times, or stops before.

    tokens: of each expert's training text; positions: `data.epoch_positions` of it, more where
    windows are padded.  A run that lasts seconds has no number to compare.
    """
    total = train.steps * train.batch * window or train.tokens
    lines = []
    for name, have in tokens.items():
        once = positions[name]
        limit = train.max_epochs * once or total
        if limit < total:
            lines.append(
                f"{name}: learns for {limit / total:.0%} of the run: then it has read "
                f"its {have:,} tokens {train.max_epochs:g} times "
                "(config.train.max_epochs)"
            )
        elif once and total > MANY * once:
            lines.append(
                f"{name}: its {have:,} tokens will be read {total / once:.0f} times; an "
                "expert that knows its text by heart takes new text of its domain for "
                "another's: give more text or fewer steps, or try "
                "config.train.max_epochs"
            )
    return lines


def _kernels(plan: Plan, model: TransformerConfig) -> str:
    rows, asked = row_kernels(model, plan.steps_alone), model.kernels == "xla"
    why = "config.model.kernels" if asked else triton_obstacle(model, plan.steps_alone)
    return f"{compute_dtype(model)}, attention {attention_kernel(model)}, row kernels {rows}" + (
        f" ({why})" if why else ""
    )


def _time(plan: Plan, loss: Loss, train: TrainConfig, clock: Clock, step: int) -> str:
    done = clock.progress(step)
    length = next(
        f"{getattr(train, unit):,.15g} {unit}"
        for unit in ("steps", "tokens", "seconds")
        if getattr(train, unit)
    )
    text = f"{length}, at step {step}: "
    if train.seconds:
        return text + f"{_span(train.seconds * (1 - done))} left"
    if done and clock.seconds():
        return text + f"{_span(clock.seconds() * (1 - done) / done)} left at the speed so far"
    peak = peak_flops(plan.mesh.devices.flat[0])
    if peak:
        each = train.batch * loss.window
        tokens = (train.steps * each or train.tokens) * plan.experts
        flops = tokens * loss.flops_per_token
        seconds = flops / (USUAL_MFU * peak * plan.mesh.devices.size)
        return text + f"{_span(seconds)} if it reaches {USUAL_MFU:.0%} of the chip's peak"
    return text + "the time left shows after the first steps"


def _size(count: int) -> str:
    """Bytes as "3.2 MiB" or "41.0 GiB"."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.1f} MiB"


def _span(seconds: float) -> str:
    """ "40 s", "12 min", "3.5 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
