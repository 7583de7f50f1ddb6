"""The bits of z beside a timed run (`run.py --bits`), and zstd and xz filled in afterwards.

    python -m benchmarks.record.bits --row run.json --tokens FOLDER --gpt2 FOLDER

Rates come from `cr_jax.studies.bits`, on at most a million tokens of `test`, with scales fitted on
`valid`.  `--fsq LEVELS` also fine-tunes the trained parameters with a finite scalar quantiser in
place, off the record's clock; LEVELS 0 is the control: the same seconds without a quantiser.
"""

import argparse
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.record.tokens import array, spread, windows
from benchmarks.results import write
from cr_jax.config import Experiment, ModelConfig
from cr_jax.data import Gpt2Tokenizer
from cr_jax.errors import UserError
from cr_jax.models import quantizer
from cr_jax.studies import bits
from cr_jax.training.optimizer import make_optimizer
from cr_jax.training.step import TrainState, make_train_step

GPT2_IDS = 50257
FIT_WINDOWS = 512
STREAMS = ("utf8_bits_per_token", "zstd_bits_per_token", "xz_bits_per_token")


def add_arguments(p: argparse.ArgumentParser) -> None:
    """The options of `run.py` that are read here."""
    p.add_argument("--bits", action="store_true", help="measure the bits of z after training")
    p.add_argument("--bits-windows", type=int, default=2048, help="of test, evenly spread; 0: all")
    p.add_argument("--fsq", type=int, nargs="+", default=[], metavar="LEVELS",
                   help="fine-tune with this many values per number; 0: the control without")
    p.add_argument("--fsq-seconds", type=float, default=20.0, help="for each of --fsq")
    p.add_argument("--fsq-rate", type=float, default=0.25, help="share of the run's learning rates")
    p.add_argument("--gpt2", default="", help="folder of the tokenizer, for zstd and xz")


def check(args: argparse.Namespace, sets: dict[str, np.ndarray]) -> None:
    """Raises `UserError` before anything is trained on options that cannot be meant."""
    if args.fsq and not args.bits:
        raise UserError("--fsq needs --bits")
    if not args.bits:
        return
    if not {"valid", "test"} <= set(sets):
        raise UserError("--bits needs valid and test among --sets")
    if not all(n == 0 or 2 <= n <= 256 for n in args.fsq):
        raise UserError(f"--fsq must be 0 or 2 to 256 levels, got {args.fsq}")
    if not (args.fsq_seconds > 0 and args.fsq_rate > 0 and args.bits_windows >= 0):
        raise UserError("--fsq-seconds and --fsq-rate must be above 0, --bits-windows not below")
    if args.gpt2:
        Gpt2Tokenizer(args.gpt2)


def measure(
    e: Experiment, params: Any, sets: dict[str, np.ndarray], batches: Iterator[dict],
    args: argparse.Namespace,
) -> dict:
    """`studies.bits.run` on the trained parameters, with a row for each fine-tuned quantiser.

    Those rows also have "levels" (0: the control), "fine_tune_seconds", "fine_tune_steps" and
    "fine_tune_compile_seconds"; 0 seconds: fitted on `valid` and put in place, nothing trained.
    """
    test, fit = spread(sets["test"], args.bits_windows), spread(sets["valid"], FIT_WINDOWS)
    score = functools.partial(
        bits.run, windows=test, fit_windows=fit, batch=args.eval_batch,
        ids=min(GPT2_IDS, e.model.vocab_size))
    began = time.perf_counter()
    text = stream(test, args.gpt2) if args.gpt2 else None
    found = score(e.model, params, text=text) | {"set": "test", "fit_set": "valid"}
    report(found["rows"])
    base = dataclasses.replace(e.model, levels=0)
    params = {"params": {k: v for k, v in params["params"].items() if k != "quantizer"}}
    for levels in args.fsq:
        model = dataclasses.replace(base, levels=levels)
        start, known = params, len(found["rows"])
        if levels:
            z = bits.latents(base, params, fit, args.eval_batch).reshape(-1, base.d_latent)
            start = quantizer.insert(params, z, levels)
            # As fitted, before any step.
            found["rows"] += tagged(score(model, start)["rows"], levels, 0.0, 0, 0.0)
        tuned = fine_tune(model, e, start, batches, args.fsq_seconds, args.fsq_rate)
        found["rows"] += tagged(score(model, tuned[0], bits=())["rows"], levels, *tuned[1:])
        report(found["rows"][known:])
    return found | {"seconds": time.perf_counter() - began, "fsq_rate": args.fsq_rate}


def tagged(
    rows: list[dict], levels: int, seconds: float, steps: int, compiled: float
) -> list[dict]:
    """The rows with what the fine-tuning was and took."""
    return [r | {"levels": levels, "fine_tune_seconds": seconds, "fine_tune_steps": steps,
                 "fine_tune_compile_seconds": compiled} for r in rows]


def report(rows: list[dict]) -> None:
    """One line a row."""
    for row in rows:
        print(json.dumps(row), flush=True)


def fine_tune(
    model: ModelConfig, e: Experiment, params: Any, batches: Iterator[dict], seconds: float,
    share: float,
) -> tuple[Any, float, int, float]:
    """-> (parameters, seconds of training, steps, seconds of compilation).

    A fresh optimiser at `share` of the run's learning rates, by the run's schedule; `params` are
    left as they are.
    """
    o = e.optimizer
    slow = dataclasses.replace(
        o, learning_rate=share * o.learning_rate, muon_learning_rate=share * o.muon_learning_rate)
    began = time.perf_counter()

    @jax.jit
    def start(params):
        copy = jax.tree.map(jnp.copy, params)  # the step donates its state
        return TrainState(
            step=jnp.zeros((), jnp.int32), params=copy, opt_state=make_optimizer(slow).init(copy),
            average=jax.tree.map(jnp.copy, copy) if e.train.ema else None,
            key=jax.random.key_data(jax.random.key(e.seed)))

    state = start(params)
    step = jax.jit(make_train_step(model, slow, e.train), donate_argnums=0).lower(
        state, next(batches), jnp.float32(0)).compile()
    jax.block_until_ready(state)
    compiled, since, steps, sums = time.perf_counter() - began, time.perf_counter(), 0, None
    while (clock := time.perf_counter() - since) < seconds:
        state, new = step(state, next(batches), jnp.float32(clock / seconds))
        if sums is not None:
            jax.block_until_ready(sums["nll"])  # one step ahead of the device, no more
        sums, steps = new, steps + 1
    jax.block_until_ready(state)
    return state.params, time.perf_counter() - since, steps, compiled


def stream(rows: np.ndarray, gpt2: str) -> bytes:
    """UTF-8 of the windows' tokens in a row; end ids stand for nothing."""
    return Gpt2Tokenizer(gpt2).decode(rows.ravel()).encode("utf-8")


def fill(row: dict, tokens: str, gpt2: str) -> dict:
    """The run's row with the text streams' bits per token: the same windows from `tokens`.

    Raises `UserError` when the row has no bits or the arrays are not those of the run.
    """
    found = row.get("bits")
    if not found:
        raise UserError("--row has no bits: run benchmarks.record.run with --bits")
    length = row["L"]
    test = windows(array(Path(tokens) / "test.npy"), length, found["tokens"] // length)
    if test.size != found["tokens"]:
        raise UserError(f"--tokens: test.npy has {test.size} tokens in windows, the row scored "
                        f"{found['tokens']}; give the arrays of the run")
    return row | {"bits": found | bits.text_bits(stream(test, gpt2), test.size)}


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--row", required=True, help="JSON of benchmarks.record.run --bits; rewritten")
    p.add_argument("--tokens", required=True, help="folder of the run's token arrays")
    p.add_argument("--gpt2", required=True, help="folder with encoder.json and vocab.bpe")
    a = p.parse_args(arguments)
    try:
        try:
            row = json.loads(Path(a.row).read_text())
        except (OSError, ValueError):
            raise UserError(f"--row: cannot read {a.row}") from None
        row = fill(row, a.tokens, a.gpt2)
        write(a.row, json.dumps(row, indent=1))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps({k: row["bits"][k] for k in STREAMS}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
