"""The law on an accelerator, tiny: the search, a stack as one program, predictions first."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.law import plot, run, search, tokens
from benchmarks.law.program import Program, Rows
from benchmarks.settings_file import load
from cr_jax.config import ModelConfig, OptimizerConfig, TrainConfig
from cr_jax.errors import UserError
from cr_jax.studies.capacity import ablation, analysis, capacity

LADDER = (16, 24, 32, 48, 64, 96, 128, 192, 256)
CONFIG = """
from ml_collections import ConfigDict
from cr_jax.config import default, domain


def get_config(variant="grid"):
    config = default().unlock()
    for name in ("up", "leaps"):
        config.data.domains[name] = domain(*("samples/novels_en@" + s
                                             for s in ("train", "valid", "test")))
    config.tokenizer.kind = "bytes"
    config.model.update(window=8, d_model=8, d_latent=8, heads=1, d_ff=8, encoder_blocks=1,
                        decoder_blocks=1, bottleneck="fold", fold_channels=4, tie_embeddings=True)
    config.train.update(batch=4, tokens=32)
    config.ablation = ConfigDict(dict(
        windows=(4, 8), latents=(1, 2), d_latent=(8,), seeds=(0, 1), holdout=((2, 8),)))
    return {"grid": lambda: config}[variant]().lock()
"""


def searched(stars, start, ladder=LADDER, threshold=0.99):
    """Runs the search on cells whose logit(TRA) falls by 4 per doubling through L* = star."""
    measured = {}
    while (w := search.next_window(ladder, measured, 10**6, threshold, start)) is not None:
        assert w in ladder and w not in measured
        level = math.log(threshold / (1 - threshold))
        measured[w] = [1 / (1 + math.exp(-level - 4 * math.log2(s / w))) for s in stars]
    return measured


@pytest.mark.parametrize("start", [1, 40, 100, 10_000])
@pytest.mark.parametrize("star", [17.0, 60.0, 100.0, 250.0])
def test_a_search_ends_with_neighbouring_rungs_on_both_sides(star, start):
    measured = searched([star], start)
    low = max(w for w in LADDER if w <= star)
    assert low in measured and LADDER[LADDER.index(low) + 1] in measured
    assert len(measured) < len(LADDER)
    found, censored = capacity.capacity(
        *zip(*((w, t[0], 10**6) for w, t in measured.items())), 0.99
    )
    assert not censored and found == pytest.approx(star, rel=1e-3)


def test_a_good_guess_costs_two_windows():
    assert len(searched([100.0], 100.0)) == 2


def test_every_cell_of_a_stack_is_served():
    measured = searched([30.0, 100.0], 100.0)
    assert {24, 32, 96, 128} <= set(measured)


@pytest.mark.parametrize(("star", "end"), [(5.0, 16), (1000.0, 256)])
def test_a_search_stops_at_the_ladders_end(star, end):
    measured = searched([star], 64)
    assert end in measured and len(measured) < len(LADDER)


def test_neighbours():
    assert search.neighbours(LADDER, 16) == [24]
    assert search.neighbours(LADDER, 64) == [48, 96]
    assert search.neighbours(LADDER, 256) == [192]


def text(step, count=600, window=8):
    """Ids that go on by `step` from anywhere."""
    first = np.random.default_rng(step).integers(0, 64, (count, 1))
    return ((first + np.arange(window) * step) % 64).astype(np.uint16).ravel()


def test_a_cell_learns_the_same_whatever_is_trained_beside_it():
    model = ModelConfig(
        vocab_size=64,
        window=8,
        latents=2,
        d_model=16,
        d_latent=16,
        heads=2,
        d_ff=16,
        encoder_blocks=1,
        decoder_blocks=1,
        bottleneck="fold",
        fold_channels=8,
        tie_embeddings=True,
    )
    settings = model, OptimizerConfig(learning_rate=1e-2), TrainConfig(batch=16, steps=1)
    train = np.stack([text(1), text(5)])
    rows = Rows(
        train,
        np.array([len(t) for t in train], np.int32),
        np.stack([text(s, 64).reshape(64, 8) for s in (1, 5)]),
    )
    both, curves, _ = Program(*settings, 2, rows)([0, 3], [0, 1], rows, 80)
    alone = Program(*settings, 1, rows)
    one, curve, _ = alone([3], [1], rows, 80)
    assert one[0]["nll"] == pytest.approx(both[1]["nll"], rel=1e-3)
    assert np.allclose(curve[0], curves[1], rtol=1e-2)
    assert curve[0][-1] < 0.7 * curve[0][0] and one[0]["tra"] > 0.2
    # Controls: another seed or another text is another result; no step, no learning.
    assert alone([4], [1], rows, 80)[0][0]["nll"] != one[0]["nll"]
    assert alone([3], [0], rows, 80)[0][0]["nll"] != one[0]["nll"]
    assert alone([3], [1], rows, 1)[0][0]["nll"] > 1.3 * one[0]["nll"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "grid.py").write_text(CONFIG)
    made = tmp_path / "tokens"
    made.mkdir()
    for step, name in ((1, "up"), (5, "leaps")):
        np.save(made / f"{name}.train.npy", text(step))
        np.save(made / f"{name}.test.npy", text(step, 40))
    (made / "sources.json").write_text(
        json.dumps({n: {"vocab_size": 64, "xz_bits": b} for n, b in (("up", 2.0), ("leaps", 3.0))})
    )
    return tmp_path


def test_a_run_predicts_before_it_measures_and_leaves_lines_that_the_study_reads(
    folder, monkeypatch
):
    """Programs that follow a known law stand in for training."""

    class Known:
        compile_seconds = 0.0

        def __init__(self, model, optimizer, train, cells, rows):
            self.star, self.window = 0.8 * model.latents * model.d_latent, model.window

        def __call__(self, seeds, sources, rows, steps):
            seen.append((self.window, (folder / "out" / "predictions.json").exists()))
            found = []
            for seed, source in zip(seeds, sources):
                star = self.star * math.exp(0.02 * seed) / (1 + source)
                level = math.log(99) + 4 * math.log2(star / self.window)
                found.append(
                    {
                        "tra": 1 / (1 + math.exp(-level)),
                        "nll": 1.0,
                        "window_exact": 0.5,
                        "tokens": 10**6,
                        "windows": 40,
                    }
                )
            return found, [[1.0]] * len(seeds), 0.5

    seen = []
    monkeypatch.setattr(run, "Program", Known)
    wide = (
        CONFIG.replace("(4, 8)", "(4, 8, 16, 32)")
        .replace("(1, 2)", "(1, 2, 4)")
        .replace("d_latent=(8,)", "d_latent=(8, 16)")
        .replace("batch=4", "batch=8")
    )
    (folder / "grid.py").write_text(wide)
    arguments = [
        "--tokens",
        str(folder / "tokens"),
        "--grids",
        f"{folder / 'grid.py'}:grid",
        "--seconds",
        "60",
        "--eval-tokens",
        "256",
        "--commit",
        "abc",
        "--uniform",
        "--compilers",
        "2",
        "--out",
        str(folder / "out"),
    ]
    assert run.main(arguments) == 0
    rows = analysis.load(folder / "out" / "ablation.jsonl")
    said = json.loads((folder / "out" / "predictions.json").read_text())
    report = json.loads((folder / "out" / "ablation.json").read_text())
    assert {r["domain"] for r in rows} == {"up", "leaps", "uniform"}
    assert said["rows"] == sum(not r["held_out"] for r in rows)
    assert [after for _, after in seen] == sorted(after for _, after in seen)
    assert len(said["points"]) == 3 and len(report["misses"]) == 3
    law = analysis.analyse(rows, (0.99,), said)["laws"]["0.99"]
    assert law == report["laws"]["0.99"] and law["verdict"] == "law"
    assert law["exponents"]["latents"]["value"] == pytest.approx(1, abs=0.05)
    assert law["exponents"]["xz_bits"]["value"] < 0
    assert report["xla_flags"] == os.environ.get("XLA_FLAGS", "")
    # A second call would mix two runs in one file.
    assert run.main(arguments) == 2


def test_a_run_trains(folder):
    out = folder / "out"
    grid = (
        CONFIG.replace("(1, 2)", "(1,)")
        .replace("windows=(4, 8)", "windows=(8,)")
        .replace(", holdout=((2, 8),)", "")
    )
    (folder / "grid.py").write_text(grid)
    assert (
        run.main(
            [
                "--tokens",
                str(folder / "tokens"),
                "--grids",
                str(folder / "grid.py"),
                "--seconds",
                "60",
                "--eval-tokens",
                "64",
                "--compilers",
                "1",
                "--set",
                "model.vocab_size=64",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    rows = analysis.load(out / "ablation.jsonl")
    assert {(r["domain"], r["seed"]) for r in rows} == {
        (d, s) for d in ("up", "leaps") for s in (0, 1)
    }
    assert all(r["train_tokens"] == 32 and r["tokens"] == 64 for r in rows)
    assert json.loads((out / "ablation.json").read_text())["laws"]["0.99"]["verdict"] == (
        "undetermined"
    )


def test_arrays_are_made_from_a_config(folder, capsys):
    out = folder / "made"
    assert (
        tokens.main(
            [
                "--config",
                f"{folder / 'grid.py'}:grid",
                "--data",
                str(folder),
                "--work",
                str(folder / "work"),
                "--out",
                str(out),
                "--train-tokens",
                "5000",
                "--test-tokens",
                "3000",
            ]
        )
        == 0
    )
    sources = json.loads((out / "sources.json").read_text())
    assert set(sources) == {"up", "leaps"}
    assert 1.5 < sources["up"]["xz_bits"] < 5 and sources["up"]["bytes_per_token"] < 1.1
    assert len(np.load(out / "up.train.npy")) == 5000 and len(np.load(out / "up.test.npy")) == 3000


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: (f / "tokens" / "sources.json").unlink(), "benchmarks.law.tokens"),
        (
            lambda f: (f / "tokens" / "sources.json").write_text('{"up": {"vocab_size": 64}}'),
            "leaps",
        ),
        (lambda f: np.save(f / "tokens" / "up.test.npy", text(1, 2)), "shorter than a step"),
    ],
)
def test_bad_input_is_named_in_one_line(folder, capsys, change, named):
    change(folder)
    assert (
        run.main(
            [
                "--tokens",
                str(folder / "tokens"),
                "--grids",
                str(folder / "grid.py"),
                "--seconds",
                "9",
                "--out",
                str(folder / "out"),
            ]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1


def test_a_variant_of_a_config_is_loaded_by_name(folder):
    assert load(f"{folder / 'grid.py'}:grid").model.d_model == 8
    with pytest.raises(UserError, match="no variant 'nosuch'"):
        load(f"{folder / 'grid.py'}:nosuch")


@pytest.fixture
def stored():
    """Lines of the run that docs/results reports."""
    pytest.importorskip("matplotlib")
    text = (Path(__file__).parents[2] / "results" / "law_gpu" / ablation.LINES).read_text()
    return [json.loads(line) for line in text.splitlines()]


def drawn(folder, rows):
    folder.mkdir()
    (folder / ablation.LINES).write_text("".join(json.dumps(r) + "\n" for r in rows))
    return plot.main([str(folder)])


def test_a_picture_is_drawn_where_there_is_a_law_and_refused_elsewhere(tmp_path, capsys, stored):
    assert drawn(tmp_path / "law", stored) == 0
    assert (tmp_path / "law" / "law.png").read_bytes().startswith(b"\x89PNG")
    assert drawn(tmp_path / "none", stored[:6]) == 2
    assert "error: " in (said := capsys.readouterr().err) and "there is no law to draw" in said
    bare = [{k: v for k, v in r.items() if k != "held_out"} for r in stored]
    assert drawn(tmp_path / "bare", bare) == 2
    assert "a line has no 'held_out'" in capsys.readouterr().err
    left = {n: {f.name for f in (tmp_path / n).iterdir()} for n in ("law", "none", "bare")}
    assert left == {
        "law": {ablation.LINES, "law.png"},
        "none": {ablation.LINES},
        "bare": {ablation.LINES},
    }


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch, stored):
    figure = pytest.importorskip("matplotlib.figure").Figure

    def broken(self, path, **settings):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    assert drawn(tmp_path / "law", stored) == 0
    old = (tmp_path / "law" / "law.png").read_bytes()
    monkeypatch.setattr(figure, "savefig", broken)
    assert plot.main([str(tmp_path / "law")]) == 2
    assert (tmp_path / "law" / "law.png").read_bytes() == old
    assert len([*(tmp_path / "law").iterdir()]) == 2


def test_more_domains_than_colours_can_be_drawn(tmp_path, stored):
    more = [r | {"domain": f"{r['domain']}{i}"} for i in range(4) for r in stored]
    assert len({r["domain"] for r in more}) > 10
    assert drawn(tmp_path / "law", more) == 0
