"""Adapters are trained by one command, and measured by another on the same tokens as all arms."""

import dataclasses
import json

import pytest
import tiny_bank
import tiny_lms

from benchmarks import latent_memory, latent_reader

CONFIG = """
from cr_jax.config import default, domain


def get_config():
    config = default()
    config.data.domains = {n: domain(*3 * (f"files:{{root}}/{n}",)) for n in ("e0", "e1")}
    config.data.update(mode="padded", count_overlap=False)
    config.train.update(steps=1, log_every=100)
    config.modular.update(
        window=64, branch_batch=8, seed_tokens=1, branch_tokens=6 * 8 * 64, looks=1
    )
    return config
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bank, its text and adapters of its two experts."""
    place = tmp_path_factory.mktemp("reader")
    models = {f"e{i}": tiny_lms.one(tiny_lms.trained(), i) for i in range(2)}
    lm = dataclasses.replace(tiny_lms.BYTES, window=128)
    made = tiny_bank.trained_bank().with_lms(lm, models, tiny_lms.one(tiny_lms.trained(), 2))
    tiny_lms.on_disk(place / "bank", made)
    made.tokenizer.save(place / "bank" / "tokenizer")
    (place / "config.py").write_text(CONFIG)
    for i in range(2):
        (place / f"e{i}").mkdir()
        (place / f"e{i}" / "a.txt").write_text(tiny_lms.letters(i, 6000))
    return place


def arguments(place, *more):
    given = ["--workdir", str(place / "run"), "--config", str(place / "config.py")]
    return [*given, "--bank", str(place / "bank"), "--data-root", str(place), *more]


def test_adapters_are_trained_and_measured_beside_the_other_arms(folder):
    out = folder / "reader.json"
    assert latent_reader.main(arguments(folder, "--out", str(out))) == 0
    found = json.loads(out.read_text())
    assert set(found["experts"]) == {"e0", "e1"} and found["past"] == 3
    assert all(x["best_nll"] <= x["start_nll"] for x in found["experts"].values())

    argv = [
        "--quick",
        "--bank",
        str(folder / "bank"),
        "--text",
        f"files:{folder}/e0",
        "--no-recall",
    ]
    argv += ["--reader", str(folder / "run"), "--tokens", "4000", "--segments", "4"]
    assert latent_memory.main([*argv, "--out", str(out)]) == 0
    bits = json.loads(out.read_text())["bits_per_byte"]
    assert {
        "read",
        "read_int4",
        "read_only",
        "read_near",
        "read_elsewhere",
        "read_only_elsewhere",
    } < set(bits)
    sizes = {arm: row["state_bytes"] for arm, row in bits.items()}
    assert sizes["read_int4"] < sizes["read"] == sizes["read_only"] < sizes["latents_bfloat16"]
    work = {arm: row["flops_per_token"] for arm, row in bits.items()}
    assert work["nothing"] < work["read_only"] < work["read"] and work["sliding"] < work["read"]


def test_bad_input_is_one_line(folder, capsys, tmp_path):
    assert latent_reader.main(arguments(folder, "--experts", "tools")) == 2
    assert latent_reader.main(arguments(folder, "--set", "modular.window=20")) == 2
    argv = ["--quick", "--no-recall", "--reader", str(tmp_path)]
    assert latent_memory.main(argv) == 2
    said = capsys.readouterr().err
    assert said.count("error:") == 3 and "tools" in said and "window=20" in said
    assert "stage.json" in said
