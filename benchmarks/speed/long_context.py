"""Time, memory and state of reading on after N tokens of context, beside static caches.

    python -m benchmarks.speed.long_context --quick                          # any CPU, minutes
    python -m benchmarks.speed.long_context --out results/long_context.json  # one GPU

Arms: `benchmarks.speed.long_arms`.  A step embeds a token, passes all layers and chooses the next
token from the whole vocabulary; the chosen one goes on.  Weights are fresh: costs are real, the
text is noise.  Every arm is timed at the longest context with one query's attention as a matrix
product and as fused sums (`models.lm.layer`) and goes on with the faster, so that none loses by a
compiler's choice.  A row of `speed`, arm -> N:

    hit_ms         median of a step inside a window, of steps in one program
    sync_ms        median of a sync, where there is one
    tokens_per_s   of all texts over whole windows of W steps and a sync
    state_bytes    of one text's cache but for its ids; ids_bytes those
    batches        batch -> the same at more texts, up to what fits

`predicted`, written before anything was measured, is beside it; `constant_memory` is what the
compiler allots a step and a sync of tconst beside weights and ids.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import json
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import results
from benchmarks.speed.long_arms import (
    ARMS,
    EXPECTED,
    FULL,
    LENGTHS,
    QUICK,
    allotted,
    cache_shapes,
    compresses,
    fresh,
    lowered,
    predicted,
    some_cache,
    state_and_ids,
)
from cr_jax.config import LmConfig
from cr_jax.errors import UserError
from cr_jax.models.lm import layer

FORMS = {"product": layer.one_query, "sums": layer.one_query_by_sums}


class Cell(NamedTuple):
    """One arm after n tokens of each of `batch` texts; form: of one query's attention."""

    arm: str
    n: int
    batch: int
    form: str


def main(argv: Sequence[str] | None = None) -> int:
    return results.answered("benchmarks.speed.long_context", run, _parser().parse_args(argv), argv)


def run(args, command: str) -> dict:
    """All rows; --out is rewritten after each, its other keys stay."""
    base = QUICK if args.quick else FULL
    lengths = sorted(args.lengths or ((64, 256) if args.quick else LENGTHS), reverse=True)
    if unknown := set(args.arms) - set(ARMS):
        raise UserError(f"--arms: no arm {', '.join(sorted(unknown))}; there are {list(ARMS)}")
    for n in lengths:
        if n < 2 * base.chunk or n % base.chunk:
            raise UserError(
                f"--lengths: {n} must be twice the window of {base.chunk} tokens or more, and a "
                "multiple of it"
            )
    configs = {arm: dataclasses.replace(base, **ARMS[arm]) for arm in args.arms}
    whole: dict[str, Any] = {
        "speed": {},
        "predicted": {**EXPECTED, "tokens_per_s_over_static_kv_by_formula": predicted(FULL)},
    }
    end = time.monotonic() + (args.seconds or float("inf"))
    forms: dict[str, str] = {}

    def add(cells: Iterable[Cell]) -> None:
        for cell, found in _measured(configs, list(cells), args, end):
            row = whole["speed"].setdefault(cell.arm, {}).setdefault(str(cell.n), {})
            state, ids = state_and_ids(cell.arm, configs[cell.arm], cell.n)
            row |= {"state_bytes": state, "ids_bytes": ids}
            old = row.setdefault("batches", {}).get(str(cell.batch), {})
            if found.get("tokens_per_s", 0) >= old.get("tokens_per_s", 0):
                row["batches"][str(cell.batch)] = found
                row |= found if cell.batch == 1 else {}
                forms[cell.arm] = cell.form
            print(f"{cell.arm:>11} {cell.n:>9,} {_shown(cell, state, found)}", flush=True)
            whole["ratios"] = ratios(whole["speed"])
            _write(args.out, whole, command)

    first, *others = lengths
    add(Cell(a, first, 1, f) for a in configs for f in FORMS if a != "int8_kv" or f == "sums")
    add(Cell(a, n, 1, forms[a]) for n in others for a in configs if a in forms)
    if args.most > 1:
        for n in lengths:
            sizes = {a: _largest(state_and_ids(a, configs[a], n)[0], args) for a in configs}
            add(Cell(a, n, b, forms[a]) for a, b in sizes.items() if a in forms and b > 1)
    if not args.no_memory:
        parts = {str(n): allotted(dataclasses.replace(base, **ARMS["tconst"]), n) for n in lengths}
        whole["constant_memory"] = {n: part["bytes"] for n, part in parts.items()}
        whole["constant_memory_parts"] = parts
    shown = {k: whole[k] for k in ("constant_memory", "ratios") if k in whole}
    print(json.dumps(shown, indent=1))
    _write(args.out, whole, command)
    return whole


def ratios(speed: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """arm -> N -> tokens/s over static_kv's, batch 1, and static_kv's state over the arm's."""
    static = speed.get("static_kv", {})
    return {
        arm: {
            n: {
                "tokens_per_s": row["tokens_per_s"] / static[n]["tokens_per_s"],
                "state": static[n]["state_bytes"] / row["state_bytes"],
            }
            for n, row in by.items()
            if "tokens_per_s" in row and "tokens_per_s" in static.get(n, {})
        }
        for arm, by in speed.items()
    }


def _largest(state: int, args) -> int:
    """The largest power of two of texts whose states take --gigabytes, --most at most."""
    fits = int(args.gigabytes * 1e9 / max(state, 1))
    return min(args.most, 1 << max(0, fits.bit_length() - 1))


def _measured(configs: Mapping[str, LmConfig], cells: list[Cell], args, end: float):
    """(cell, its figures) of each, once all are compiled: compilers time kernels on the device."""
    with concurrent.futures.ThreadPoolExecutor(args.compilers) as pool:
        waiting = {}
        for cell in cells:
            config = configs[cell.arm]
            shapes = cache_shapes(cell.arm, config, cell.n, cell.batch, args.steps + config.chunk)
            made = lowered(cell.arm, config, shapes, args.steps, FORMS[cell.form])
            waiting[cell] = shapes, {k: pool.submit(x.compile) for k, x in made.items()}
        concurrent.futures.wait([x for _, programs in waiting.values() for x in programs.values()])
        for cell, (shapes, programs) in waiting.items():
            if time.monotonic() > end:
                print(f"{cell.arm} at {cell.n:,}: left out, the time is over", flush=True)
                continue
            try:
                ready = {k: x.result() for k, x in programs.items()}
                yield cell, _timed(cell, configs[cell.arm], shapes, ready, args)
            except (jax.errors.JaxRuntimeError, MemoryError) as error:
                if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                yield cell, {"left_out": "not enough memory"}


def _timed(cell: Cell, config: LmConfig, shapes, programs, args) -> dict[str, Any]:
    """Medians of --repeats calls of both programs; every call is waited for."""
    params, cache = _params(config), some_cache(config, shapes, cell.n)
    token = jnp.zeros(cell.batch, jnp.int32)
    syncs, hits = [], []
    if compresses(config):
        for i in range(1 + args.repeats):
            start = time.perf_counter()
            cache = jax.block_until_ready(programs["sync"](params, cache))
            syncs += [time.perf_counter() - start] if i else []
            if i < args.repeats:
                cache = cache._replace(synced=cache.synced - config.chunk)
    for i in range(1 + args.repeats):
        start = time.perf_counter()
        token, cache = jax.block_until_ready(programs["steps"](params, token, cache))
        hits += [(time.perf_counter() - start) / args.steps] if i else []
        cache = cache._replace(length=cache.length - args.steps)  # the same places again
    window = (QUICK if args.quick else FULL).chunk
    hit, due = statistics.median(hits), statistics.median(syncs) if syncs else 0.0
    return {
        "hit_ms": 1e3 * hit,
        "sync_ms": 1e3 * due if syncs else None,
        "tokens_per_s": cell.batch * window / (window * hit + due),
        "one_query": cell.form,
    }


@functools.lru_cache(2)
def _params(config: LmConfig):
    return jax.block_until_ready(fresh(config))


def _write(path: str, whole: Mapping[str, Any], command: str) -> None:
    if path:
        old = results.written(path)
        about = {
            "command": command,
            "commit": results.commit(),
            "versions": results.versions(),
            "device": jax.devices()[0].device_kind,
        }
        new = {**old, **whole, "speed_provenance": about}
        results.write(path, json.dumps(new, indent=1) + "\n")


def _shown(cell: Cell, state: int, found: Mapping[str, Any]) -> str:
    what = f"batch {cell.batch:>3} {cell.form:>7}  state {state / 1e6:>10,.1f} MB  "
    if "left_out" in found:
        return what + found["left_out"]
    sync = "" if found["sync_ms"] is None else f"  sync {found['sync_ms']:.2f} ms"
    return what + f"hit {found['hit_ms']:.3f} ms{sync}  {found['tokens_per_s']:,.0f} tokens/s"


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words = lambda text: tuple(x for x in text.split(",") if x)
    p.add_argument("--quick", action="store_true", help="tiny models and contexts, for a CPU")
    p.add_argument("--arms", type=words, default=tuple(ARMS))
    p.add_argument("--lengths", type=lambda text: tuple(map(int, words(text))), default=())
    p.add_argument("--steps", type=int, default=64, help="steps of one timed program, below W")
    p.add_argument("--repeats", type=int, default=5, help="timed programs, and syncs, of a row")
    p.add_argument("--most", type=int, default=64, help="texts at once, at most; 1: one alone")
    p.add_argument("--gigabytes", type=float, default=60.0, help="of states, for the batch")
    p.add_argument("--seconds", type=float, default=0, help="begin no row after so many")
    p.add_argument("--compilers", type=int, default=8, help="threads that compile ahead")
    p.add_argument("--no-memory", action="store_true", help="leave constant_memory out")
    p.add_argument("--out", default="", help="write into this JSON; its other keys stay")
    return p


if __name__ == "__main__":
    sys.exit(main())
