"""Study `ablation`: how many tokens L fit into M latents of width d_z before copying fails?

    grid -> groups of equal shape, one program each -> ablation.jsonl -> law -> ablation.json

Paper, open question 1.  Cells of a group (domains x seeds) are trained side by side by
`training.loop.train`, stacked on its expert axis.  Each finished group is appended to
ablation.jsonl at once; a second call measures only what is missing.  Held-out settings are
measured after the law's prediction of them is on disk.
"""

import dataclasses
import datetime
import functools
import hashlib
import itertools
import json
import lzma
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from cr_jax import config as settings
from cr_jax import models
from cr_jax.config import Experiment
from cr_jax.data import Share, WindowBatches, Windowing, experiment_text, train_iterator
from cr_jax.models import objective
from cr_jax.parallel import plan as parallel
from cr_jax.studies.capacity import capacity, power_law
from cr_jax.studies.capacity.analysis import analyse, findings
from cr_jax.studies.capacity.cells import SideBySide, scorer
from cr_jax.studies.capacity.grid import Cell, Grid, groups
from cr_jax.training.loop import Job, train
from cr_jax.training.losses import CompressorLoss
from cr_jax.training.metric_writer import read_lines, read_metrics
from cr_jax.training.workdir import locked, provenance

LINES, PREDICTIONS, REPORT = "ablation.jsonl", "predictions.json", "ablation.json"
# What changes neither a cell's weights nor its figures.
_FREE = ("log_every", "checkpoint_every", "keep_checkpoints", "experts_by")
_ENTROPY_TOKENS = 1_000_000


def run(
    experiment: Experiment,
    grid: Grid,
    workdir: str | Path,
    say: Callable[[str], None] = lambda line: None,
) -> dict:
    """Measures the grid below `workdir`, fits the law, writes WORKDIR/ablation.json; its dict.

    Raises `UserError` for bad input and a loss that is no longer finite (finished cells stay),
    and `training.loop.Interrupted` when it was asked to stop and has saved itself.
    """
    with locked(workdir) as folder:
        text = functools.cache(
            lambda window: experiment_text.prepare(
                dataclasses.replace(
                    experiment, model=dataclasses.replace(experiment.model, window=window)
                ),
                folder,
                say if window == experiment.model.window else lambda line: None,
            )
        )
        study = _Study(experiment, grid, folder, text, say)
        say(f"{LINES}: {len(study.rows)} cells from earlier starts")
        study.measure(held_out=False)
        if grid.holdout:
            study.predict()
            study.measure(held_out=True)
        return study.report()


class _Study:
    """The grid's progress in one folder."""

    def __init__(self, experiment, grid, folder, text, say):
        self.experiment, self.grid, self.folder = experiment, grid, folder
        self.text, self.say = text, say
        self.path = folder / LINES
        self.rows = read_lines(self.path)
        if self.path.exists():
            # A line cut off by a kill must not swallow the next one.
            _write(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def measure(self, held_out: bool) -> None:
        """Trains and evaluates the cells whose line is missing, one group at a time."""
        done = {row["cell"]: row for row in self.rows}
        wanted = groups(self.experiment, self.grid, held_out)
        for number, cells in enumerate(wanted, 1):
            missing = {n: c for n, c in cells.items() if self._hash(c) not in done}
            for at in range(0, len(missing), self.grid.together):
                part = dict(list(missing.items())[at : at + self.grid.together])
                first = next(iter(part.values()))
                self.say(
                    f"{'held-out ' if held_out else ''}group {number}/{len(wanted)}: "
                    f"{first.label}, {len(part)} cells in one program"
                )
                lines = self._measure(part, held_out)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write("".join(json.dumps(line) + "\n" for line in lines))
                    file.flush()
                    os.fsync(file.fileno())
                self.rows += lines
                for line in lines:
                    self.say(
                        f"  {line['domain']} seed {line['seed']}: TRA {line['tra']:.2%} "
                        f"(majority token {line['majority_tra']:.1%})"
                    )

    def _measure(self, cells: Mapping[str, Cell], held_out: bool) -> list[dict]:
        first = next(iter(cells.values()))
        text = self.text(first.model.window)
        model = experiment_text.sized(first.model, text.tokenizer)
        e = dataclasses.replace(self.experiment, model=first.model, train=first.train)
        plan = parallel.make_plan(e.parallel, len(cells), e.train.batch, e.mesh_expert)
        hashes = {name: self._hash(cell) for name, cell in cells.items()}
        place = self.folder / "cells" / _digest(sorted(hashes.values()))[:16]

        usual = Windowing(model.window, 0, e.data.mode, text.tokenizer.pad_id)
        mine = Share(block=jax.process_index(), blocks=jax.process_count())

        def read(cell):
            windowing = dataclasses.replace(usual, seed=e.seed + cell.seed)
            train = {cell.domain: text.train[cell.domain]}
            return WindowBatches(train, e.train.batch, windowing, mine)

        def batches(step):
            return SideBySide([train_iterator(read(c), step) for c in cells.values()])

        job = Job(
            e,
            CompressorLoss(model, e.train, plan.devices_seen),
            tuple(cells),
            batches,
            {name: text.train[c.domain] for name, c in cells.items()},
        )
        trained = train(job, plan, place)
        scored, parameters = scorer(model, e.eval.batch), models.count_parameters(model)
        logged = read_metrics(place / "metrics.jsonl")
        lines = []
        for n, (name, cell) in enumerate(cells.items()):
            test = text.test[cell.domain]
            params = jax.tree.map(lambda x, n=n: x[n], trained.params)
            lines.append(
                {
                    "cell": hashes[name],
                    "held_out": held_out,
                    "window": model.window,
                    "latents": model.latents,
                    "d_latent": model.d_latent,
                    "size": cell.size,
                    "d_model": model.d_model,
                    "bottleneck": model.bottleneck,
                    "parameters": parameters,
                    "budget_tokens": cell.budget,
                    "domain": cell.domain,
                    "seed": cell.seed,
                    **scored(params, test),
                    "majority_tra": objective.majority_rate(test.tokens, test.mask),
                    "train_tokens": trained.tokens,
                    "steps": trained.step,
                    "train_curve": [
                        [line[k] for line in logged if line["expert"] == name and k in line]
                        for k in ("step", "tra")
                    ],
                    "seconds": trained.seconds,
                    "cells_in_program": len(cells),
                    "xz_bits": self._entropy(cell.domain),
                    "device": jax.devices()[0].device_kind,
                    "devices": jax.device_count(),
                }
            )
        # The line is the result; weights of a large grid would fill the disk.
        shutil.rmtree(place / "checkpoints", ignore_errors=True)
        return lines

    @functools.cache  # noqa: B019 - one study per process
    def _entropy(self, domain: str) -> float:
        """bits per token that xz needs for the domain's training text."""
        text = self.text(self.experiment.model.window)
        corpus = _corpora(text.train[domain])[0]
        ids = np.asarray(corpus.tokens[:_ENTROPY_TOKENS])
        packed = lzma.compress(text.tokenizer.decode(ids).encode("utf-8"), preset=6)
        return 8 * len(packed) / len(ids)

    def _hash(self, cell: Cell) -> str:
        """SHA-256 of all that decides a cell's figures: settings, tokenizer, text, seed."""
        text = self.text(cell.model.window)
        test = hashlib.sha256(text.test[cell.domain].tokens.tobytes()).hexdigest()
        chosen = settings.to_dict(self.experiment)
        return _digest(
            {
                "model": settings.to_dict(experiment_text.sized(cell.model, text.tokenizer)),
                "train": {k: v for k, v in settings.to_dict(cell.train).items() if k not in _FREE},
                "optimizer": chosen["optimizer"],
                "mode": chosen["data"]["mode"],
                "tokenizer": text.tokenizer.fingerprint,
                "text": [c.fingerprint for c in _corpora(text.train[cell.domain])],
                "test": test,
                "domain": cell.domain,
                "seed": self.experiment.seed + cell.seed,
            }
        )

    def predict(self) -> None:
        """Writes what the law says of the held-out settings, once, before they are measured."""
        path = self.folder / PREDICTIONS
        held_out = groups(self.experiment, self.grid, True)
        if path.exists():
            return
        level = self.grid.thresholds[0]
        law = power_law.fit(
            capacity.capacities([r for r in self._mine() if not r["held_out"]], level)
        )
        points: dict[str, dict] = {}
        if law.verdict != "undetermined":
            for cell in itertools.chain(*(g.values() for g in held_out)):
                setting = {
                    "domain": cell.domain,
                    "size": cell.size,
                    "latents": cell.model.latents,
                    "d_latent": cell.model.d_latent,
                    "d_model": cell.model.d_model,
                    "budget_tokens": cell.budget,
                    "xz_bits": self._entropy(cell.domain),
                }
                points[_digest(setting)] = {"setting": setting, **power_law.predict(law, setting)}
        for line in points.values():
            s = line["setting"]
            self.say(
                f"predicted for M={s['latents']} d_z={s['d_latent']} {s['domain']}: "
                f"L* = {line['window']:.0f} [{line['low']:.0f}, {line['high']:.0f}]"
            )
        _write(
            path,
            json.dumps(
                {
                    "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    "rows": len(self.rows),
                    "rows_sha256": hashlib.sha256(self.path.read_bytes()).hexdigest(),
                    "threshold": level,
                    "law": law.to_json(),
                    "points": list(points.values()),
                },
                indent=1,
            ),
        )

    def _mine(self) -> list[dict]:
        """The rows of this grid: the folder may hold those of earlier settings."""
        wanted = {
            self._hash(c)
            for held_out in ((False, True) if self.grid.holdout else (False,))
            for g in groups(self.experiment, self.grid, held_out)
            for c in g.values()
        }
        return [row for row in self.rows if row["cell"] in wanted]

    def report(self) -> dict:
        path, rows = self.folder / PREDICTIONS, self._mine()
        predictions = json.loads(path.read_text()) if path.exists() else None
        out = {
            "claim": "near-lossless capacity L* as a power law of M, d_z and more",
            **analyse(rows, self.grid.thresholds, predictions),
            "predictions": predictions,
            "cells": len(rows),
            "provenance": {
                **provenance(),
                "config": {
                    **settings.to_dict(self.experiment),
                    "ablation": settings.to_dict(self.grid),
                },
            },
        }
        _write(self.folder / REPORT, json.dumps(out, indent=1))
        for line in findings(out, sizes=bool(self.grid.sizes)):
            self.say(line)
        self.say(f"report: {self.folder / REPORT}")
        return out


def _corpora(source) -> list:
    """The corpora of a domain, which may be a mixture."""
    return list(getattr(source, "corpora", [source]))


def _digest(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
