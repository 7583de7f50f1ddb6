"""Baselines are fitted anew without the domain that is left out."""

import argparse

import pytest
import tiny_run

from benchmarks.bank import ceiling
from cr_jax.studies import baselines

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture
def given(tmp_path, monkeypatch):
    """The arguments of a run of three domains by n-grams alone."""
    domains = tiny_run.write(tmp_path, (*tiny_run.NAMES, "marks"))
    monkeypatch.setattr(ceiling, "BASELINES", ("ngram",))
    (tmp_path / "three.py").write_text(
        "from cr_jax.config import default\n"
        "def get_config():\n"
        "    config = default()\n"
        f"    config.data.domains = {domains!r}\n"
        "    config.train.steps = 1\n"
        "    config.tokenizer.kind = 'bytes'\n"
        "    config.model.window = 12\n"
        "    return config\n"
    )
    return argparse.Namespace(
        config=str(tmp_path / "three.py"),
        workdir=str(tmp_path / "run"),
        overrides=[],
        tokens=2000,
        windows=100,
        jobs=1,
    )


def test_the_text_that_is_left_out_is_never_read_and_is_told(given, monkeypatch):
    read, fit = [], baselines.fit

    def noted(name, corpora, experiment, lengths, budget):
        read.append((set(corpora.train), set(experiment.data.domains)))
        return fit(name, corpora, experiment, lengths, budget)

    monkeypatch.setattr(baselines, "fit", noted)
    found = ceiling.left_out(given, "digits")
    assert read == [({"letters", "marks"}, {"letters", "marks"})]
    assert found.keys() == {f"ngram, {r}" for r in ("max_score", "calibrated", "posterior")}
    for cell in found.values():
        assert cell["auroc"] > 0.9 and cell["false_alarm_at_1pct"] < 0.1


def test_a_config_that_cannot_be_read_is_one_line(tmp_path, capsys):
    argv = ["--config", str(tmp_path / "none.py"), "--workdir", str(tmp_path), "--out", "x"]
    assert ceiling.main(argv) == 2
    assert "none.py" in capsys.readouterr().err
