"""One timed run of the record: seconds of training until TRA on `valid` reaches 99.47 %.

    python -m benchmarks.record.run --tokens FOLDER --seconds 150 --seed 0 --out run.json

FOLDER holds train*.npy, valid.npy, test.npy and wikitext.npy (GPT-2 ids, uint16), made by
`benchmarks/record/tokens.py`.  The rules are in README.md beside this file.
"""

import argparse
import functools
import json
import runpy
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from benchmarks.record import bits
from benchmarks.record.tokens import array, windows
from benchmarks.results import commit, write
from cr_jax import models
from cr_jax.config import build, to_dict
from cr_jax.config.files import blame, check_file
from cr_jax.errors import UserError
from cr_jax.models import objective
from cr_jax.training.step import init_state, make_train_step

TARGET = 0.9947  # Paper 2512.16963, TRA on held-out code
VALID_WINDOWS = 2048  # 1,048,576 tokens, evenly spread
RANDOM_WINDOWS = 6193
GPT2_IDS = 50257


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = parse(arguments)
    try:
        row = run(args)
        write(args.out, json.dumps(row, indent=1))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps({k: v for k, v in row.items() if k not in ("log", "settings")}), flush=True)
    return 0


def run(args: argparse.Namespace) -> dict:
    """Trains for `args.seconds` and evaluates: the run's JSON row.  Raises `UserError`."""
    check(args)
    config = change(load(args.config), args.set)
    config.train.update(tokens=0, steps=0, seconds=args.seconds)
    e = build(config)
    model, window = e.model, e.model.window
    train = [array(p, "r") for p in training_files(Path(args.tokens), args.train)]
    if not train or min(len(t) for t in train) <= window:
        raise UserError(f"--tokens: {args.tokens} needs {args.train} of more than {window} tokens "
                        "each; make them with benchmarks.record.tokens")
    sets = {}
    for n in args.sets.split(","):
        ids = array(Path(args.tokens) / f"{n}.npy")
        sets[n] = windows(ids, window, VALID_WINDOWS * (n == "valid"))
    for name, found in sets.items():
        if not len(found) or found.max() >= model.vocab_size:
            raise UserError(f"--tokens: {name}.npy needs a whole window of {window} tokens with "
                            f"ids below model.vocab_size={model.vocab_size}")
    rng = np.random.default_rng(args.seed)
    sets["random"] = rng.integers(
        0, min(GPT2_IDS, model.vocab_size), (args.random_windows, window))
    batches = draw(train, e.train.batch, window, rng)
    bits.check(args, sets)

    began = time.perf_counter()
    state = jax.jit(functools.partial(init_state, model, e.optimizer, e.train))(
        jax.random.key(args.seed))
    step = jax.jit(make_train_step(model, e.optimizer, e.train), donate_argnums=0).lower(
        state, next(batches), jnp.float32(0)).compile()
    score = evaluator(model)
    score(state.params, sets["valid"][:args.eval_batch * 2], args.eval_batch)
    compiled = time.perf_counter() - began

    clock, steps, sums, log, reached, next_look = 0.0, 0, None, [], None, args.look
    since = time.perf_counter()
    while True:
        clock_now = clock + time.perf_counter() - since
        if clock_now >= args.seconds:
            break
        state, new = step(state, next(batches), jnp.float32(clock_now / args.seconds))
        steps += 1
        if sums is not None:
            jax.block_until_ready(sums["nll"])  # one step ahead of the device, no more
        sums = new
        if clock_now >= next_look and clock_now + 1 < args.seconds:
            jax.block_until_ready(state)
            clock += time.perf_counter() - since
            next_look += args.look
            reached = look(log, score, state, sets, args, clock, steps, sums, reached)
            since = time.perf_counter()
    jax.block_until_ready(state)
    clock += time.perf_counter() - since
    reached = look(log, score, state, sets, args, clock, steps, sums, reached)
    found = {n: score(state.params, s, args.eval_batch) for n, s in sets.items()}
    tokens = steps * e.train.batch * window
    row = {
        "config": args.config, "changes": args.set, "bottleneck": model.bottleneck, "L": window,
        "M": model.latents, "d_z": model.d_latent, "params": models.count_parameters(model),
        "seed": args.seed, "train_tokens": tokens, "train_seconds": clock,
        "compile_seconds": compiled, "tokens_per_s": tokens / clock, "steps": steps,
        "device": jax.devices()[0].device_kind, "seconds_to_99_47": reached,
        "tra": {n: f["tra"] for n, f in found.items()},
        "nll": {n: f["nll"] for n, f in found.items()},
        "window_exact": {n: f["window_exact"] for n, f in found.items()},
        "tokens": {n: f["tokens"] for n, f in found.items()},
        "majority_tra": {n: objective.majority_rate(s, np.ones(s.shape, bool))
                         for n, s in sets.items()},
        "log": log, "commit": args.commit or commit(), "jax": jax.__version__,
        "settings": to_dict(e.model) | {"optimizer": to_dict(e.optimizer),
                                        "train": to_dict(e.train)}}
    if args.bits:
        params = state.params
        del state  # the optimiser's memory
        write(args.out, json.dumps(row, indent=1))  # what follows is not the run's
        row["bits"] = bits.measure(e, params, sets, batches, args)
    return row


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--tokens", required=True, help="folder of token arrays")
    p.add_argument("--train", default="train*.npy", help="which of them are trained on")
    p.add_argument("--sets", default="valid,test,wikitext", help="which are evaluated, valid first")
    p.add_argument("--config", default="configs/cr_87m.py")
    p.add_argument("--set", nargs="*", default=[], metavar="GROUP.FIELD=VALUE")
    p.add_argument("--seconds", type=float, required=True, help="of training; the rate falls to 0")
    p.add_argument("--look", type=float, default=20.0, help="seconds between looks at valid")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--eval-batch", type=int, default=128)
    p.add_argument("--random-windows", type=int, default=RANDOM_WINDOWS)
    p.add_argument("--commit", default="", help="of the code, where it runs outside git")
    p.add_argument("--out", default="record.json")
    bits.add_arguments(p)
    return p.parse_args(arguments)


def check(args: argparse.Namespace) -> None:
    """Raises `UserError` on options that cannot be meant."""
    if not (args.seconds > 0 and args.look > 0):
        raise UserError("--seconds and --look must be above 0")
    if args.eval_batch < 1 or args.random_windows < 1 or args.seed < 0:
        raise UserError("--eval-batch and --random-windows must be at least 1, --seed 0 or more")
    if "valid" not in args.sets.split(","):
        raise UserError(f"--sets: '{args.sets}' must have valid, on which training is judged")


def training_files(folder: Path, pattern: str) -> list[Path]:
    """Sorted.  Raises `UserError` on a pattern that is none."""
    try:
        return sorted(folder.glob(pattern))
    except (ValueError, NotImplementedError):  # empty, or with a root of its own
        raise UserError(f"--train: '{pattern}' must be a pattern of names in --tokens") from None


def load(path: str) -> ml_collections.ConfigDict:
    """`get_config()` of a file in configs/, of `FILE:VARIANT` its variant.  Raises `UserError`."""
    check_file(path)
    file, _, variant = path.partition(":")
    try:
        return runpy.run_path(file)["get_config"](*([variant] if variant else []))
    except Exception as error:  # whatever the file does
        said = blame(path, error) or f"--config={path}: {' '.join(str(error).split())}"
        raise UserError(said) from error


def change(
    config: ml_collections.ConfigDict, changes: Sequence[str]
) -> ml_collections.ConfigDict:
    """Applies `group.field=value`.  Raises `UserError` naming a change that cannot be meant."""
    for text in changes:
        name, _, value = text.partition("=")
        group, _, field = name.partition(".")
        if not isinstance(config.get(group), ml_collections.ConfigDict) or (
                field not in config[group]) or not value:
            raise UserError(f"--set: '{text}' must be GROUP.FIELD=VALUE with a setting that exists")
        kind = type(config[group][field])
        try:
            if kind is bool and value not in ("True", "False"):
                raise ValueError
            config[group][field] = value == "True" if kind is bool else kind(value)
        except (TypeError, ValueError):
            raise UserError(f"--set: {name} must be {kind.__name__}, got {value}") from None
    return config


def draw(
    train: list[np.ndarray], batch: int, length: int, rng: np.random.Generator
) -> Iterator[dict]:
    """Endless batches of windows at random offsets."""
    starts = np.cumsum([0] + [len(t) - length for t in train])
    while True:
        at = rng.integers(0, starts[-1], batch)
        shard = np.searchsorted(starts, at, side="right") - 1
        rows = [train[s][a - starts[s]:a - starts[s] + length]
                for s, a in zip(shard, at, strict=True)]
        yield {"tokens": jax.device_put(np.stack(rows).astype(np.int32))}


def evaluator(model):
    """-> score(params, windows [N, L], batch) -> `objective.metrics` over all windows."""
    net = models.Autoencoder(model)

    @jax.jit
    def sums(params, tokens, mask):
        h, _ = net.apply(params, tokens)
        scores = objective.token_scores(h, models.head(model, params), tokens, 32768)
        return objective.score_sums(scores, mask)

    def score(params, tokens, batch):
        total = {}
        for i in range(0, len(tokens), batch):
            part = tokens[i:i + batch].astype(np.int32)
            mask = np.arange(batch)[:, None] < np.full((1, tokens.shape[1]), len(part))
            part = np.pad(part, ((0, batch - len(part)), (0, 0)))
            for k, v in jax.device_get(sums(params, part, mask)).items():
                total[k] = total.get(k, 0) + float(v)
        return objective.metrics(total)

    return score


def look(log, score, state, sets, args, clock, steps, sums, reached):
    """Evaluates on valid, off the clock; returns the first clock at which TARGET was met."""
    valid = score(state.params, sets["valid"], args.eval_batch)
    log.append({"seconds": clock, "step": steps, "train_nll": float(sums["nll"] / sums["tokens"]),
                "train_tra": float(sums["correct"] / sums["tokens"]),
                "valid_tra": valid["tra"], "valid_nll": valid["nll"]})
    print(json.dumps(log[-1]), flush=True)
    return reached if reached is not None or valid["tra"] < TARGET else clock


if __name__ == "__main__":
    sys.exit(main())
