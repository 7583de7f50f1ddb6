"""Weights & Biases hears what metrics.jsonl does, and its failures end no training."""

import json
import os
import sys
import types

import pytest

from cr_jax.config import build, default, domain
from cr_jax.errors import UserError
from cr_jax.experiment import checks
from cr_jax.training.metric_writer import MetricWriter
from cr_jax.training.wandb_writer import WandbWriter


class Run:
    """What `wandb.init` gives; notes what it is told."""

    def __init__(self, options):
        self.options, self.lines, self.finished = options, [], False
        self.failing = False

    def log(self, values, step):
        if self.failing:
            raise ConnectionError("no\nnetwork")
        self.lines.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    """A module in the package's place; `runs` are those that it began."""
    module = types.ModuleType("wandb")
    module.__spec__ = types.SimpleNamespace(name="wandb")
    module.runs = []

    def init(**options):
        module.runs.append(Run(options))
        return module.runs[-1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ.pop("WANDB_MODE", None)
    return module


@pytest.fixture
def experiment():
    config = default()
    config.name = "tried"
    config.train.update(steps=1, wandb="compressors")
    config.data.domains.math = domain(["samples/math"], ["samples/math"], ["samples/math"])
    return build(config)


def write(folder, experiment, step):
    writer = MetricWriter(folder, step - 1, WandbWriter(folder, experiment))
    writer.write(step, "math", {"nll": 1.5})
    writer.close()


def test_a_run_and_its_resumption_are_one_run(tmp_path, wandb, experiment):
    write(tmp_path, experiment, 1)
    os.environ["WANDB_MODE"] = "online"
    write(tmp_path, experiment, 2)
    first, second = wandb.runs
    assert (first.lines, second.lines) == ([(1, {"math/nll": 1.5})], [(2, {"math/nll": 1.5})])
    assert first.finished and second.finished
    assert first.options["id"] == second.options["id"] and first.options["resume"] == "allow"
    assert (first.options["mode"], second.options["mode"]) == ("offline", "online")
    assert first.options["project"] == "compressors"
    assert first.options["dir"] == str(tmp_path)
    assert first.options["config"]["train"]["steps"] == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_what_fails_there_is_told_once_and_ends_nothing(tmp_path, wandb, experiment, caplog):
    writer = MetricWriter(tmp_path, 0, WandbWriter(tmp_path, experiment))
    wandb.runs[0].failing = True
    for step in (1, 2):
        writer.write(step, "math", {"nll": 1.5})
    writer.close()
    wandb.init = None
    write(tmp_path, experiment, 3)
    said = [record.message for record in caplog.records]
    assert said[0] == "Weights & Biases is told no more: no network" and len(said) == 2
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_a_missing_package_is_named_before_a_run_begins(experiment, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        UserError, match=r"config\.train\.wandb=compressors needs .*cr_jax\[wandb\]"
    ):
        checks.settings(experiment)
