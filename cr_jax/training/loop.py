"""The thin loop around the pure step: data in, metrics out, checkpoints, a clean way to stop.

The one loop that trains models: compressors below a workdir, baselines in memory.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from cr_jax.config import TrainConfig, TransformerConfig, profile_steps, to_dict
from cr_jax.data import Windowing, content, epoch_positions
from cr_jax.errors import UserError
from cr_jax.models.layers import row_kernels
from cr_jax.parallel.plan import Plan, agreed, expert_keys
from cr_jax.training import banner
from cr_jax.training.checkpoint import Checkpointer
from cr_jax.training.clock import Clock
from cr_jax.training.job import Job, Trained
from cr_jax.training.losses import of_a_step
from cr_jax.training.metric_writer import MetricWriter
from cr_jax.training.phases import Phases, added, shares
from cr_jax.training.progress import BAR, Progress, check_finite, check_state
from cr_jax.training.signals import stop_signals
from cr_jax.training.step import init_state, make_train_step
from cr_jax.training.trace import Trace
from cr_jax.training.validation import NEVER, Validation
from cr_jax.training.wandb_writer import WandbWriter
from cr_jax.training.watchdog import Watchdog
from cr_jax.training.workdir import same_run


class Interrupted(Exception):
    """The run was asked to stop and has saved itself; the same command goes on from there."""


def train(
    job: Job,
    plan: Plan,
    workdir: Path | None = None,
    on_log: Callable[[int, Mapping[str, dict]], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Trained:
    """Trains all models of the job together until the configured duration.

    Continues from the newest good checkpoint in workdir; None: in memory, nothing is written.
    say: hears what is about to run, and at the end where the time went.  Raises
    `Interrupted` after Ctrl-C or SIGTERM, when the run has been saved, and `UserError` when the
    loss is no longer finite or the workdir holds another run.
    """
    experiment, loss, names = job.experiment, job.loss, job.names
    settings, model = experiment.train, loss.model
    main = jax.process_index() == 0 and workdir is not None
    check_layout(settings, model, plan)  # refused before anything is made
    keys = expert_keys(experiment.seed, names)
    windowing = Windowing(loss.window, mode=experiment.data.mode)
    sizes = [epoch_positions(job.texts[n], windowing) if n in job.texts else 0 for n in names]
    clock = Clock(settings, loss.window, sizes, lengths=job.lengths)
    phases, step, before = Phases(), 0, {}
    validation = (
        Validation(experiment, loss, job.valid, clock)
        if experiment.eval.every and job.valid
        else NEVER
    )
    keep_best = job.keep_best and validation is not NEVER
    traced = of_a_step(loss)  # so that the programs of an earlier run of this process serve
    make_state = functools.partial(
        init_state,
        traced,
        experiment.optimizer,
        rate=1.0 if job.rates else None,
        keep_best=keep_best,
        blank=job.start is not None,
    )
    with contextlib.ExitStack() as opened, stop_signals() as stop:
        restored = checkpointer = writer = None
        if workdir is not None:
            record = {
                "experiment": to_dict(experiment),
                "model": to_dict(model),
                "window": loss.window,
                "experts": list(names),
                "job": {"rates": job.rates, "lengths": job.lengths, **job.settings},
                "texts": {n: content(t) for n, t in job.texts.items()},
            }
            checkpointer = Checkpointer(workdir / "checkpoints", settings.keep_checkpoints)
            opened.callback(checkpointer.close)
            restored = checkpointer.restore(
                plan.shapes(make_state, keys), lambda old: same_run(old, record)
            )
        if restored:
            step, held, iterator_state, old = restored
            state = plan.spread(held)
            clock.elapsed, before = old["elapsed"], old.get("phases", {})
            validation.go_on(old.get("validation"), step)
        else:
            state = plan.init(make_state, keys)
            if job.start is not None:
                state = state.replace(params=plan.spread(job.start))
            if job.rates:
                state = state.replace(rate=plan.spread(np.asarray(job.rates, np.float32)))
        batches = job.batches(step)
        if restored:
            batches.set_state(iterator_state)

        def save():
            # On return the state is on the host: the next step may reuse its buffers.
            phases.enter("checkpoint")
            held = plan.gather(state)
            check_state(step, held)  # the loss was that of the parameters before the last update
            if checkpointer:
                best = validation.best if experiment.eval.keep_best else None
                checkpointer.save(
                    step,
                    held,
                    batches.get_state(),
                    {
                        **record,
                        "elapsed": clock.seconds(),
                        "phases": added(before, phases.seconds()),
                        "validation": validation.to_record(),
                    },
                    best and best["step"],
                )
            phases.enter("step")

        def look():
            """Validates; whether the step is the best one and to be kept."""
            nonlocal state
            phases.enter("validate")
            best = validation.look(step, state.params)
            if keep_best:
                improved = plan.spread(validation.improved)
                state = state.replace(best=_chosen(improved, state.params, state.best))
            log.validated(validation.looks[-1])
            phases.enter("step")
            return best and experiment.eval.keep_best

        if main:
            other = WandbWriter(workdir, experiment) if settings.wandb else None
            writer = MetricWriter(workdir, step, other)
            opened.callback(writer.close)
        trace = Trace(
            profile_steps(settings.profile) if main else None, (workdir or Path()) / "trace"
        )
        opened.callback(trace.close)
        finished, stopped, batch = clock.progress(step) >= 1, False, None
        complete = finished
        if finished:
            say(f"training was complete at step {step}; nothing to train")
        if workdir is not None:
            watchdog = opened.enter_context(
                Watchdog(settings.watchdog, phases, workdir / _hang_file(jax.process_index()), step)
            )
        if not finished:
            batch = plan.put(next(batches))
            phases.enter("compile")
            program = plan.compile_step(
                functools.partial(
                    make_train_step, traced, experiment.optimizer, settings.accumulate
                ),
                settings.experts_by,
                state,
                batch,
            )
            validation.compile(plan, settings.experts_by, state.params)
            for line in banner.lines(plan, program.memory, loss, settings, clock, step):
                say(line)
        bar = opened.enter_context(
            tqdm(
                total=100,
                initial=min(100.0, 100 * clock.progress(step)),
                disable=not main,
                unit="%",
                mininterval=0.5,
                leave=True,
                bar_format=BAR,
            )
        )
        log = Progress(job, clock, phases, writer, bar, on_log)
        jax.block_until_ready(state)
        if not finished:
            log.start(step)
            if (restored and validation.due(step)) or (keep_best and not step):
                look()  # the run was stopped before it could, or has just begun
            if program.compiled:
                clock.start()
        last_save, pending = clock.seconds(), None
        while not finished and not stopped:
            progress = clock.of_experts(step)
            if batch is None:
                # The batch is drawn after any save: the iterator's state in a checkpoint is the
                # state before the next step's batch.
                phases.enter("data")
                batch = plan.put(next(batches))
            phases.enter("compile" if clock.stands else "step")
            trace.before(step)
            state, sums = program(state, batch, progress)
            step, batch = step + 1, None
            if clock.stands:  # this step was compiled in its call, and does not count
                jax.block_until_ready(sums)
                clock.start()
                phases.enter("step")
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
            looks = validation.due(step)
            stopped, due, agreed_look = agreed(
                step, stop.is_set(), clock.seconds() - last_save > settings.checkpoint_every, looks
            )
            if validation.unit == "seconds":
                looks = agreed_look  # each process has a clock of its own
            phases.enter("step")
            if (due or looks) and not finished and not stopped:
                check_finite(step, pending[0], names)  # waits for the step, whose time counts
                clock.pause()
                if step % settings.log_every == 0:
                    # Before it is sealed: a run killed later has a line for every logged step.
                    log(step, *pending)
                    pending = None
                due = (looks and look()) or due
                if due:
                    save()
                clock.start()
                last_save = clock.seconds() if due else last_save
            if checkpointer:
                checkpointer.check()  # a full disk ends the run now, not at the next save
                watchdog.finished(step)
        if pending is not None:
            check_finite(step, pending[0], names)
            log(step, *pending)
        clock.pause()
        if finished and not complete and validation is not NEVER:
            look()  # at the last step, whenever the last look was
        if job.save_last or not finished:
            save()
        else:
            check_state(step, plan.gather(state))
        phases.enter("checkpoint")
        if checkpointer:
            checkpointer.wait()
        spent = phases.seconds()
    if not finished or (stop.is_set() and jax.process_count() == 1):  # also in the last step
        saved = ", saved; run the same command to go on" if checkpointer else ""
        raise Interrupted(f"stopped at step {step}{saved}")
    if spent["compile"]:
        say(f"time: {shares(spent)}")
    return Trained(
        plan.to_host(plan.gather(state.best if keep_best else state.params)),
        step,
        clock.elapsed,
        clock.tokens(step),
        added(before, spent),
        validation.looks,
    )


@functools.partial(jax.jit, donate_argnums=2)
def _chosen(which, new, old):
    """Of trees stacked along the first axes, as `which` is: `new` where it is True."""
    pick = lambda a, b: jnp.where(which.reshape(which.shape + (1,) * (a.ndim - which.ndim)), a, b)
    return jax.tree.map(pick, new, old)


def check_layout(settings: TrainConfig, model: TransformerConfig, plan: Plan) -> None:
    """`UserError` where the plan's devices cannot hold the micro-batches or run the row kernels.

    Needs no text, and a model of any vocabulary.
    """
    rows = settings.batch // plan.row_devices
    if plan.steps_alone and rows % settings.accumulate:
        raise UserError(
            f"config.train.accumulate={settings.accumulate} must divide the {rows} "
            "rows of an expert that each device holds without config.mesh_fsdp"
        )
    row_kernels(model, plan.steps_alone)


def _hang_file(process: int) -> str:
    return f"hang-{process}.txt" if process else "hang.txt"
