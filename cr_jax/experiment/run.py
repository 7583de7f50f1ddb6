"""A whole experiment: text -> trained experts -> bank -> studies -> report."""

import contextlib
import json
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax
import ml_collections
from absl import logging
from tqdm import tqdm

from cr_jax import config as settings
from cr_jax.config import Experiment
from cr_jax.config.command_line import no_words
from cr_jax.data import experiment_text
from cr_jax.errors import UserError, complain, one_line, out_of_memory, printable
from cr_jax.experiment import checks, finished_bank, outcome
from cr_jax.experiment.compressors import train_compressors
from cr_jax.experiment.kept_studies import KeptStudies
from cr_jax.host.files import DISK_ERRORS, expanded, write_whole
from cr_jax.host.inside import Inside
from cr_jax.modular import recipe
from cr_jax.parallel import compiled, ending, processes
from cr_jax.parallel import plan as parallel
from cr_jax.parallel.cluster import Cluster, start
from cr_jax.report import write_report
from cr_jax.scoring.calibration import too_few
from cr_jax.studies import evaluation, examples, registry
from cr_jax.studies.capacity import ablation
from cr_jax.studies.capacity.grid import make_grid
from cr_jax.training.loop import Interrupted
from cr_jax.training.workdir import check_in_place, locked, provenance, same_run, stored_record


def main(
    config: ml_collections.ConfigDict, workdir: str, argv=(), cluster: Cluster | None = None
) -> int:
    """What `main.py` calls: runs the experiment, prints one line per problem; the exit status."""
    logging.set_verbosity(logging.WARNING)
    try:
        no_words(argv)
        start(cluster)
        _dispatch(config.to_dict(), workdir)
    except UserError as error:
        complain("error", error)
        ending.leave(2)
        return 2
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        complain(
            "error",
            f"cannot write {error.filename or workdir}: {error.strerror}; make room "
            "there or allow writing, then run the same command to go on",
        )
        ending.leave(2)
        return 2
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not out_of_memory(error):
            raise
        complain(
            "error",
            "there is not enough memory: lower config.train.batch, eval.batch, "
            "eval.expert_chunk or the model's sizes, or spread it over more devices; what was "
            "saved is kept",
        )
        ending.leave(2)
        return 2
    except (Interrupted, KeyboardInterrupt) as stop:
        line = one_line(str(stop) or "stopped; run the same command to go on")
        if sys.stderr is not None:
            print(f"\n{line}", file=sys.stderr)
        return 130
    return 0


def _dispatch(raw: dict, workdir: str) -> None:
    """A config with a group `ablation` is a grid of experiments, any other a single one."""
    axes = raw.pop("ablation", None)
    experiment = settings.build(raw)
    checks.settings(experiment)
    if axes is None:
        run(experiment, workdir)
        return
    grid = make_grid(axes)
    if jax.process_count() > 1:
        raise UserError(
            "an ablation runs in one process; start each of its settings as a run of "
            "its own to use several"
        )
    _keep_compiled(_say)
    ablation.run(experiment, grid, workdir, _say)


def _keep_compiled(say) -> None:
    """A second start of the same run compiles nothing anew."""
    if reason := compiled.keep():
        say(f"note: compiled programs are not kept: {reason}")


def run(experiment: Experiment, workdir: str | Path) -> dict:
    """Runs every stage below `workdir` and returns the report's dict.

    Called again, it goes on from the newest checkpoint.  Raises `UserError` for bad input and
    `training.loop.Interrupted` when it was asked to stop and has saved itself.  Of several
    processes all train, calibrate and score the test windows, each its share; then process 0 alone
    runs the studies and writes, and the others return {}.
    """
    registry.check(experiment)
    say = _say if processes.is_first() else lambda line: None
    seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(name):
        check_in_place(place)
        began = time.perf_counter()
        yield
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
        if interrupted():
            raise KeyboardInterrupt

    with _entered(workdir) as folder, _interrupts() as interrupted, Inside.at(folder) as place:
        _keep_compiled(say)
        if processes.is_first():
            place.sweep()
        plan = _plan(experiment)  # what cannot be laid out is refused before text is read
        checks.devices(experiment, plan)
        with stage("text"):
            text = processes.in_turn(lambda: _prepare(experiment, folder, say))
        model = experiment_text.sized(experiment.model, text.tokenizer)
        checks.text(experiment, text)
        names = tuple(text.train)
        with stage("training"):
            trained = train_compressors(experiment, text, plan, folder, say)
        language_models = None
        if experiment.modular.seed_tokens:
            with stage("language models"):
                language_models = recipe.train_all(experiment, text, folder, say)
        # Training time of earlier starts counts too.
        seconds["training"] = max(seconds["training"], sum(trained.phases.values()))
        with stage("calibration"), _own_bank(folder) as place_of_bank:
            bank = finished_bank.make(
                experiment, text, trained, place_of_bank, say, language_models
            )
            if line := too_few(bank.calibration, experiment.eval.alpha):
                say(line)
        report = {
            "name": experiment.name,
            "summary": outcome.summary(model, names),
            "overlap": text.overlap,
        }
        with stage("evaluation"):
            total = sum(len(w) for w in text.test.values())
            quiet = not processes.is_first()
            with tqdm(total=total, desc="evaluate", unit=" windows", disable=quiet) as bar:
                sizes = finished_bank.sizes_of(experiment)
                scores = evaluation.score_domains(bank, text.test, sizes, bar.update)
        if not processes.is_first():
            processes.wait("the report is written")
            return {}
        with stage("studies"):
            context = registry.Context(experiment, text, bank, scores, language_models)
            report |= registry.run(context, say, KeptStudies(place, context))
            report |= examples.run(bank, text.test, experiment.eval.examples)
        if language_models:
            report["language_models"] = language_models.notes
        report["curves"] = outcome.curves(folder, names, trained.looks)
        report["training"] = outcome.training(experiment, trained)
        report["seconds"] = seconds
        report["provenance"] = {
            **provenance(),
            "config": settings.to_dict(experiment),
            "steps": trained.step,
            "tokens_per_expert": trained.tokens,
        }
        page = write_report(report, folder)
        outcome.tell(report, say)
        say(f"report: {page}")
        processes.wait("the report is written")
    return report


def _say(line: str) -> None:
    print(printable(line), flush=True)  # it may quote names


@contextlib.contextmanager
def _entered(workdir: str | Path):
    """The workdir's absolute path; process 0 holds its lock for all."""
    with contextlib.ExitStack() as stack:
        yield processes.in_turn(
            lambda: (
                stack.enter_context(locked(workdir))
                if processes.is_first()
                else expanded(workdir).resolve()
            )
        )


@contextlib.contextmanager
def _own_bank(folder: Path):
    """Where this process makes the bank: process 0 below the workdir.  The others make the same
    one, so that all score with it, in a folder that is then removed."""
    if processes.is_first():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="cr_jax_bank_") as own:
        yield Path(own)


@contextlib.contextmanager
def _interrupts():
    """Tells whether Ctrl-C was pressed: what it raises inside a callback of a library is lost."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    def note(number, frame):
        pressed.set()
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGINT, note)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, old)


def _prepare(experiment, folder, say):
    """The text; WORKDIR/config.json says by which settings.

    Other settings than an old workdir's are refused before it is tokenised; what depends on the
    text is compared when the checkpoint is restored.
    """
    if old := stored_record(folder):
        model = settings.to_dict(experiment.model)
        model["vocab_size"] = model["vocab_size"] or old["model"]["vocab_size"]  # the tokenizer's
        same_run(
            old,
            {
                "experiment": settings.to_dict(experiment),
                "model": model,
                "experts": list(experiment.data.domains),
                "texts": {},
            },
        )
    if processes.is_first():
        checks.place(experiment, folder)
        # From the start on: a run that was stopped says what it was, too.
        write_whole(folder / "config.json", json.dumps(settings.to_dict(experiment), indent=1))
    return experiment_text.prepare(
        experiment, folder, say, processes.is_first() and experiment.data.count_overlap
    )


def _plan(experiment):
    if jax.process_count() > 1 and experiment.train.seconds:
        # Each process would follow its own clock, with other learning rates and another end.
        raise UserError(
            "config.train.seconds needs a single process; give config.train.steps or "
            "tokens, and seconds=0"
        )
    return parallel.make_plan(
        experiment.parallel,
        len(experiment.data.domains),
        experiment.train.batch,
        experiment.mesh_expert,
        mesh_fsdp=experiment.mesh_fsdp,
    )
