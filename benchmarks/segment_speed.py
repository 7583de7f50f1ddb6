"""How fast texts are cut beside how fast they are routed -> "speed" in results/segments.json.

    python -m benchmarks.segment_speed --text SPEC [--text SPEC ...] --out results/segments.json
        [--bank BANK] [--tokens 100000] [--large MB] [--large-bigrams MB ...]

The texts of all specs (docs/data.md) are read in turn until there are so many tokens.  `route` and
`segment`, by experts and by bigram models alone, read them once to compile and once on the clock.
--large, --large-bigrams: `cr-jax segment` and `cr-jax segment --bigrams` on files of so many
megabytes made of them, with seconds and the peak of memory.  Other keys of --out stay.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import memory_tasks, results
from benchmarks.routing.files import peak_bytes
from cr_jax.bank import ExpertBank, pretrained
from cr_jax.errors import UserError
from cr_jax.router import route
from cr_jax.routing.options import SegmentOptions
from cr_jax.routing.segment import segments


def main(arguments: Sequence[str] | None = None) -> int:
    return results.answered(
        "benchmarks.segment_speed", run, _parser().parse_args(arguments), arguments
    )


def run(args, command: str) -> dict[str, Any]:
    """{"speed": ...}, written into --out."""
    old = results.written(args.out) if args.out else {}
    place = args.bank or pretrained.folder()
    bank = ExpertBank.load(place)
    ids = memory_tasks.stream(bank, args.text, args.tokens)
    text = bank.tokenizer.decode(ids[ids != bank.tokenizer.end_id])
    if not text:
        raise UserError("--text: the specs hold no text")
    ways: dict[str, Callable[[], Any]] = {
        "route": lambda: route(bank, text),
        "segment": lambda: list(segments(bank, text)),
        "segment_bigrams": lambda: list(segments(bank, text, SegmentOptions(evidence="bigrams"))),
    }
    found: dict[str, Any] = {"tokens": len(ids)}
    for name, read in ways.items():
        read()
        began = time.perf_counter()
        read()
        found[f"{name}_tokens_per_s"] = len(ids) / (time.perf_counter() - began)
        print(f"{name}: {found[f'{name}_tokens_per_s']:,.0f} tokens/s", flush=True)
    found["of_route"] = found["segment_tokens_per_s"] / found["route_tokens_per_s"]
    if args.large:
        found["large"] = large(place, text.encode(), args.large)
    if args.large_bigrams:
        found["large_bigrams"] = [
            large(place, text.encode(), size, "--bigrams") for size in args.large_bigrams
        ]
    found |= {
        "command": command,
        "commit": results.commit(),
        "device": jax.devices()[0].device_kind,
        "cores": len(os.sched_getaffinity(0)),
    }
    if args.out:
        results.write(args.out, json.dumps({**old, "speed": found}, indent=1) + "\n")
    return {"speed": found}


def large(place: Any, text: bytes, megabytes: float, *options: str) -> dict[str, float]:
    """`cr-jax segment` on a file of so many MB: {"mb", "seconds", "mb_per_s", "peak_mb"}."""
    peak = 0
    with tempfile.TemporaryDirectory() as folder:
        file, written = Path(folder) / "large.txt", 0
        with file.open("wb") as out:
            for part in _repeated(text, int(megabytes * 1e6)):
                written += out.write(part)
        program = "import sys; from cr_jax.cli import main; sys.exit(main())"
        words = [sys.executable, "-c", program, "segment", "--bank", str(place), *options]
        began = time.perf_counter()
        process = subprocess.Popen([*words, str(file)], stdout=subprocess.DEVNULL)
        while process.poll() is None:
            peak = max(peak, peak_bytes(process.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - began
    if process.returncode:
        raise UserError(f"cr-jax segment ended with status {process.returncode}")
    mb = written / 1e6
    return {"mb": mb, "seconds": seconds, "mb_per_s": mb / seconds, "peak_mb": peak / (1 << 20)}


def _repeated(text: bytes, size: int) -> Iterator[bytes]:
    while size > 0:
        yield text[:size]
        size -= len(text)


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--text", action="append", required=True, help="source spec; repeatable")
    p.add_argument("--bank", default="", help="the shipped one unless another is named")
    p.add_argument("--tokens", type=int, default=100_000)
    p.add_argument("--large", type=float, default=0, metavar="MB")
    p.add_argument("--large-bigrams", type=float, nargs="+", default=(), metavar="MB")
    p.add_argument("--out", default="", help="write the result into this JSON")
    return p


if __name__ == "__main__":
    sys.exit(main())
