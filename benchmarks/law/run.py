r"""The law of capacity on one accelerator in minutes: every setting's L*, then predictions.

    XLA_FLAGS="--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false" \
    python -m benchmarks.law.run --tokens TOKENS --numbers-per-token 4 --seconds 290 --out OUT

Compiling is most of the work: without the flags a program takes up to 150 s, with them 13-71 s
(many side by side).
TOKENS is made by `tokens.py`.  The grids are variants of configs/ablate_latents.py; a setting's
windows are searched (`search.py`) instead of all being measured.  OUT gets ablation.jsonl (as
`main.py` writes it; colabs/latent_length_ablation.ipynb loads it), predictions.json, written before
any held-out setting is trained, and ablation.json.
"""

import argparse
import concurrent.futures
import json
import os
import shlex
import sys
import time
from pathlib import Path

import jax

from benchmarks.law.program import Program
from benchmarks.law.search import neighbours
from benchmarks.law.settings import Setting, read_rows, settings
from benchmarks.results import check_folder, commit, versions, write, writing
from benchmarks.settings_file import change, load
from cr_jax.config import build
from cr_jax.errors import UserError
from cr_jax.studies.capacity import ablation, analysis, capacity, power_law
from cr_jax.studies.capacity.grid import make_grid

GRIDS = tuple(
    f"configs/ablate_latents.py:{v}" for v in ("gpu", "gpu_tokens", "gpu_width", "gpu_gpt2")
)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = parse(arguments)
    try:
        Law(args).run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--tokens", required=True, help="folder made by benchmarks.law.tokens")
    p.add_argument("--grids", nargs="+", default=GRIDS, metavar="FILE:VARIANT")
    p.add_argument("--set", nargs="*", default=[], metavar="GROUP.FIELD=VALUE")
    p.add_argument(
        "--uniform",
        action="store_true",
        help="add uniformly random ids to grids of two or more domains",
    )
    p.add_argument("--seconds", type=float, required=True, help="then nothing new is begun")
    p.add_argument("--fit-share", type=float, default=0.75, help="of them before the predictions")
    p.add_argument(
        "--numbers-per-token",
        type=float,
        default=8.0,
        help="where a setting's search begins: L = M x d_z / this",
    )
    p.add_argument("--eval-tokens", type=int, default=262_144, help="of each cell's test text")
    p.add_argument("--compilers", type=int, default=14, help="programs compiled side by side")
    p.add_argument("--commit", default="", help="of the code, where it runs outside git")
    p.add_argument("--out", required=True)
    return p.parse_args(arguments)


def check(args: argparse.Namespace) -> None:
    """Raises `UserError` on numbers that cannot be meant."""
    if not (args.seconds > 0 and 0 < args.fit_share <= 1):
        raise UserError("--seconds must be above 0, --fit-share above 0 and at most 1")
    if not (args.numbers_per_token > 0 and args.eval_tokens > 0 and args.compilers > 0):
        raise UserError("--numbers-per-token, --eval-tokens and --compilers must be above 0")


class Law:
    """One run: its settings, what is compiled, what is measured."""

    def __init__(self, args: argparse.Namespace):
        """Reads the grids and the text.  Raises `UserError`."""
        check(args)
        self.args, self.began, self.rows = args, time.monotonic(), []
        self.commit = args.commit or commit()
        self.out = Path(args.out)
        if (self.out / ablation.LINES).exists():
            raise UserError(f"--out: {self.out} already holds a run; give an empty folder")
        check_folder(self.out)
        self.settings, self.experiments, self.thresholds = [], {}, None
        for path in args.grids:
            raw = change(load(path), args.set).to_dict()
            if "ablation" not in raw:
                raise UserError(
                    f"--grids: {path} has no config.ablation; give variants of "
                    "configs/ablate_latents.py"
                )
            grid, e = make_grid(raw.pop("ablation")), build(raw)
            self.thresholds = self.thresholds or grid.thresholds
            self.experiments[path] = e
            text = read_rows(Path(args.tokens), e, grid, args.eval_tokens, args.uniform)
            self.settings += settings(path, e, grid, text)
        self.programs = {}
        with writing(self.out):
            self.out.mkdir(parents=True, exist_ok=True)

    def run(self) -> dict:
        """Measures, predicts, measures what was predicted; writes and returns the report."""
        a = self.args
        self.pool = concurrent.futures.ThreadPoolExecutor(a.compilers)
        try:
            fitted = [s for s in self.settings if not s.held_out]
            # One setting of every grid in turn: when time runs out no axis is empty.
            fitted.sort(key=lambda s: s.number)
            held_out = [s for s in self.settings if s.held_out]
            guess = lambda s: s.size_of_z / a.numbers_per_token
            self.measure(fitted, guess, a.seconds * a.fit_share)
            predictions = self.predict(held_out)
            said = {line["setting_id"]: line["window"] for line in predictions["points"]}
            self.measure(held_out, lambda s: said.get(s.first_id, guess(s)), a.seconds)
            return self.report(predictions)
        finally:
            self.pool.shutdown(wait=False, cancel_futures=True)

    def measure(self, wanted: list[Setting], start, until: float) -> None:
        """Trains the windows that the search asks for, those first whose program is ready."""
        level, failed = self.thresholds[0], set()
        while time.monotonic() - self.began < until:
            nexts = [
                (s, w)
                for s in wanted
                if (w := s.next_window(level, start(s))) and (s.id, w) not in failed
            ]
            if not nexts:
                return
            # First what the searches ask for; then what they will mostly ask for next.
            beside = [(s, v) for s, w in nexts for v in neighbours(s.windows, w)]
            for s, w in nexts + beside:
                self.compile(s, w)
            jobs = [(s, w, f) for s, w in nexts if (f := self.programs.get(s.program_key(w)))]
            ready = [job for job in jobs if job[2].done()]
            if not ready:
                concurrent.futures.wait(
                    [f for *_, f in jobs],
                    timeout=1.0,
                    return_when=concurrent.futures.FIRST_COMPLETED,
                )
                continue
            setting, window, future = ready[0]
            try:
                self.train(setting, window, future.result())
            except jax.errors.JaxRuntimeError as error:
                # One shape that the device refuses must not cost the others.
                failed.add((setting.id, window))
                print(f"{setting.label(window)}: {str(error)[:300]}", flush=True)

    def compile(self, setting: Setting, window: int) -> None:
        """Begins to compile a setting's window, once, unless all cores have enough to do."""
        key = setting.program_key(window)
        busy = sum(not f.done() for f in self.programs.values())
        if key not in self.programs and busy < self.args.compilers + 2:
            model, train, rows = setting.model(window), setting.train(window), setting.text.shapes
            optimizer = self.experiments[setting.grid].optimizer
            self.programs[key] = self.pool.submit(
                Program, model, optimizer, train, len(setting.cells(window)), rows(window)
            )

    def train(self, setting: Setting, window: int, program: Program) -> None:
        cells, text = setting.cells(window), setting.text
        steps = setting.steps(window)
        found, curves, seconds = program(
            [c.seed for c in cells],
            [text.names.index(c.domain) for c in cells],
            text.rows(window),
            steps,
        )
        common = {
            "seconds": seconds,
            "steps": steps,
            "cells_in_program": len(cells),
            "compile_seconds": program.compile_seconds,
            "commit": self.commit,
            "device": jax.devices()[0].device_kind,
            "devices": 1,
        }
        lines = [row | common for row in setting.rows(window, found, curves)]
        setting.measured[window] = [line["tra"] for line in lines]
        self.rows += lines
        with (self.out / ablation.LINES).open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))
        shown = ", ".join(f"{c.domain} {line['tra']:.2%}" for c, line in zip(cells, lines))
        print(
            f"{time.monotonic() - self.began:5.0f} s {setting.label(window)}: {shown} "
            f"({seconds:.1f} s, compiled in {program.compile_seconds:.0f} s)",
            flush=True,
        )

    def predict(self, held_out: list[Setting]) -> dict:
        """What the law says of the held-out settings, on disk before one of them is trained."""
        level = self.thresholds[0]
        law = power_law.fit(capacity.capacities(self.rows, level))
        points = []
        for s in held_out if law.verdict != "undetermined" else []:
            for setting in s.domains():
                said = power_law.predict(law, setting)
                points.append({"setting_id": s.id + setting["domain"], "setting": setting, **said})
                print(
                    f"predicted for {s.label(0)} {setting['domain']}: L* = {said['window']:.0f} "
                    f"[{said['low']:.0f}, {said['high']:.0f}]",
                    flush=True,
                )
        found = {
            "threshold": level,
            "rows": len(self.rows),
            "law": law.to_json(),
            "points": points,
            "seconds": time.monotonic() - self.began,
        }
        write(self.out / ablation.PREDICTIONS, json.dumps(found, indent=1))
        return found

    def report(self, predictions: dict) -> dict:
        out = {
            "claim": "near-lossless capacity L* as a power law of M, d_z and more",
            **analysis.analyse(self.rows, self.thresholds, predictions),
            "predictions": predictions,
            "cells": len(self.rows),
            "seconds": time.monotonic() - self.began,
            "versions": versions(),
            "commit": self.commit,
            "xla_flags": os.environ.get("XLA_FLAGS", ""),
            "command": shlex.join(["python", "-m", "benchmarks.law.run", *sys.argv[1:]]),
        }
        write(self.out / ablation.REPORT, json.dumps(out, indent=1))
        for level, law in out["laws"].items():
            bars = {t: (c["value"], c["interval_95"]) for t, c in law["exponents"].items()}
            print(f"TRA >= {level}: {law['verdict']}: {law['reason']} {bars}", flush=True)
        for miss in out.get("misses", []):
            print("miss", json.dumps(miss), flush=True)
        return out


if __name__ == "__main__":
    sys.exit(main())
