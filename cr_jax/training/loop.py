"""The thin loop around the pure step: data in, metrics out, checkpoints, a clean way to stop."""

import contextlib
import dataclasses
import json
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from cr_jax.config import (
    Experiment,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    completed,
    profile_steps,
    to_dict,
)
from cr_jax.data import Corpus, Mixture, content, count_tokens
from cr_jax.errors import UserError
from cr_jax.models.layers import row_kernels
from cr_jax.parallel.plan import Plan, agreed, expert_keys
from cr_jax.training import banner
from cr_jax.training.checkpoint import Checkpointer
from cr_jax.training.clock import Clock
from cr_jax.training.metric_writer import MetricWriter
from cr_jax.training.phases import Phases, shares
from cr_jax.training.progress import Progress, check_finite, check_state
from cr_jax.training.step import init_state, make_train_step
from cr_jax.training.trace import Trace
from cr_jax.training.watchdog import Watchdog


class Interrupted(Exception):
    """The run was asked to stop and has saved itself; the same command goes on from there."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """What training hands over: weights to evaluate, stacked [E, ...] on process 0's host."""

    params: Any
    step: int
    seconds: float
    tokens: int  # per expert
    phases: Mapping[str, float] = dataclasses.field(default_factory=dict)  # seconds of this start


def train(
    experiment: Experiment,
    model: ModelConfig,
    texts: Mapping[str, Corpus | Mixture],
    plan: Plan,
    make_batches: Callable[[int], Any],
    workdir: Path,
    on_log: Callable[[int, Mapping[str, dict]], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Trained:
    """Trains all experts together until the configured duration.

    texts: what each expert trains on, by its name.  make_batches(step) -> iterator of {"tokens"
    [e, b, L]}, this process's `plan.share` of the batches from that step on, with `get_state` and
    `set_state` (a Grain iterator).  Continues from the newest good checkpoint
    in workdir.  say: hears what is about to run, and at the end where the time went.  Raises
    `Interrupted` after Ctrl-C or SIGTERM, when the run has been saved, and `UserError` when the
    loss is no longer finite or the workdir holds another run.
    """
    settings, names, main = experiment.train, tuple(texts), jax.process_index() == 0
    rows = settings.batch // plan.row_devices
    if plan.steps_alone and rows % settings.accumulate:
        raise UserError(f"config.train.accumulate={settings.accumulate} must divide the {rows} "
                        "rows of an expert that each device holds without config.mesh_fsdp")
    row_kernels(model, plan.steps_alone)  # refused before anything is made
    make_state = lambda key: init_state(model, experiment.optimizer, settings, key)
    keys = expert_keys(experiment.seed, names)
    record = {"experiment": to_dict(experiment), "model": to_dict(model), "experts": list(names),
              "texts": {name: content(text) for name, text in texts.items()}}
    sizes = [count_tokens(text) for text in texts.values()]
    clock, phases, step = Clock(settings, model.window, sizes), Phases(), 0
    with contextlib.ExitStack() as opened, _stop_signals() as stop:
        checkpointer = Checkpointer(workdir / "checkpoints", settings.keep_checkpoints)
        opened.callback(checkpointer.close)
        restored = checkpointer.restore(
            plan.shapes(make_state, keys), lambda old: same_run(old, record))
        if restored:
            step, held, iterator_state, old = restored
            state = plan.spread(held)
            clock.elapsed = old["elapsed"]
        else:
            state = plan.init(make_state, keys)
        batches = make_batches(step)
        if restored:
            batches.set_state(iterator_state)

        def save():
            # On return the state is on the host: the next step may reuse its buffers.
            phases.enter("checkpoint")
            held = plan.gather(state)
            check_state(step, held)  # the loss was that of the parameters before the last update
            checkpointer.save(step, held, batches.get_state(),
                              {**record, "elapsed": clock.seconds()})
            phases.enter("step")

        writer = MetricWriter(workdir, step) if main else None
        if writer:
            opened.callback(writer.close)
        trace = Trace(profile_steps(settings.profile) if main else None, workdir / "trace")
        opened.callback(trace.close)
        finished, stopped, batch = clock.progress(step) >= 1, False, None
        if finished:
            say(f"training was complete at step {step}; nothing to train")
        watchdog = opened.enter_context(Watchdog(
            settings.watchdog, phases, workdir / _hang_file(jax.process_index()), step))
        clock.start()
        if not finished:
            batch = plan.put(next(batches))
            phases.enter("compile")
            program = plan.compile_step(
                lambda axis: make_train_step(
                    model, experiment.optimizer, _chunks_of_a_device(settings, plan), axis),
                settings.experts_by, state, batch)
            for line in banner.lines(plan, program.memory, model, settings, clock, step):
                say(line)
        bar = opened.enter_context(tqdm(
            total=100, disable=not main, unit="%", mininterval=0.5, leave=True,
            bar_format="train {percentage:5.1f}% |{bar:24}| {elapsed} passed, "
                       "{remaining} left{postfix}"))
        bar.update(min(100.0, 100 * clock.progress(step)))
        log = Progress(experiment, model, names, clock, phases, writer, bar, on_log)
        last_save, pending = clock.seconds(), None
        while not finished and not stopped:
            progress = clock.of_experts(step)
            if batch is None:
                # The batch is drawn after any save: the iterator's state in a checkpoint is the
                # state before the next step's batch.
                phases.enter("data")
                batch = plan.put(next(batches))
            phases.enter("step")
            trace.before(step)
            state, sums = program(state, batch, progress)
            step, batch = step + 1, None
            if jax.default_backend() == "cpu":
                # Run-ahead gains nothing here and deadlocks several processes on few cores.
                jax.block_until_ready(sums)
            trace.after(step, sums)
            finished = clock.progress(step) >= 1
            # The sums of step t are read once step t+1 is under way.
            if pending is not None:
                check_finite(step - 1, pending[0], names)
                if (step - 1) % settings.log_every == 0:
                    log(step - 1, *pending)
            pending = sums, progress
            phases.enter("others")
            stopped, due = agreed(
                step, stop.is_set(), clock.seconds() - last_save > settings.checkpoint_every)
            phases.enter("step")
            if due and not finished and not stopped:
                check_finite(step, pending[0], names)
                clock.pause()
                if step % settings.log_every == 0:
                    # Before it is sealed: a run killed later has a line for every logged step.
                    log(step, *pending)
                    pending = None
                save()
                clock.start()
                last_save = clock.seconds()
            checkpointer.check()  # a full disk ends the run now, not at the next save
            watchdog.finished(step)
        if pending is not None:
            check_finite(step, pending[0], names)
            log(step, *pending)
        clock.pause()
        save()
        phases.enter("checkpoint")
        checkpointer.wait()
        spent = phases.seconds()
    if not finished or (stop.is_set() and jax.process_count() == 1):  # also in the last step
        raise Interrupted(f"stopped at step {step}, saved; run the same command to go on")
    if spent["compile"]:
        say(f"time: {shares(spent)}")
    held = plan.gather(state)
    weights = held.average if settings.ema else held.params
    return Trained(plan.to_host(weights), step, clock.elapsed, clock.tokens(step), spent)


def _chunks_of_a_device(settings: TrainConfig, plan: Plan) -> TrainConfig:
    """`loss_chunk` counts tokens of one device."""
    return dataclasses.replace(settings, loss_chunk=settings.loss_chunk * plan.devices_seen)


def _hang_file(process: int) -> str:
    return f"hang-{process}.txt" if process else "hang.txt"


def same_run(old: dict, new: dict) -> None:
    """A workdir belongs to one configuration; only its length, devices, logging and evaluation
    may change.
    """
    free = {"steps", "tokens", "seconds", "log_every", "checkpoint_every", "keep_checkpoints",
            "profile", "watchdog"}

    def strip(record):
        record = json.loads(json.dumps(record))  # a stored record has lists for tuples
        experiment = record["experiment"]
        data, tokenizer = experiment["data"], experiment["tokenizer"]
        # A setting that an older version did not have was at its default.
        full = lambda kind, given: {**to_dict(kind()), **given}
        train = full(TrainConfig, experiment["train"])
        return {
            "model": completed(record["model"]), "experts": record["experts"],
            "train": {k: v for k, v in train.items() if k not in free},
            "optimizer": full(OptimizerConfig, experiment["optimizer"]),
            "seed": experiment["seed"],
            "data": {"mode": data["mode"], "max_train_tokens": data["max_train_tokens"],
                     **{f"domains.{k}.train": v["train"] for k, v in data["domains"].items()}},
            "tokenizer": {k: tokenizer[k] for k in ("kind", "vocab_size")}}

    texts = old.get("texts", {})
    changed = [name for name, text in new["texts"].items() if texts.get(name, text) != text]
    old, new = strip(old), strip(new)
    for group in new:
        if old[group] != new[group]:
            fields = ([k for k in new[group] if old[group].get(k) != new[group][k]]
                      if isinstance(new[group], dict) else [])
            raise UserError(f"the workdir holds a run with other settings ({group}"
                            f"{': ' + ', '.join(fields) if fields else ''}); use a new --workdir")
    if changed:
        raise UserError(f"the training text of {', '.join(changed)}, or the tokenizer, is not what "
                        "the run in the workdir began with; restore it or use a new --workdir")


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
