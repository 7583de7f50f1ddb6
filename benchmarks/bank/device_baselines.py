"""Baselines `gate` and `lm` on the folder that `inputs.py` makes, beside the bank of `run.py`.

    python -m benchmarks.bank.device_baselines --tokens TOKENS --out baselines.json

As `cr_jax.studies.baselines`, with windows at random offsets in place of Grain's epochs, as the
bank's own training draws them.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import numpy as np

from benchmarks.bank.inputs import draw, read_corpora
from benchmarks.record.run import load
from benchmarks.results import commit, write
from cr_jax.config import build
from cr_jax.studies import baselines
from cr_jax.studies.baselines import interface


class RandomWindows(interface.TrainingText):
    """Training text whose batches are windows at random offsets."""

    def batches(self, batch: int):
        rng = np.random.default_rng(self.seed)
        rows = [np.asarray(c.tokens) for c in self.corpora]
        while True:
            yield {"tokens": draw(rows, rng, batch, self.window)}


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--tokens", required=True)
    p.add_argument("--config", default="configs/bank.py")
    p.add_argument("--gate-seconds", type=float, default=25.0)
    p.add_argument("--lm-seconds", type=float, default=60.0)
    p.add_argument("--steps", type=int, default=1100, help="of lm, unless its seconds end first")
    p.add_argument("--out", required=True)
    a = p.parse_args(arguments)
    config = load(a.config)
    config.train.update(tokens=0, steps=a.steps, loss_chunk=8192)
    e = build(config)
    corpora = read_corpora(Path(a.tokens), list(e.data.domains))
    found = {}
    for name, seconds in (("gate", a.gate_seconds), ("lm", a.lm_seconds)):
        found |= baselines.run(corpora, e, names=(name,), text=RandomWindows,
                               budget=interface.Budget(seconds=seconds), say=print)
        write(a.out, json.dumps({"baselines": found, "device": jax.devices()[0].device_kind,
                                 "commit": commit()}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
