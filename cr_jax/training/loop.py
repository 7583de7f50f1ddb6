"""The thin loop around the pure step: data in, metrics out, checkpoints, a clean way to stop."""

import contextlib
import dataclasses
import json
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from cr_jax import objective
from cr_jax.config import Experiment, ModelConfig, to_dict
from cr_jax.errors import UserError
from cr_jax.parallel import Plan, agreed, expert_keys
from cr_jax.training.checkpoint import Checkpointer
from cr_jax.training.clock import Clock
from cr_jax.training.metric_writer import MetricWriter
from cr_jax.training.optimizer import rate
from cr_jax.training.speed import flops_per_token, peak_flops
from cr_jax.training.step import init_state, make_train_step


class Interrupted(Exception):
    """The run was asked to stop and has saved itself; the same command goes on from there."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """What training hands over: weights to evaluate, stacked [E, ...] on the host."""

    params: Any
    step: int
    seconds: float
    tokens: int  # per expert


def train(
    experiment: Experiment,
    model: ModelConfig,
    names: Sequence[str],
    plan: Plan,
    make_batches: Callable[[int], Any],
    workdir: Path,
    on_log: Callable[[int, Mapping[str, dict]], None] | None = None,
) -> Trained:
    """Trains all experts together until the configured duration.

    make_batches(step) -> iterator of {"tokens" [E, b, L]} from that step on, with `get_state`
    and `set_state` (a Grain iterator).  Continues from the newest good checkpoint in workdir.
    Raises `Interrupted` after Ctrl-C or SIGTERM, when the run has been saved, and `UserError`
    when the loss is no longer finite or the workdir holds another run.
    """
    settings, main = experiment.train, jax.process_index() == 0
    rows = settings.batch // plan.mesh.shape["data"]
    if plan.mode == "pmap" and rows % settings.accumulate:
        raise UserError(f"config.train.accumulate={settings.accumulate} must divide the {rows} "
                        "rows that each device holds under pmap")
    make_state = lambda key: init_state(model, experiment.optimizer, settings, key)
    state = plan.init(make_state, expert_keys(experiment.seed, names))
    step_fn = plan.compile_step(
        lambda axis: make_train_step(model, experiment.optimizer, settings, axis),
        settings.experts_by)
    record = {"experiment": to_dict(experiment), "model": to_dict(model), "experts": list(names)}
    clock, step = Clock(settings, model.window), 0
    with contextlib.ExitStack() as opened, _stop_signals() as stop:
        checkpointer = Checkpointer(workdir / "checkpoints", settings.keep_checkpoints)
        opened.callback(checkpointer.close)
        restored = checkpointer.restore(
            plan.gather(state), lambda old: _same_run(old, record))
        if restored:
            step, host_state, iterator_state, old = restored
            state = plan.spread(host_state)
            clock.elapsed = old["elapsed"]
        batches = make_batches(step)
        if restored:
            batches.set_state(iterator_state)

        def save():
            checkpointer.save(step, plan.gather(state), batches.get_state(),
                              {**record, "elapsed": clock.seconds()})

        writer = MetricWriter(workdir, step) if main else None
        if writer:
            opened.callback(writer.close)
        bar = opened.enter_context(tqdm(
            total=100, disable=not main, unit="%", mininterval=0.5, leave=True,
            bar_format="train {percentage:5.1f}% |{bar:24}| {elapsed} passed, "
                       "{remaining} left{postfix}"))
        bar.update(min(100.0, 100 * clock.progress(step)))
        log = _Log(experiment, model, names, clock, writer, bar, on_log)
        finished, stopped = clock.progress(step) >= 1, False
        clock.start()
        last_save, pending = clock.seconds(), None
        while not finished and not stopped:
            progress = clock.progress(step)
            # The batch is drawn after any save: the iterator's state in a checkpoint is the
            # state before the next step's batch.
            batch = plan.put(next(batches))
            state, sums = step_fn(state, batch, jnp.float32(progress))
            step += 1
            if jax.default_backend() == "cpu":
                # Run-ahead gains nothing here and deadlocks several processes on few cores.
                jax.block_until_ready(sums)
            finished = clock.progress(step) >= 1
            # The sums of step t are read once step t+1 is under way.
            if pending is not None and (step - 1) % settings.log_every == 0:
                log(step - 1, pending, progress)
            pending = sums
            stopped, due = agreed(
                step, stop.is_set(), clock.seconds() - last_save > settings.checkpoint_every)
            if due and not finished and not stopped:
                _check_finite(step, pending, names)
                clock.pause()
                if step % settings.log_every == 0:
                    # Before it is sealed: a run killed later has a line for every logged step.
                    log(step, pending, clock.progress(step))
                    pending = None
                save()
                clock.start()
                last_save = clock.seconds()
        if pending is not None:
            _check_finite(step, pending, names)
            log(step, pending, min(1.0, clock.progress(step)))
        clock.pause()
        save()
    if not finished:
        raise Interrupted(f"stopped at step {step}, saved; run the same command to go on")
    held = plan.gather(state)
    weights = held.average if settings.ema else held.params
    return Trained(jax.device_get(weights), step, clock.elapsed, clock.tokens(step))


class _Log:
    """Turns the device's sums into one line per expert, the bar's postfix and a callback."""

    def __init__(self, experiment, model, names, clock, writer, bar, on_log):
        self.experiment, self.names, self.clock = experiment, names, clock
        self.writer, self.bar, self.on_log = writer, bar, on_log
        self.flops = flops_per_token(model)
        self.last = None

    def __call__(self, step: int, sums, progress: float) -> None:
        host = jax.device_get(sums)
        _check_finite(step, host, self.names)
        now = self.clock.seconds()
        speed = {}
        if self.last and now > self.last[1]:
            tokens = self.clock.tokens(step) - self.clock.tokens(self.last[0])
            speed["tokens_per_s"] = tokens * len(self.names) / (now - self.last[1])
            peak = peak_flops()
            if peak:
                speed["mfu"] = speed["tokens_per_s"] * self.flops / peak / jax.device_count()
        self.last = (step, now)
        values = {}
        for i, name in enumerate(self.names):
            one = {k: float(v[i]) for k, v in host.items()}
            values[name] = {
                **{k: v for k, v in objective.metrics(one).items() if k in ("tra", "nll")},
                "gradient_norm": one["gradient_norm"], "seconds": now,
                "rate": float(rate(self.experiment.optimizer, jnp.float32(progress))), **speed}
            if self.writer:
                self.writer.write(step, name, values[name])
        tra = [v["tra"] for v in values.values()]
        fast = f", {speed['tokens_per_s']:,.0f} tokens/s" if speed else ""
        self.bar.set_postfix_str(f"step {step}, TRA {min(tra):.1%}-{max(tra):.1%}{fast}"
                                 .replace("%-", "-", 1) if len(tra) > 1
                                 else f"step {step}, TRA {tra[0]:.2%}{fast}")
        self.bar.update(max(0.0, min(100.0, 100 * progress) - self.bar.n))
        if self.on_log:
            self.on_log(step, values)


def _check_finite(step, sums, names) -> None:
    host = jax.device_get(sums)
    bad = [n for i, n in enumerate(names)
           if not (np.isfinite(host["nll"][i]) and np.isfinite(host["gradient_norm"][i]))]
    if bad:
        raise UserError(
            f"the loss of {', '.join(bad)} is not finite at step {step}; the last good checkpoint "
            "is kept: lower config.optimizer.learning_rate and muon_learning_rate, and start in a "
            "new --workdir")


def _same_run(old: dict, new: dict) -> None:
    """A workdir belongs to one configuration; only its length, devices, logging and evaluation
    may change.
    """
    free = {"steps", "tokens", "seconds", "log_every", "checkpoint_every", "keep_checkpoints"}

    def strip(record):
        record = json.loads(json.dumps(record))  # a stored record has lists for tuples
        experiment = record["experiment"]
        data, tokenizer = experiment["data"], experiment["tokenizer"]
        return {
            "model": record["model"], "experts": record["experts"],
            "train": {k: v for k, v in experiment["train"].items() if k not in free},
            "optimizer": experiment["optimizer"], "seed": experiment["seed"],
            "data": {"mode": data["mode"], "max_train_tokens": data["max_train_tokens"],
                     **{f"domains.{k}.train": v["train"] for k, v in data["domains"].items()}},
            "tokenizer": {k: tokenizer[k] for k in ("kind", "vocab_size")}}

    old, new = strip(old), strip(new)
    for group in new:
        if old[group] != new[group]:
            fields = ([k for k in new[group] if old[group].get(k) != new[group][k]]
                      if isinstance(new[group], dict) else [])
            raise UserError(f"the workdir holds a run with other settings ({group}"
                            f"{': ' + ', '.join(fields) if fields else ''}); use a new --workdir")


@contextlib.contextmanager
def _stop_signals():
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number, frame):
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    old = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
