"""What a bank of a thousand experts costs, by bigram models alone, and what ten thousand would.

    python -m benchmarks.continual.scale --data DATA --out results/continual_scale.json

Counts a bigram model of each of 1,000 narrow domains (`benchmarks.continual.narrow`), mounts them
in random orders and routes held-out windows among them; a law of the error is fitted on the first
quarter and tried on the rest.  Times are of the seconds that the work took on this machine.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.continual.narrow import narrow
from benchmarks.results import ROOT, answered, commit, write
from benchmarks.settings_file import load
from cr_jax import config as settings
from cr_jax import models
from cr_jax.bank import pretrained
from cr_jax.bank.bank import ExpertBank
from cr_jax.scoring import bigram
from cr_jax.studies.continual import growth
from cr_jax.studies.continual.flips import rates
from cr_jax.studies.continual.rules import RULES, Rule
from cr_jax.studies.continual.scores import Scores
from cr_jax.studies.continual.stages import walk

WINDOW = 128
HELD_OUT = 8  # windows of a domain for valid, and as many for test
SIZES = (64, 250, 1000)
PLANNED = 10_000
RULE_NAMES = ("plain", "lead_0.25", "lead_0.5")
BATCH = 256


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes --out; the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", type=Path, required=True, help="root of the corpora")
    p.add_argument("--experts", type=int, default=1000)
    p.add_argument("--orders", type=int, default=3)
    p.add_argument("--out", required=True)
    return answered("benchmarks.continual.scale", run, p.parse_args(arguments), arguments)


def run(a: argparse.Namespace, command: str) -> None:
    bank = ExpertBank.load(pretrained.folder(), names=())
    cut = {n: windows(bank.tokenizer, texts) for n, texts in narrow(a.data, a.experts).items()}
    print(f"{len(cut)} domains cut", file=sys.stderr)
    size = bank.model.vocab_size
    began = time.perf_counter()
    counted = {n: bigram.count(c[0], np.ones(c[0].shape, bool), size) for n, c in cut.items()}
    seconds = (time.perf_counter() - began) / len(counted)
    costs = {str(k): cost(list(counted.values())[:k], cut) for k in SIZES if k <= len(counted)}
    print(json.dumps(costs, indent=1), file=sys.stderr)
    table = bigram.table(counted.values())
    scores = Scores(
        tuple(cut), *({n: x / WINDOW for n, x in score(table, cut, i).items()} for i in (1, 2))
    )
    found = {
        "experts": len(cut),
        "window": WINDOW,
        "train_tokens": float(np.mean([c[0].size for c in cut.values()])),
        "count_seconds": seconds,
        "rules": grown(scores, [r for r in RULES if r.name in RULE_NAMES], a.orders),
        "sizes": costs,
        "planned": planned(costs, seconds),
        "commit": commit(),
        "command": command.replace(str(a.data), "DATA").replace(str(Path(a.out).parent), "results"),
        "device": jax.devices()[0].device_kind,
    }
    write(a.out, json.dumps(found, indent=1) + "\n")


def windows(tokenizer: Any, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(train, valid, test) windows [N, L] of a domain, the held-out ones its last."""
    ids = np.concatenate([tokenizer.encode(t) for t in texts]).astype(np.int32)
    rows = ids[: len(ids) // WINDOW * WINDOW].reshape(-1, WINDOW)
    held = min(HELD_OUT, max(1, len(rows) // 5))
    return rows[: -2 * held], rows[-2 * held : -held], rows[-held:]


def score(table: Any, cut: dict, split: int) -> dict[str, np.ndarray]:
    """nats of each domain's windows by every bigram model [E, N]."""
    rows = np.concatenate([c[split] for c in cut.values()])
    found = []
    for i in range(0, len(rows), BATCH):
        part = np.pad(rows[i : i + BATCH], ((0, max(0, i + BATCH - len(rows))), (0, 0)))
        nats = bigram.residuals(table, part, np.ones(part.shape, bool))
        found.append(np.asarray(nats)[:, : len(rows) - i])
    cuts = np.cumsum([len(c[split]) for c in cut.values()])[:-1]
    return dict(zip(cut, np.split(np.concatenate(found, 1), cuts, axis=1), strict=True))


def cost(counted: Sequence[Any], cut: dict) -> dict[str, float]:
    """Of a bank of so many: bytes and seconds of its table, and of choosing candidates by it."""
    began = time.perf_counter()
    table = jax.block_until_ready(bigram.table(counted))
    made = time.perf_counter() - began
    rows = np.concatenate([c[2] for c in cut.values()])[:BATCH]
    mask = np.ones(rows.shape, bool)
    jax.block_until_ready(bigram.residuals(table, rows, mask))
    took = []
    for _ in range(3):
        began = time.perf_counter()
        jax.block_until_ready(bigram.residuals(table, rows, mask))
        took.append(time.perf_counter() - began)
    return {
        "table_bytes": sum(x.nbytes for x in table),
        "table_seconds": made,
        "candidates_seconds_per_1000_tokens": min(took) / rows.size * 1000,
        "stored_bytes": sum(x.nbytes for b in counted for x in b),
    }


def grown(scores: Scores, rules: Sequence[Rule], orders: int) -> dict[str, Any]:
    """{rule: curve at powers of two, flips per mount, BWT, and the law: fitted on all, and fitted
    on the first quarter with what it says of the last stage}."""
    drawn = [
        tuple(scores.names[i] for i in np.random.default_rng(s).permutation(len(scores.names)))
        for s in range(orders)
    ]
    ordered = [scores.ordered(order) for order in drawn]
    found = {}
    for rule in rules:
        histories = [walk(s, rule) for s in ordered]
        curve = growth.curve(histories)
        experts = np.array(curve["experts"])
        errors = np.array([1 - growth.accuracy(h)[1:] for h in histories])
        early = experts <= len(scores.names) // 4
        law, first = growth.law(experts, errors), growth.law(experts[early], errors[:, early])
        shown = [int(k) for k in 2 ** np.arange(1, 20) if k <= experts[-1]] + [int(experts[-1])]
        at = [k - 2 for k in dict.fromkeys(shown)]
        found[rule.name] = {
            **{k: [curve[k][i] for i in at] for k in ("experts", "accuracy")},
            "flips_per_mount": float(np.mean([rates(h)[0].mean() for h in histories])),
            "lost_per_mount": float(np.mean([rates(h)[1].mean() for h in histories])),
            "bwt": float(
                np.mean([(h.routed[-1] - h.routed.diagonal())[:-1].mean() for h in histories])
            ),
            "law": law,
            "law_of_first_quarter": first,
            "error": float(errors[:, -1].mean()),
            "error_spread": float(np.ptp(errors[:, -1])),
            "error_predicted": growth.predicted(first, int(experts[-1])) if first["c"] else None,
            f"error_at_{PLANNED}": growth.predicted(law, PLANNED) if law["c"] else None,
        }
        print(rule.name, json.dumps(found[rule.name]), file=sys.stderr)
    return found


def planned(costs: dict[str, dict[str, float]], count_seconds: float) -> dict[str, Any]:
    """Ten thousand experts, by what grows with their number: everything here does so linearly."""
    largest = max(costs, key=int)
    factor, own = PLANNED / int(largest), costs[largest]
    experts = {"1.2M": _size("configs/pretrained.py"), "25M": _size("configs/bank.py")}
    return {
        "experts": PLANNED,
        **{k: v * factor for k, v in own.items()},
        "count_seconds_per_mount": count_seconds,
        "expert_bytes": {
            name: {"int8": n * PLANNED, "float32": 4 * n * PLANNED} for name, n in experts.items()
        },
    }


def _size(file: str) -> int:
    """Parameters of an expert of a config."""
    e = settings.build(load(str(ROOT / file)).to_dict())
    return models.count_parameters(dataclasses.replace(e.model, vocab_size=e.tokenizer.vocab_size))


if __name__ == "__main__":
    sys.exit(main())
