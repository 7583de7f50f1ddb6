"""Perplexity of language models with compressed positions beside plain ones, context by context.

    python -m benchmarks.long_context --data-root DATA --workdir runs/long_context \\
        --out results/long_context.json
    python -m benchmarks.long_context --small --workdir runs/long_small     # minutes on a CPU

A cell is an arm of configs/long_context.py at one context: one model of each corpus, trained from
fresh weights by `modular.training_stage` on windows of so many tokens, the same rows for all arms,
its rate falling to zero; then the perplexity per token of test windows of the same length, each
read from its own beginning.  A finished cell is read from --workdir and not trained again; --out is
rewritten after each:

    perplexity {arm: {context: ppl}} of the first corpus; perplexity_by_corpus the same of each
    gap        corpus -> arm -> context -> perplexity over plain's, less 1
    claims     what was claimed before, and whether it holds: true, false, or null where it is not
               measured
    cells      tokens, seconds, parameters and FLOPs of each

Other keys of --out (`benchmarks.speed.long_context`) stay.
"""

import argparse
import dataclasses
import importlib.util
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import results
from cr_jax import config as settings
from cr_jax.config import Experiment
from cr_jax.data.experiment_text import Corpora, prepare, sized
from cr_jax.errors import UserError
from cr_jax.modular.score import stacked, token_nats
from cr_jax.modular.training_stage import Finished, Member, Stage, run_stage

FILE = results.ROOT / "configs/long_context.py"
# name -> (arm, other arm, context, largest gap); a gap of 0: better than the other.
CLAIMS = {
    "tlin within 3 % of plain at 1,024": ("tlin", "plain", 1024, 0.03),
    "tconst within 3 % of plain at 1,024": ("tconst", "plain", 1024, 0.03),
    "tlin within 5 % of plain at 2,048": ("tlin", "plain", 2048, 0.05),
    "tconst within 5 % of plain at 2,048": ("tconst", "plain", 2048, 0.05),
    **{
        f"{arm} better than the sliding window at {context:,}": (arm, "sliding", context, 0.0)
        for arm in ("tlin", "tconst")
        for context in (1024, 2048)
    },
    "some form within 1 % of plain at 1,024 (goal)": ("", "plain", 1024, 0.01),
}
SMALL = dict(contexts=(16, 32, 64), tokens=24 * 16 * 64, step=1024, windows=16 * 64)
FULL = dict(contexts=(1024, 2048, 512, 4096), tokens=900 * 32768, step=32768, windows=1 << 19)


def main(argv: Sequence[str] | None = None) -> int:
    return results.answered("benchmarks.long_context", run, _parser().parse_args(argv), argv)


def run(args, command: str) -> dict:
    """All cells, context by context, as long as --seconds allow; what --out holds."""
    size = SMALL if args.small else FULL
    file, contexts = _config_file(), args.contexts or size["contexts"]
    tokens, began = args.tokens or size["tokens"], time.monotonic()
    if unknown := set(args.arms) - set(file.ARMS):
        raise UserError(f"--arms: no arm {', '.join(sorted(unknown))}; there are {list(file.ARMS)}")
    folder, cells = Path(args.workdir).expanduser().resolve(), {}
    folder.mkdir(parents=True, exist_ok=True)
    found, longest = {}, 0.0
    for context in contexts:
        text = None
        for arm in args.arms:
            spent = time.monotonic() - began
            if args.seconds and spent + longest > args.seconds:
                print(f"{arm} at {context}: left out, {spent:.0f} of {args.seconds:.0f} s are gone")
                continue
            e = _experiment(file, arm, context, size, args)
            text = text or prepare(e, folder, print, compare=False)
            start = time.monotonic()
            trained = _train(e, text, f"{arm}_{context}", tokens, folder)
            ppl = _perplexity(e, text, trained)
            took = time.monotonic() - start
            longest = max(longest, took)
            for corpus, value in ppl.items():
                found.setdefault(corpus, {}).setdefault(arm, {})[str(context)] = value
            cells[f"{arm} {context}"] = {"lm": settings.to_dict(trained.lm), **trained.note}
            shown = "  ".join(f"{corpus} {value:.2f}" for corpus, value in ppl.items())
            print(f"{arm} at {context}: {shown}  ({took:.0f} s)", flush=True)
            _write(args.out, whole := _result(found, cells, command))
    return whole if cells else {}


def _experiment(file, arm: str, context: int, size: Mapping[str, Any], args) -> Experiment:
    """The arm's settings at one context."""
    config = file.get_config("small" if args.small else arm)
    if args.small:
        file.ARMS[arm](config)
    if args.data_root:
        config.data.root = args.data_root
    if args.tokens_folder:
        config.data.tokens = args.tokens_folder
        # Trained on all corpora of the folder, of which --corpora may leave out some.
        config.tokenizer.folder = str(Path(args.tokens_folder) / "tokenizer")
    raw = config.to_dict()
    if args.corpora:
        if unknown := set(args.corpora) - set(raw["data"]["domains"]):
            raise UserError(f"--corpora: the config has no {', '.join(sorted(unknown))}")
        raw["data"]["domains"] = {n: raw["data"]["domains"][n] for n in args.corpora}
    e = settings.build(raw)
    windows = max(1, size["windows"] // context)
    batch = max(1, size["step"] // context)
    e = dataclasses.replace(
        e,
        model=dataclasses.replace(e.model, window=context),
        eval=dataclasses.replace(e.eval, windows=windows, calibration_documents=0),
        modular=dataclasses.replace(e.modular, window=context, branch_batch=batch, looks=0),
    )
    if context % e.lm.chunk:
        raise UserError(f"--contexts: {context} is no multiple of config.lm.chunk={e.lm.chunk}")
    return e


def _train(e: Experiment, text: Corpora, name: str, tokens: int, folder: Path) -> Finished:
    """One model of each corpus, side by side."""
    members = {n: Member(source, source, tokens) for n, source in text.train.items()}
    lm = sized(e.lm, text.tokenizer)
    stage = Stage(name, lm, members, e.modular.branch_batch, e.lm_optimizer)
    return run_stage(stage, e, text.tokenizer, folder / "lm", print)


def _perplexity(e: Experiment, text: Corpora, trained: Finished) -> dict[str, float]:
    """Corpus -> exp of the mean nats of its test tokens under its own model."""
    found = {}
    for corpus, params in trained.params.items():
        windows = text.test[corpus]
        rows = max(1, min(32, (1 << 15) // windows.tokens.shape[1]))
        nats = token_nats(trained.lm, stacked([params]), windows.tokens, rows=rows)[0]
        found[corpus] = float(np.exp(np.mean(nats[windows.mask], dtype=np.float64)))
    return found


def claims(perplexity: Mapping[str, Mapping[str, float]]) -> dict[str, bool | None]:
    """Whether each of CLAIMS holds of {arm: {context: ppl}}; None: not measured."""
    found: dict[str, bool | None] = {}
    for name, (arm, other, context, gap) in CLAIMS.items():
        of = {a: by[str(context)] for a, by in perplexity.items() if str(context) in by}
        own = [of[a] for a in of if (a == arm if arm else a.startswith(("tlin", "tconst")))]
        if not own or other not in of:
            found[name] = None
        else:
            found[name] = min(own) < of[other] * (1 + gap)
    return found


def _result(found, cells, command: str) -> dict:
    gap = {
        corpus: {
            arm: {c: ppl / by_arm["plain"][c] - 1 for c, ppl in by.items() if c in by_arm["plain"]}
            for arm, by in by_arm.items()
        }
        for corpus, by_arm in found.items()
        if "plain" in by_arm
    }
    return {
        "perplexity": next(iter(found.values())),
        "perplexity_by_corpus": found,
        "gap": gap,
        "claims": {corpus: claims(by_arm) for corpus, by_arm in found.items()},
        "cells": cells,
        "perplexity_provenance": {
            "command": command,
            "commit": results.commit(),
            "versions": results.versions(),
            "device": jax.devices()[0].device_kind,
        },
    }


def _write(path: str, new: Mapping[str, Any]) -> None:
    """Into the JSON that is there: its other keys stay."""
    if path:
        old = results.written(path)
        results.write(path, json.dumps({**old, **new}, indent=1) + "\n")


def _config_file():
    spec = importlib.util.spec_from_file_location("long_context_config", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words = lambda text: tuple(x for x in text.split(",") if x)
    p.add_argument("--workdir", required=True, help="cells, tokenizer and cached tokens")
    p.add_argument("--small", action="store_true", help="tiny models on sample texts, for a CPU")
    p.add_argument("--data-root", default="", help="replaces {root} in source specs")
    p.add_argument("--tokens-folder", default="", help="a folder of `cr-jax tokenize`, no text")
    p.add_argument(
        "--arms",
        type=words,
        default=("plain", "sliding", "tlin", "tconst", "recurrent", "tlin_one", "tconst_one")
        + ("grouped",),
    )
    p.add_argument("--corpora", type=words, default=(), help="of the config's; empty: all")
    p.add_argument("--contexts", type=lambda text: tuple(map(int, words(text))), default=())
    p.add_argument("--tokens", type=int, default=0, help="that each model reads; 0: as in the note")
    p.add_argument("--seconds", type=float, default=0, help="begin no cell that would end later")
    p.add_argument("--out", default="", help="write the result as JSON")
    return p


if __name__ == "__main__":
    sys.exit(main())
