"""What context does to a stored bank's routing -> results/in_context.json.

    python -m benchmarks.in_context --config configs/pretrained.py --config.data.root=DATA \\
        --out results/in_context.json [--bank BANK] [--prompts 60] [--windows 32] [--positions]
        [--beside NAME=BANK ...]

The study `cr_jax.studies.in_context` on the bank's own domains, as the config names them.
--positions: nats and margins by the place of a token alone.  --beside: the same of further banks of
the config's domains ("beside": NAME -> by_position), such as of runs of other length.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence

import jax

from benchmarks.results import answered, commit, versions, write
from benchmarks.segments import windows
from cr_jax import config as settings
from cr_jax.bank import ExpertBank, pretrained
from cr_jax.config.command_line import load
from cr_jax.errors import UserError
from cr_jax.studies.in_context.entry import Plan, measure
from cr_jax.studies.in_context.positions import by_position

DIGITS = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes --out; the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--config", required=True)
    p.add_argument("--bank", default=str(pretrained.folder()))
    p.add_argument("--prompts", type=int, default=Plan.prompts, help="of each kind")
    p.add_argument("--windows", type=int, default=Plan.windows, help="of a domain, for positions")
    p.add_argument("--positions", action="store_true")
    p.add_argument("--beside", nargs="*", default=[], metavar="NAME=BANK")
    p.add_argument("--out", required=True)
    a, overrides = p.parse_known_args(arguments)
    a.overrides = overrides
    return answered("benchmarks.in_context", run, a, arguments)


def run(a: argparse.Namespace, command: str) -> None:
    """Measures and writes."""
    for flag in ("prompts", "windows"):
        if getattr(a, flag) < 8:
            raise UserError(f"--{flag} must be at least 8, got {getattr(a, flag)}")
    beside = {}
    for item in a.beside:
        name, equals, folder = item.partition("=")
        if not (name and equals and folder):
            raise UserError(f"--beside takes NAME=BANK, not {item!r}")
        beside[name] = folder
    e = settings.build(load(a.config, a.overrides).to_dict())
    began = time.perf_counter()
    record = _positions(e, a.bank, a.windows) if a.positions else _all(e, a)
    if beside:
        record["beside"] = {n: _positions(e, of, a.windows) for n, of in beside.items()}
    record |= {
        "seconds": time.perf_counter() - began,
        "devices": [d.device_kind for d in jax.devices()],
        "command": command.replace(str(e.data.root), "DATA"),
        "commit": commit(),
        "versions": versions(),
    }
    write(a.out, json.dumps(rounded(record), indent=1) + "\n")


def _all(e, a) -> dict:
    bank, valid, test = _read(e, a.bank)
    return measure(bank, valid, test, Plan(a.prompts, a.windows), e.seed)


def _positions(e, folder: str, count: int) -> dict:
    bank, valid, test = _read(e, folder)
    few = lambda own, n: {name: w.spread(n) for name, w in own.items()}
    found = by_position(bank, few(valid, count // 4), few(test, count), seed=e.seed)
    return {"by_position": found, "window": bank.model.window}


def _read(e, folder: str):
    bank = ExpertBank.load(folder, lms=False)
    if other := set(bank.names) - set(e.data.domains):
        raise UserError(
            f"the config names no domain {', '.join(sorted(other))}: give the one that {folder} "
            "was made by"
        )
    return bank, *(windows(e, bank, split) for split in ("valid", "test"))


def rounded(value):
    """The same with floats of a few digits, which is what the counts allow."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    sys.exit(main())
