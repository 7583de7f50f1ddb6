"""results/throughput.json from raw logs: breakdowns of `throughput.py` and runs of the record.

    python -m benchmarks.collect --breakdown results/breakdown/*.json \\
        --record results/record/*.json --out results/throughput.json

For rows that were measured apart; `throughput.py --out` writes the same fields in one run.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import workload
from benchmarks.results import write
from cr_jax.config import model_config
from cr_jax.errors import UserError
from cr_jax.training import speed

WANTED_MFU = 0.45


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--breakdown", nargs="+", required=True, metavar="FILE")
    p.add_argument("--record", nargs="*", default=[], metavar="FILE")
    p.add_argument("--out", required=True, metavar="FILE")
    a = p.parse_args(arguments)
    try:
        found = collect(a.breakdown, a.record)
        write(a.out, json.dumps(found, indent=1) + "\n")
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def collect(breakdowns: list[str], records: list[str]) -> dict:
    """The results as one dict.  Raises `UserError` for a file that is not such a log."""
    rows = [row for path in breakdowns for row in _read(path, step_rows)]
    if not rows:
        raise UserError("no whole step in the breakdowns: nothing says how fast products are")
    rates = sorted({row["peak_tflops_measured"] for row in rows})
    rows += [row for path in records for row in _read(path, lambda r: record_row(r, rates))]
    shares = [row["mfu"] for row in rows if row["mfu"] is not None]
    ranges = [row["mfu_by_rates_of_other_runs"] for row in rows if row["mfu"] is None]
    return {
        "rows": rows, "torch_ratio_87m": None,
        "torch_ratio_why": "the PyTorch peer has not been run on a GPU yet; on a CPU it is tested "
                           "for equality only",
        "mfu_wanted": {
            "share": WANTED_MFU, "shown": max(shares) >= WANTED_MFU, "best_same_run": max(shares),
            "best_by_rates_of_other_runs": max(ranges, key=max) if ranges else None,
            "why": "the record runs did not measure a product, so their share rests on the rates "
                   "of other runs of the same day; no step was timed beside a product at the "
                   "record's commit"},
        "notes": ["rows of breakdowns: 8 heads and loss chunks of 8,192 tokens, the defaults then",
                  "host_work: drawing and moving batches is in the time",
                  "commits of the breakdowns were noted by hand: they ran outside git"]}


def _read(path: str, rows) -> list[dict]:
    try:
        return [{**row, "source": Path(path).name}
                for row in rows(json.loads(Path(path).read_text()))]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not a raw log of this kind") from None


def step_rows(raw: dict) -> Iterator[dict]:
    """Whole steps of a breakdown; MFU is against the product that the same process measured."""
    for piece in raw["pieces"]:
        kind, _, optimizer = piece["piece"].partition(", ")
        if kind != "whole step":
            continue
        model = workload.size(piece["model"])
        rate = piece["batch"] * model.window / piece["ms"] * 1e3
        yield {
            "model": piece["model"], "framework": "jax", "optimizer": optimizer,
            "batch": piece["batch"], "remat": piece["remat"], "tokens_per_s": rate,
            "step_ms": piece["ms"], **_shares(model, rate, piece["device"]),
            "mfu": piece["share"], "peak_tflops_measured": piece["peak_tflops_measured"],
            "mfu_by_rates_of_other_runs": None, "host_work": False, "device": piece["device"],
            "commit": raw["commit"], "date": raw["date"]}


def record_row(raw: dict, rates: list[float]) -> Iterator[dict]:
    """A record run: drawing and moving batches included, no product measured beside it."""
    settings = dict(raw["settings"])
    optimizer, train = settings.pop("optimizer"), settings.pop("train")
    model = model_config(settings)
    shares = _shares(model, raw["tokens_per_s"], raw["device"])
    yield {
        "model": "87m", "framework": "jax", "optimizer": optimizer["name"],
        "batch": train["batch"], "remat": model.remat, "tokens_per_s": raw["tokens_per_s"],
        "step_ms": 1e3 * raw["train_seconds"] / raw["steps"], **shares,
        "mfu": None, "peak_tflops_measured": None,
        "mfu_by_rates_of_other_runs": sorted(shares["tflops"] / rate for rate in rates),
        "host_work": True, "device": raw["device"], "commit": raw["commit"], "date": None}


def _shares(model, tokens_per_s: float, device: str) -> dict:
    per_token, sheet = speed.flops_per_token(model), speed.peak_flops(device)
    return {"flops_per_token": per_token, "tflops": per_token * tokens_per_s / 1e12,
            "mfu_datasheet": per_token * tokens_per_s / sheet if sheet else None,
            "peak_tflops_datasheet": sheet / 1e12 if sheet else None}


if __name__ == "__main__":
    sys.exit(main())
