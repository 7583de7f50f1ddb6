"""`main.py --help` and docs/config.md say every setting, its default and what it means."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from cr_jax.config import Experiment, reference, to_dict

ROOT = Path(__file__).parents[2]
SELF_EVIDENT = {
    "model.encoder_blocks",
    "model.decoder_blocks",
    "optimizer.muon_learning_rate",
    "lm_optimizer.muon_learning_rate",
    "scoring.hidden",
}  # the last: with `parts`


OPEN = (("data", "domains"), ("data", "unseen"), ("modular", "domains"), ("modular", "tries"))


def flat(value, at=()):
    if isinstance(value, dict) and at not in OPEN:
        return {k: v for name, x in value.items() for k, v in flat(x, (*at, name)).items()}
    return {".".join(at): value}


def test_every_setting_is_listed_with_its_default_and_meaning():
    found = {s.name: s for fields in reference.settings().values() for s in fields}
    wanted = flat(to_dict(Experiment()))
    assert found.keys() == wanted.keys()
    for name, setting in found.items():
        assert eval(setting.default) == wanted[name]
        assert setting.meaning or name in SELF_EVIDENT, name
    assert found["model.kernels"].meaning.startswith("auto, xla, triton; Row operations")
    assert found["scoring.rate"].meaning.startswith("how much of z the decoder is given")
    groups = {f.name for f in dataclasses.fields(Experiment) if dataclasses.is_dataclass(f.type)}
    assert groups == reference.settings().keys() - {""}


def test_the_page_is_as_the_schema_has_it(tmp_path, capsys):
    page = ROOT / "docs" / "config.md"
    assert reference.main(["--check", str(page)]) == 0
    other = tmp_path / "config.md"
    other.write_text(page.read_text().replace("`8192`", "`4096`"))
    assert other.read_text() != page.read_text()
    assert reference.main(["--check", str(other)]) == 1
    assert "python -m cr_jax.config.reference >" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_the_flags_and_the_settings(tmp_path, flag):
    done = subprocess.run(
        [sys.executable, "-B", str(ROOT / "main.py"), flag],
        text=True,
        capture_output=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and not done.stderr
    for word in ("--workdir", "--config.train.seconds=0.0", "--config.eval.every", "Scoring"):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert not list(tmp_path.iterdir())


def test_help_beside_a_file_shows_its_values_and_the_defaults():
    shown = reference.as_text({"name": "mine", "seed": 0, "model": {"window": 64, "latents": 8}})
    assert '--config.name="mine" ("experiment")' in shown
    assert "--config.model.window=64 (512)" in shown
    assert "--config.seed=0  " in shown and "--config.model.latents=8  " in shown
    assert reference.as_text({}) == reference.as_text()
