"""The bits of z of a finished run of one expert.

    python -m benchmarks.record.bits --workdir runs/cr_87m --fsq 0 4 --out bits.json

Rates come from `cr_jax.studies.bits`, on test windows, with scales fitted on valid.
`--fsq LEVELS` also fine-tunes the expert with a finite scalar quantiser in place; LEVELS 0 is the
control: the same seconds without a quantiser.  WORKDIR has config.json and bank/, the text is that
of the run's config.
"""

import argparse
import dataclasses
import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.results import check_folder, commit, write
from cr_jax.bank import ExpertBank
from cr_jax.config import Experiment, ModelConfig, build
from cr_jax.data import WindowBatches, Windowing, experiment_text, train_iterator
from cr_jax.errors import UserError
from cr_jax.models import quantizer
from cr_jax.parallel import plan as parallel
from cr_jax.studies import bits
from cr_jax.training.loop import Job, train
from cr_jax.training.losses import CompressorLoss

FIT_WINDOWS = 512


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--workdir", required=True, help="of a finished run of main.py")
    p.add_argument("--expert", default="", help="by default the only one")
    p.add_argument("--windows", type=int, default=2048, help="of test, evenly spread; 0: all")
    p.add_argument(
        "--fsq",
        type=int,
        nargs="+",
        default=[],
        metavar="LEVELS",
        help="fine-tune with this many values per number; 0: the control without",
    )
    p.add_argument("--fsq-seconds", type=float, default=20.0, help="of steps, for each of --fsq")
    p.add_argument("--fsq-rate", type=float, default=0.25, help="share of the run's learning rates")
    p.add_argument("--out", required=True)
    a = p.parse_args(arguments)
    try:
        check(a)
        found = measure(a)
        write(a.out, json.dumps(found, indent=1) + "\n")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def check(a: argparse.Namespace) -> None:
    """Raises `UserError` before anything is read on options that cannot be meant."""
    if not all(n == 0 or 2 <= n <= 256 for n in a.fsq):
        raise UserError(f"--fsq must be 0 or 2 to 256 levels, got {a.fsq}")
    if not (a.fsq_seconds > 0 and a.fsq_rate > 0 and a.windows >= 0):
        raise UserError("--fsq-seconds and --fsq-rate must be above 0, --windows not below")
    check_folder(Path(a.out).parent)


def measure(a: argparse.Namespace) -> dict:
    """`studies.bits.run` on the expert, with rows for each fine-tuned quantiser.

    Those rows also have "levels" (0: the control), "fine_tune_seconds", "fine_tune_steps" and
    "fine_tune_compile_seconds"; 0 seconds: fitted on `valid` and put in place, nothing trained.
    Raises `UserError`.
    """
    workdir = Path(a.workdir)
    try:
        e = build(json.loads((workdir / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise UserError(
            f"--workdir: {workdir}/config.json cannot be read; name the folder of a "
            "finished run of main.py"
        ) from None
    bank = ExpertBank.load(workdir / "bank")
    if a.expert not in ("", *bank.names) or (len(bank.names) > 1 and not a.expert):
        raise UserError(f"--expert must be one of {', '.join(bank.names)}")
    name = a.expert or bank.names[0]
    text = experiment_text.prepare(e, workdir, lambda line: print(line, flush=True))
    spread = lambda windows, count: windows.spread(count or len(windows)).tokens
    test, fit = spread(text.test[name], a.windows), spread(text.valid[name], FIT_WINDOWS)
    params, model = bank.expert_params(name), bank.model
    score = functools.partial(bits.run, windows=test, fit_windows=fit, batch=e.eval.batch)
    began = time.perf_counter()
    read = text.tokenizer.decode(test.ravel()).encode("utf-8")
    found = score(model, params) | bits.raw_bits(test, text.tokenizer.vocab_size, read)
    report(found["rows"])
    base = dataclasses.replace(model, levels=0)
    params = {"params": {k: v for k, v in params["params"].items() if k != "quantizer"}}
    for levels in a.fsq:
        tuned_model, start, known = (
            dataclasses.replace(base, levels=levels),
            params,
            len(found["rows"]),
        )
        if levels:
            z = bits.latents(base, params, fit, e.eval.batch).reshape(-1, base.d_latent)
            start = quantizer.insert(params, z, levels)
            # As fitted, before any step.
            found["rows"] += tagged(score(tuned_model, start)["rows"], levels, 0.0, 0, 0.0)
        tuned = fine_tune(
            tuned_model, e, start, {name: text.train[name]}, a.fsq_seconds, a.fsq_rate
        )
        found["rows"] += tagged(score(tuned_model, tuned[0], bits=())["rows"], levels, *tuned[1:])
        report(found["rows"][known:])
    return found | {
        "expert": name,
        "set": "test",
        "fit_set": "valid",
        "seconds": time.perf_counter() - began,
        "fsq_rate": a.fsq_rate,
        "commit": commit(),
        "device": jax.devices()[0].device_kind,
    }


def tagged(
    rows: list[dict], levels: int, seconds: float, steps: int, compiled: float
) -> list[dict]:
    """The rows with what the fine-tuning was and took."""
    return [
        r
        | {
            "levels": levels,
            "fine_tune_seconds": seconds,
            "fine_tune_steps": steps,
            "fine_tune_compile_seconds": compiled,
        }
        for r in rows
    ]


def report(rows: list[dict]) -> None:
    """One line a row."""
    for row in rows:
        print(json.dumps(row), flush=True)


def fine_tune(
    model: ModelConfig, e: Experiment, params: Any, corpora: dict, seconds: float, share: float
) -> tuple[Any, float, int, float]:
    """-> (parameters, seconds of steps, steps, seconds of compilation).

    A fresh optimiser at `share` of the run's learning rates, by the run's schedule; `params` are
    left as they are.
    """
    o = e.optimizer
    slow = dataclasses.replace(
        e,
        optimizer=dataclasses.replace(
            o,
            learning_rate=share * o.learning_rate,
            muon_learning_rate=share * o.muon_learning_rate,
        ),
        train=dataclasses.replace(e.train, steps=0, tokens=0, seconds=seconds),
    )
    plan = parallel.make_plan(e.parallel, 1, e.train.batch)

    def batches(step):
        windowing = Windowing(model.window, e.seed, e.data.mode)
        return train_iterator(WindowBatches(corpora, e.train.batch, windowing), step)

    job = Job(
        slow,
        CompressorLoss(model, slow.train, plan.devices_seen),
        tuple(corpora),
        batches,
        start=jax.tree.map(lambda x: np.asarray(x)[None], params),
    )
    done = train(job, plan)
    return (
        jax.tree.map(lambda x: x[0], done.params),
        done.seconds,
        done.step,
        done.phases["compile"],
    )


if __name__ == "__main__":
    sys.exit(main())
