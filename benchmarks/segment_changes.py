"""Change points of the score vectors, by `ruptures`, as a baseline -> results/segments.json.

    python -m benchmarks.segment_changes --config configs/pretrained.py \
        --config.data.root=DATA [--bank BANK] --out results/segments.json

The texts of `benchmarks.segments`; every token is the vector of all experts' nats for it, in
windows that are read once.  `ruptures.KernelCPD` (linear kernel, PELT: changes of the mean) cuts
where the vectors change, and each piece goes to the expert that is cheapest on it.  The penalty is
the one with the highest boundary F1 on splices of validation text.  Adds its row to "baselines" of
--out and its origin as "changes"; other keys stay.  Needs `pip install ruptures`.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from benchmarks import results
from benchmarks.segments import costs_of, windows
from cr_jax import config as settings
from cr_jax.bank import ExpertBank, pretrained
from cr_jax.config.command_line import load
from cr_jax.errors import UserError
from cr_jax.studies import segments

NAME = "change points (ruptures)"
PENALTIES = tuple(10.0 * 2**k for k in range(12))


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes --out; the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--config", required=True)
    p.add_argument("--bank", default=str(pretrained.folder()))
    p.add_argument("--out", required=True)
    a, overrides = p.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    run = lambda a, command: report(a, overrides, command)
    return results.answered("benchmarks.segment_changes", run, a, arguments)


def report(a, overrides: Sequence[str], command: str) -> dict:
    """What --out holds afterwards."""
    e = settings.build(load(a.config, overrides).to_dict())
    bank, old = ExpertBank.load(a.bank, lms=False), results.written(a.out)
    began = time.perf_counter()
    fit = segments.fitting_texts(windows(e, bank, "valid"), e.seed)
    price = lambda text: costs_of(bank, text, segments.WAYS[segments.ONCE])
    costs = [price(text) for text in fit]
    score = lambda penalty: segments.mean_metrics([cut(c, penalty) for c in costs], fit)
    best = max(PENALTIES, key=lambda penalty: score(penalty)["boundary_f1"])
    test, by_length = windows(e, bank, "test"), {}
    for lengths in segments.LENGTHS:
        texts = segments.splices(test, lengths, e.seed + 1, segments.TEXTS)
        cuts = [cut(price(text), best) for text in texts]
        by_length[f"{lengths[0]}-{lengths[1]}"] = segments.mean_metrics(cuts, texts)
    long = [by_length[f"{a}-{b}"] for a, b in segments.LENGTHS[1:]]
    both = {k: float(np.mean([row[k] for row in long])) for k in long[0]}
    old.setdefault("baselines", {})[NAME] = {"splices": both, "by_length": by_length}
    old["changes"] = {
        "penalty": best,
        "seconds": round(time.perf_counter() - began, 1),
        "command": command.replace(str(e.data.root), "DATA"),
        "commit": results.commit(),
    }
    results.write(a.out, json.dumps(old, indent=1) + "\n")
    print({k: round(v, 4) for k, v in both.items()})
    return old


def cut(cost: Float[np.ndarray, "E T"], penalty: float) -> Int[np.ndarray, " T"]:
    """The expert of each token: the cheapest one of each piece between two change points.
    `UserError` without `ruptures`."""
    try:
        import ruptures
    except ImportError:
        raise UserError("change points need the package ruptures: pip install ruptures") from None
    detector = ruptures.KernelCPD(kernel="linear", min_size=min(segments.MINIMA))
    edges = detector.fit(np.ascontiguousarray(cost.T, np.float64)).predict(pen=penalty)
    return segments.cheapest(cost, [0, *map(int, edges)])


if __name__ == "__main__":
    raise SystemExit(main())
