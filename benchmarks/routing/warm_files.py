"""How many files of about 4 kB a second a process routes after its start -> key of a JSON.

    python -m benchmarks.routing.warm_files --config configs/pretrained.py --files 5000 \
        --config.data.root=DATA [--bank BANK] [--exact] --out results/files_warm.json

Files as in `benchmarks.routing.files`, as many of each domain, already read.  `cr_jax.route_many`
routes all of them once, which compiles, and then --repeats times on the clock; the fastest counts.
Tokenising is inside the clock.  --exact: all experts score all windows.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence

import jax
import numpy as np

from benchmarks.results import answered, commit, versions, write
from benchmarks.routing.files import pieces
from cr_jax import config as settings
from cr_jax.bank import ExpertBank, pretrained
from cr_jax.config.command_line import load
from cr_jax.routing.many import route_many


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes --out; the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--config", required=True)
    p.add_argument("--bank", default=str(pretrained.folder()))
    p.add_argument("--files", type=int, default=5000)
    p.add_argument("--exact", action="store_true")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--out", required=True)
    a, overrides = p.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    return answered(
        "benchmarks.routing.warm_files", lambda *of: report(*of, overrides), a, arguments
    )


def report(a, command: str, overrides: Sequence[str]) -> dict:
    """What --out holds."""
    e = settings.build(load(a.config, overrides).to_dict())
    bank, domains = ExpertBank.load(a.bank), e.data.domains
    each = -(-a.files // len(domains))
    texts, own = [], []
    for name, domain in domains.items():
        found = pieces(domain.test, e.data.root, each)
        texts += [found[i % len(found)] for i in range(each)]
        own += [name] * each
    order = np.random.default_rng(0).permutation(len(texts))[: a.files]
    texts, own = [texts[i] for i in order], [own[i] for i in order]
    seconds = []
    for _ in range(1 + a.repeats):
        begun = time.perf_counter()
        routes = route_many(bank, texts, exact=a.exact)
        seconds.append(time.perf_counter() - begun)
        print(f"{len(texts):,} files in {seconds[-1]:.2f} s", flush=True)
    best = min(seconds[1:])
    record = {
        "files": len(texts),
        "exact": a.exact,
        "files_per_s": round(len(texts) / best, 1),
        "megabytes_per_s": round(sum(len(t.encode()) for t in texts) / best / 1e6, 2),
        "seconds_first": round(seconds[0], 3),
        "seconds": [round(s, 3) for s in seconds[1:]],
        "decided_by": {
            way: sum(r.decided_by == way for r in routes) for way in {r.decided_by for r in routes}
        },
        "accuracy": float(np.mean([r.nearest == n for r, n in zip(routes, own, strict=True)])),
        "command": command,
        "commit": commit(),
        "versions": versions(),
        "device": jax.devices()[0].device_kind,
    }
    write(a.out, json.dumps(record, indent=1) + "\n")
    return record


if __name__ == "__main__":
    raise SystemExit(main())
