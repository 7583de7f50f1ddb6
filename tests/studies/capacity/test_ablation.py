"""The ablation's course: what is measured once, what a kill costs, what is said beforehand."""

import dataclasses
import json
import math

import numpy as np
import pytest

from cr_jax.config import (
    DataConfig,
    DomainConfig,
    EvalConfig,
    Experiment,
    ModelConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainConfig,
)
from cr_jax.experiment import run
from cr_jax.studies.capacity import ablation
from cr_jax.studies.capacity.grid import Grid
from cr_jax.training.loop import Interrupted, Trained

A, B, C = 0.2, 0.9, 0.6


@pytest.fixture
def experiment(tmp_path):
    rng = np.random.default_rng(0)
    words = ["near", "far", "the", "of", "ship", "hill", "so", "we", "went"]
    for split in ("train", "valid", "test"):
        text = " ".join(rng.choice(words, 3000))
        (tmp_path / f"{split}.txt").write_text(text)
    sources = {s: (f"files:{tmp_path}/{s}.txt",) for s in ("train", "valid", "test")}
    return Experiment(
        model=ModelConfig(
            window=16,
            latents=2,
            d_model=16,
            d_latent=8,
            heads=2,
            d_ff=16,
            encoder_blocks=1,
            decoder_blocks=1,
            bottleneck="fold",
            fold_channels=4,
        ),
        tokenizer=TokenizerConfig(kind="bytes"),
        data=DataConfig(domains={"words": DomainConfig(**sources)}),
        optimizer=OptimizerConfig(name="adamw"),
        train=TrainConfig(batch=64, steps=6),
        eval=EvalConfig(batch=16, windows=40, calibration_windows=16),
    )


class _Lab:
    """Stands in for training and scoring: TRA follows a known law of L* exactly."""

    def __init__(self, monkeypatch, stop_after=None):
        self.trained, self.stop_after = [], stop_after
        monkeypatch.setattr(ablation, "train", self.train)
        monkeypatch.setattr(ablation, "scorer", self.scorer)
        monkeypatch.setattr(ablation.models, "count_parameters", lambda model: 1000)

    def train(self, job, plan, workdir):
        experiment, model, names = job.experiment, job.loss.model, job.names
        if self.stop_after is not None and len(self.trained) == self.stop_after:
            raise Interrupted("stopped")
        self.trained.append((model.window, model.latents, model.d_latent, tuple(names)))
        seeds = np.array([float(n.rsplit("-", 1)[1]) for n in names])
        return Trained({"seed": seeds}, 6, 1.0, 6 * experiment.train.batch * model.window)

    def scorer(self, model, batch):
        star = math.exp(A + B * math.log(model.latents) + C * math.log(model.d_latent))

        def score(params, windows):
            here = star * math.exp(0.02 * float(params["seed"]))
            level = math.log(99) + 3 * math.log(here / model.window)
            return {
                "tra": 1 / (1 + math.exp(-level)),
                "nll": 1.0,
                "window_exact": 0.5,
                "tokens": 10**6,
                "windows": 40,
            }

        return score


GRID = Grid(
    windows=(4, 8, 16, 32, 64, 128),
    latents=(1, 2, 4),
    d_latent=(8, 32),
    seeds=(0, 1),
    holdout=((2, 32), (8, 8)),
)


def _lines(folder):
    return [json.loads(line) for line in (folder / "ablation.jsonl").read_text().splitlines()]


def test_a_grid_ends_in_a_law_and_its_predictions_are_written_before_they_are_measured(
    experiment, tmp_path, monkeypatch
):
    lab = _Lab(monkeypatch)
    folder = tmp_path / "run"
    real, seen = lab.train, []

    def watch(job, *rest):
        model = job.loss.model
        seen.append(((model.latents, model.d_latent), (folder / "predictions.json").exists()))
        return real(job, *rest)

    monkeypatch.setattr(ablation, "train", watch)
    report = ablation.run(experiment, GRID, folder)
    assert all(said == (pair in GRID.holdout) for pair, said in seen)
    assert len({pair for pair, _ in seen}) == 7

    law = report["laws"]["0.99"]
    assert law["verdict"] == "law"
    for term, truth in (("latents", B), ("d_latent", C)):
        low, high = law["exponents"][term]["interval_95"]
        assert low <= truth <= high and high - low < 0.3
    assert {(m["setting"]["latents"], m["setting"]["d_latent"]) for m in report["misses"]} == {
        (2, 32),
        (8, 8),
    }
    assert all(0.9 < m["ratio"] < 1.1 for m in report["misses"])
    said = json.loads((folder / "predictions.json").read_text())
    assert said["rows"] == sum(not row["held_out"] for row in _lines(folder))
    assert json.loads((folder / "ablation.json").read_text())["laws"] == report["laws"]


def test_predictions_stand_even_if_later_calls_know_better(experiment, tmp_path, monkeypatch):
    _Lab(monkeypatch)
    ablation.run(experiment, GRID, tmp_path / "run")
    before = (tmp_path / "run" / "predictions.json").read_text()
    ablation.run(experiment, dataclasses.replace(GRID, seeds=(0, 1, 2)), tmp_path / "run")
    assert (tmp_path / "run" / "predictions.json").read_text() == before


def test_a_second_call_measures_only_what_is_missing(experiment, tmp_path, monkeypatch):
    folder, grid = tmp_path / "run", Grid(windows=(8, 16), latents=(1, 2), seeds=(0, 1))
    with pytest.raises(Interrupted):
        _Lab(monkeypatch, stop_after=2)
        ablation.run(experiment, grid, folder)
    assert len(_lines(folder)) == 4
    # A kill in the middle of a line: that cell is lost, and no other.
    path = folder / "ablation.jsonl"
    path.write_text(path.read_text()[:-30])
    lab = _Lab(monkeypatch)
    ablation.run(experiment, grid, folder)
    cells = [(r["window"], r["latents"], r["seed"]) for r in _lines(folder)]
    assert sorted(cells) == sorted((w, m, s) for w in (8, 16) for m in (1, 2) for s in (0, 1))
    assert [t[3] for t in lab.trained] == [
        ("words-1",),
        ("words-0", "words-1"),
        ("words-0", "words-1"),
    ]
    again = _Lab(monkeypatch)
    ablation.run(experiment, grid, folder)
    assert again.trained == []
    # Another optimiser makes other cells of the same shapes; the report keeps them apart.
    other = ablation.run(dataclasses.replace(experiment, optimizer=OptimizerConfig()), grid, folder)
    assert len(again.trained) == 4
    assert other["cells"] == 8 and len(_lines(folder)) == 16


def test_groups_are_cut_to_what_fits_together(experiment, tmp_path, monkeypatch):
    lab = _Lab(monkeypatch)
    ablation.run(experiment, Grid(seeds=(0, 1, 2), together=2), tmp_path / "run")
    assert [t[3] for t in lab.trained] == [("words-0", "words-1"), ("words-2",)]


def test_a_grid_beyond_the_bend_is_censored_and_no_law_is_made_up(
    experiment, tmp_path, monkeypatch
):
    _Lab(monkeypatch)
    grid = Grid(windows=(64, 128), latents=(1, 2, 4), d_latent=(8,), holdout=((8, 8),))
    report = ablation.run(experiment, grid, tmp_path / "run")
    law = report["laws"]["0.99"]
    assert law["verdict"] == "undetermined"
    assert law["counts"] == {"exact": 0, "above": 0, "below": 6}
    assert {p["censored"] for p in report["against_bound"]["0.99"]} == {"below"}
    assert report["predictions"]["points"] == [] and report["misses"] == []


def test_a_cells_figures_do_not_depend_on_its_neighbours(one_device, experiment, tmp_path):
    """Trained for real: seed 1 beside seed 0 equals seed 1 alone, and differs from seed 0."""
    together = ablation.run(experiment, Grid(seeds=(0, 1)), tmp_path / "a")
    ablation.run(experiment, Grid(seeds=(1,)), tmp_path / "b")
    first, second = _lines(tmp_path / "a")
    (alone,) = _lines(tmp_path / "b")
    assert alone["cell"] == second["cell"] != first["cell"]
    assert alone["nll"] == pytest.approx(second["nll"], rel=1e-4)
    assert abs(first["nll"] - second["nll"]) > 1e-3 * first["nll"]
    assert alone["tra"] == pytest.approx(second["tra"], abs=0.01)
    assert alone["tokens"] == 40 * 16 and alone["train_tokens"] == 6 * 64 * 16
    assert 0 < alone["majority_tra"] < 0.5
    assert not list((tmp_path / "a" / "cells").rglob("checkpoints"))
    assert together["cells"] == 2


def test_a_misspelt_axis_ends_the_command_with_one_line(tmp_path, capsys):
    from configs import ablate_latents

    config = ablate_latents.get_config("tiny").unlock()
    config.ablation.window = (8,)
    assert run.main(config, str(tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: config.ablation has no field 'window'")
    assert not (tmp_path / "run").exists()
