"""What classifiers that see all known domains make of a domain that is left out: the ceiling of the
study `witnesses`.

    python -m benchmarks.bank.ceiling --config configs/modular.py --workdir runs/ceiling \\
        --config.data.root=DATA --jobs 2 --out results/unknown_ceiling.json

Each domain of the config is left out in turn, and the baseline is fitted anew on the training text
of the others (`cr_jax.studies.baselines`: a linear n-gram classifier, Gaussians on a frozen
embedding).  Its windows are the study's: known test windows of the others against test windows of
the domain, thresholds from the others' validation windows.  Experts never see each other's text.
CPU only.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.results import answered, commit, versions, write
from cr_jax import config as settings
from cr_jax.config.command_line import load
from cr_jax.data import experiment_text
from cr_jax.host.files import expanded
from cr_jax.studies import baselines
from cr_jax.studies.baselines.interface import Budget
from cr_jax.studies.baselines.unknown import novelty_score
from cr_jax.studies.common import MOST_WINDOWS
from cr_jax.studies.unknown.detection import auroc, fpr_at_95, limit
from cr_jax.studies.unknown.leave_out import ALARM, FIGURES

BASELINES = ("ngram", "embedding")
FALSE_ALARM = 0.01


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes --out; the exit status."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--config", required=True)
    p.add_argument("--workdir", required=True, help="for the tokenizer and tokens")
    p.add_argument("--tokens", type=int, default=4_000_000, help="of a domain, for the n-grams")
    p.add_argument("--windows", type=int, default=1500, help="of a domain, for the embedding")
    p.add_argument("--jobs", type=int, default=1, help="domains that are left out at a time")
    p.add_argument("--out", required=True)
    a, a.overrides = p.parse_known_args(arguments)
    return answered("benchmarks.bank.ceiling", run, a, arguments)


def run(a: argparse.Namespace, command: str) -> None:
    """Measures and writes."""
    names = list(_text(a)[1].train)
    pool = concurrent.futures.ProcessPoolExecutor(a.jobs, multiprocessing.get_context("spawn"))
    cells: dict = {}
    with pool:
        for name, found in zip(names, pool.map(functools.partial(left_out, a), names), strict=True):
            print(name, json.dumps(found), flush=True)
            for kind, cell in found.items():
                cells.setdefault(kind, {})[name] = cell
    mean = lambda of, key: float(np.mean([c[key] for c in of.values()]))
    write(
        a.out,
        json.dumps(
            {
                "ceiling": {
                    kind: {k: mean(of, k) for k in (*FIGURES, ALARM)} | {"per_domain": of}
                    for kind, of in cells.items()
                },
                "tokens": a.tokens,
                "embedding_windows": a.windows,
                "command": command.replace(str(_experiment(a).data.root), "DATA"),
                "commit": commit(),
                "versions": versions(),
            },
            indent=1,
        )
        + "\n",
    )


def left_out(a: argparse.Namespace, name: str) -> dict[str, dict[str, float]]:
    """{"BASELINE, RULE": figures} of one domain, by baselines that never saw its text."""
    e, text = _text(a)
    known = tuple(n for n in text.train if n != name)
    train = {n: text.train[n] for n in known}
    e = dataclasses.replace(
        e, data=dataclasses.replace(e.data, domains={n: e.data.domains[n] for n in known})
    )
    text, length = dataclasses.replace(text, train=train), e.model.window
    windows = {
        "valid": [text.valid[n].spread(MOST_WINDOWS) for n in known],
        "test": [text.test[n].spread(MOST_WINDOWS) for n in known],
        "strange": [text.test[name].spread(MOST_WINDOWS)],
    }
    budget, found = Budget(ngram_tokens=a.tokens, embedding_windows=a.windows), {}
    for baseline in BASELINES:
        began = time.perf_counter()
        fitted = baselines.fit(baseline, text, e, (length,), budget)
        scores = {
            part: [fitted.predict(w.tokens, w.mask, (length,))[0] for w in of]
            for part, of in windows.items()
        }
        own = np.array([np.quantile(s[k], [0.5, 0.05]) for k, s in enumerate(scores["valid"])])
        counts = {part: [w.mask.sum(1) for w in of] for part, of in windows.items()}
        novel = {
            part: novelty_score(
                np.concatenate(of, axis=1), np.concatenate(counts[part]), fitted.unit, own
            )
            for part, of in scores.items()
        }
        for rule, strange in novel["strange"].items():
            test, threshold = novel["test"][rule], limit(novel["valid"][rule], FALSE_ALARM)
            found[f"{baseline}, {rule}"] = {
                "auroc": auroc(test, strange),
                "fpr95": fpr_at_95(test, strange),
                "reject_at_1pct": float(np.mean(strange > threshold)),
                ALARM: float(np.mean(test > threshold)),
                "seconds": time.perf_counter() - began,
            }
    return found


def _experiment(a) -> settings.Experiment:
    return settings.build(load(a.config, a.overrides))


def _text(a):
    e = _experiment(a)
    return e, experiment_text.prepare(e, Path(expanded(a.workdir)), compare=False)


if __name__ == "__main__":
    sys.exit(main())
