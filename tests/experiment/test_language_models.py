"""A whole run with language models, and what is refused before its text is read."""

import json
import re

import jax
import pytest
import tiny_run

from cr_jax import config as settings
from cr_jax.errors import UserError
from cr_jax.experiment import checks, run
from cr_jax.modular import recipe


def config(folder):
    made = tiny_run.config(folder)
    made.train.steps = 2
    made.studies = ()
    made.eval.update(windows=8, calibration_windows=40, every_windows=8, examples=0)
    made.lm.update(d_model=16, heads=2, d_ff=24, blocks=1)
    made.lm_optimizer.update(name="adamw", learning_rate=0.01)
    made.modular.update(
        seed_tokens=8 * 16 * 5,
        branch_tokens=8 * 16 * 5,
        window=16,
        seed_batch=8,
        branch_batch=8,
        looks=2,
        arms=("dense_large",),
    )
    made.lm_large.update(d_model=32, heads=2, d_ff=48, blocks=1)
    return made


def test_a_run_trains_a_language_model_for_every_expert(one_device, tmp_path, monkeypatch):
    tiny_run.write(tmp_path, (*tiny_run.NAMES, "marks"))
    wanted = config(tmp_path)
    wanted.studies = ("modular",)
    made, found = settings.build(wanted), []
    train = recipe.train_all
    monkeypatch.setattr(
        run.recipe, "train_all", lambda *a, **k: found.append(train(*a, **k)) or found[-1]
    )
    report = run.run(made, tmp_path / "run")
    assert list(found[0].experts) == list(tiny_run.NAMES)
    notes = report["language_models"]
    assert list(notes) == ["seed", "branches", "dense_large"]
    assert [x["step"] for x in notes["branches"]["looks"]] == [0, 3, 5]
    seed, dense = (notes[n]["train_flops"] for n in ("seed", "dense_large"))
    assert 2.5 * seed < dense <= 3 * seed * 1.0001  # seed and two branches, in whole tokens
    assert notes["dense_large"]["parameters"] > notes["seed"]["parameters"]
    assert report["seconds"]["language models"] > 0
    assert "left_out" not in report["sections"]["modular"]
    after = report["modular"]["prefix"]["6"]["after"]  # half of a window of 12
    assert after.keys() >= {"top1", "label", "mixture", "seed", "dense_large"}
    assert after["label"]["train_tokens"] == 3 * 8 * 16 * 5
    json.loads((tmp_path / "run" / "report.json").read_text())


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("seed_batch", 12, r"config.modular.seed_batch=12 must be a multiple of the 8 devices"),
        ("branch_batch", 12, r"config.modular.branch_batch=12 must be a multiple"),
        ("branch_tokens", 0, r"give both seed_tokens and branch_tokens"),
        ("arms", ("dense", "partition_0"), r"unknown arm 'partition_0'"),
        ("domains", {"fish": {"share": 0.5, "rate": -1.0, "tokens": -1}}, r"domains.fish is no"),
        ("domains", {"digits": {"share": 1.5, "rate": -1.0, "tokens": -1}}, r"digits.share must"),
        ("domains", {"digits": {"share": 0.5, "rate": -0.5, "tokens": -1}}, r"digits.rate must"),
        ("seed_from", "/nowhere", r"seed_from=/nowhere holds no stage.json"),
    ],
)
def test_what_cannot_be_trained_is_one_line_before_text_is_read(
    tmp_path, monkeypatch, capsys, name, value, says
):
    tiny_run.write(tmp_path, (*tiny_run.NAMES, "marks"))
    monkeypatch.setattr(run.experiment_text, "prepare", lambda *_: pytest.fail("text was read"))
    made = config(tmp_path)
    with made.unlocked():
        made.modular[name] = value
    assert run.main(made, str(tmp_path / "run")) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and re.search(says, err), err


def test_several_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="in one process"):
        recipe.check(settings.build(config(tmp_path)))


def test_their_disk_is_asked_for(tmp_path):
    made = settings.build(config(tmp_path))
    with_lms, without = checks.least_bytes(made), tiny_run.config(tmp_path)
    assert with_lms - checks.least_bytes(settings.build(without)) == recipe.least_bytes(made, 258)
    assert recipe.least_bytes(settings.build(without), 258) == 0
    assert recipe.least_bytes(made, 258) > 3 * 4 * 2 * 258 * 16
