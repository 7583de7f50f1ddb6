"""Bits beside a timed run, at a tiny size."""

import argparse
import json
import pathlib

import jax
import numpy as np
import pytest

from benchmarks.record import bits, run
from cr_jax.config import build
from cr_jax.errors import UserError
from cr_jax.studies import bits as study
from cr_jax.training.step import init_state

CONFIG = str(pathlib.Path(__file__).resolve().parents[2] / "configs" / "cr_87m.py")
TINY = ["model.vocab_size=40", "model.window=16", "model.latents=4", "model.d_model=16",
        "model.d_latent=4", "model.heads=2", "model.d_ff=16", "model.fold_channels=8",
        "model.encoder_blocks=1", "model.decoder_blocks=1", "train.batch=8",
        "train.loss_chunk=128", "optimizer.name=adamw"]


@pytest.fixture
def arrays(tmp_path):
    """Ids that follow each other, 3 to 9 around and around, from random places."""
    folder = tmp_path / "tokens"
    folder.mkdir()
    for name, count in (("train00", 2000), ("valid", 320), ("test", 800)):
        row = 3 + (np.arange(count) + len(name)) % 7
        np.save(folder / f"{name}.npy", row.astype(np.uint16))
    return folder


def arguments(folder, out, *more):
    return ["--tokens", str(folder), "--config", CONFIG, "--out", str(out), "--seconds", "1.5",
            "--look", "5", "--sets", "valid,test", "--eval-batch", "8", "--random-windows", "9",
            "--set", *TINY, *more]


def test_a_run_with_bits_has_rows_before_and_after_fine_tuning(arrays, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(bits, "Gpt2Tokenizer", lambda folder: argparse.Namespace(
        decode=lambda ids: asked.append(ids) or "".join(chr(97 + i) for i in ids)))
    out = tmp_path / "row.json"
    assert run.main(arguments(arrays, out, "--bits", "--bits-windows", "20", "--fsq", "4",
                              "--fsq-seconds", "0.4")) == 0
    row = json.loads(out.read_text())
    found = row["bits"]
    base = [r for r in found["rows"] if "levels" not in r]
    assert [r["scheme"] for r in base][:3] == ["float32", "bfloat16", "int8"]
    assert base[0]["bits_per_token"] == 32 * 4 * 4 / 16
    assert [(r["scheme"], r["levels"], r["fine_tune_steps"] > 0) for r in found["rows"]
            if "levels" in r] == [("fsq4", 4, False), ("fsq4", 4, True)]
    assert found["tokens"] == 20 * 16 and found["length_ratio"] == 4
    assert found["raw_id_bits_per_token"] == np.log2(40)
    # The timed run itself is what it is without bits: its figure is on all of test.
    assert row["tokens"]["test"] == 800 and not asked and "xz_bits_per_token" not in found
    # The text's rates come later, from the same 20 windows.
    assert bits.main(["--row", str(out), "--tokens", str(arrays), "--gpt2", "x"]) == 0
    filled = json.loads(out.read_text())
    kept = run.windows(np.load(arrays / "test.npy"), 16, 20)
    assert len(kept) == 20 and np.array_equal(asked[0], kept.ravel())
    assert {k: filled["bits"].pop(k) for k in bits.STREAMS} == study.text_bits(
        "".join(chr(97 + i) for i in kept.ravel()).encode(), 320)
    assert filled == row


def test_fine_tuning_learns_and_leaves_what_it_started_from():
    config = run.change(run.load(CONFIG), TINY)
    config.train.update(tokens=0, steps=0, seconds=1.0)
    e = build(config)
    params = jax.jit(init_state, static_argnums=(0, 1, 2))(
        e.model, e.optimizer, e.train, jax.random.key(0)).params
    before = jax.device_get(params)
    rows = np.stack([3 + (np.arange(16) + i) % 7 for i in range(8)]).astype(np.int32)
    batches = iter(lambda: {"tokens": rows}, None)
    tuned, seconds, steps, compiled = bits.fine_tune(e.model, e, params, batches, 0.7, 0.25)
    assert seconds >= 0.7 and steps > 0 and compiled > 0
    for old, now in zip(jax.tree.leaves(before), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(old, now)
    score = run.evaluator(e.model)
    assert score(tuned, rows, 8)["nll"] < 0.9 * score(params, rows, 8)["nll"]


@pytest.mark.parametrize("bad, says", [
    (["--fsq", "4"], "--bits"), (["--bits", "--fsq", "1"], "levels"),
    (["--bits", "--sets", "valid"], "test"), (["--bits", "--fsq-seconds", "0"], "--fsq-seconds"),
    (["--bits", "--gpt2", "nowhere"], "encoder.json")])
def test_bad_options_are_refused_before_training(arrays, tmp_path, capsys, bad, says):
    out = tmp_path / "row.json"
    assert run.main(arguments(arrays, out) + bad) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and says in printed.err
    assert not out.exists() and not printed.out


def test_a_row_without_bits_or_of_other_arrays_is_not_filled(arrays):
    with pytest.raises(UserError, match="--bits"):
        bits.fill({"L": 16}, str(arrays), "x")
    with pytest.raises(UserError, match="800"):
        bits.fill({"L": 16, "bits": {"tokens": 8000}}, str(arrays), "x")
