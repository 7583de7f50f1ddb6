"""Bits of z of a finished run, at a tiny size: the whole program, and its fine-tuning."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest
import tiny_run

from benchmarks.record import bits
from cr_jax import config as settings
from cr_jax.config import to_dict
from cr_jax.data import ByteTokenizer, load_corpus
from cr_jax.experiment import run
from cr_jax.studies import bits as study
from cr_jax.training import clock
from cr_jax.training.losses import CompressorLoss


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bits")
    tiny_run.write(folder, (*tiny_run.NAMES, "marks"))
    config = tiny_run.config(folder)
    config.train.steps, config.studies = 30, ()
    run.run(settings.build(config), folder / "run")
    return folder / "run"


@pytest.fixture
def seconds(monkeypatch):
    """A clock on which every step takes a second."""
    now, progress = [0.0], clock.Clock.of_experts
    monkeypatch.setattr(clock, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    def tick(self, step):
        found = progress(self, step)
        now[0] += 1
        return found

    monkeypatch.setattr(clock.Clock, "of_experts", tick)


def test_a_run_has_rows_before_and_after_fine_tuning(workdir, tmp_path, capsys, seconds):
    out = tmp_path / "bits.json"
    words = [
        "--workdir",
        str(workdir),
        "--expert",
        "digits",
        "--windows",
        "20",
        "--fsq",
        "0",
        "4",
        "--fsq-seconds",
        "20",
        "--out",
        str(out),
    ]
    before = sorted((workdir / "bank").rglob("*"))
    assert bits.main(words) == 0
    found = json.loads(out.read_text())
    base = [r for r in found["rows"] if "levels" not in r]
    assert [r["scheme"] for r in base][:3] == ["float32", "bfloat16", "int8"]
    assert base[0]["bits_per_token"] == 32 * 3 * 16 / 12
    tuned = [
        (r["scheme"], r["levels"], r["fine_tune_steps"]) for r in found["rows"] if "levels" in r
    ]
    assert tuned == [("float32", 0, 20), ("bfloat16", 0, 20), ("fsq4", 4, 0), ("fsq4", 4, 20)]
    assert found["tokens"] == 20 * 12 and found["expert"] == "digits"
    assert found["xz_bits_per_token"] > 0 and found["fit_tokens"] == 48 * 12
    assert sorted((workdir / "bank").rglob("*")) == before
    capsys.readouterr()
    assert bits.main(["--workdir", str(workdir), "--out", str(out)]) == 2
    assert "--expert must be one of digits, letters" in capsys.readouterr().err


def test_fine_tuning_learns_and_leaves_what_it_started_from(workdir, seconds):
    e = settings.build(json.loads((workdir / "config.json").read_text()))
    loss = CompressorLoss(tiny_run.MODEL, e.train)
    params = jax.device_get(jax.jit(loss.init)(jax.random.key(0)))
    before = jax.tree.map(np.copy, params)
    corpus = load_corpus(e.data.domains["digits"].train, ByteTokenizer(), workdir / "cache")
    quick = dataclasses.replace(e, optimizer=dataclasses.replace(e.optimizer, learning_rate=0.08))
    tuned, took, steps, compiled = bits.fine_tune(
        tiny_run.MODEL, quick, params, {"digits": corpus}, 60.0, 0.25
    )
    assert (took, steps) == (60, 60) and compiled > 0
    jax.tree.map(np.testing.assert_array_equal, before, params)
    rows = corpus.tokens[:1200].reshape(100, 12).astype(np.int32)
    score = lambda p: study.run(tiny_run.MODEL, p, rows, rows, bits=())["rows"][0]["nll"]
    assert score(tuned) < 0.9 * score(params)
    # One step from there is near it: the weights that it was given are what it begins with.
    near, _, steps, _ = bits.fine_tune(tiny_run.MODEL, quick, tuned, {"digits": corpus}, 1.0, 0.001)
    assert steps == 1 and score(near) == pytest.approx(score(tuned), rel=0.01)


def test_the_settings_of_a_run_are_those_of_its_config_json(workdir):
    stored = json.loads((workdir / "config.json").read_text())
    assert to_dict(settings.build(stored))["train"]["steps"] == 30
