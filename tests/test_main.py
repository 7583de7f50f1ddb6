"""`main.py` answers a wrong --config or --workdir with one line that names it, and runs nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cr_jax.config.files import blame, check_file, config_files
from cr_jax.errors import UserError

ROOT = Path(__file__).parents[1]
FILES = {
    "good.py": "VARIANTS = {'a': 1, 'b': 2}\n\n\ndef get_config(variant='a'):\n"
    "    return VARIANTS[variant]\n",
    "plain.py": "def get_config():\n    return 1 / 0\n",
    "script.py": "import pathlib\npathlib.Path('ran').touch()\n",
    "text.md": "# words, no program\nIt is text.\n",
    "nul.py": "x\0",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(folder, config, *flags) -> str:
    """The one line on stderr of a start that exits with 2 and leaves no file."""
    before = sorted(os.listdir(folder))
    done = subprocess.run(
        [sys.executable, "-B", str(ROOT / "main.py"), f"--config={config}", *flags],
        text=True,
        capture_output=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.strip().count("\n") == 0
    assert sorted(os.listdir(folder)) == before
    return done.stderr


def test_one_line_names_the_file_and_what_it_has(folder):
    said = refused(folder, "good.py:c", "--workdir=run")
    assert "good.py has no variant 'c'; there are: a, b" in said
    assert "script.py has no get_config()" in refused(folder, "script.py", "--workdir=run")
    said = refused(folder, "plain.py", "--workdir=run")
    assert "--config=plain.py: ZeroDivisionError" in said
    quickstart = ROOT / "configs" / "quickstart.py"
    assert "workdir" in refused(folder, quickstart, "--workdir=")
    said = refused(folder, quickstart, "--config.model.windoww=3", "--workdir=run")
    assert "no setting 'windoww'" in said


def test_check_looks_at_studies_and_forms_and_runs_nothing(folder):
    config = ROOT / "configs" / "quickstart.py"
    said = refused(folder, config, "--workdir=run", "--check", "--config.studies=('geometri',)")
    assert "unknown study 'geometri'" in said and "geometry" in said
    said = refused(folder, config, "--workdir=run", "--check", "--config.model.bottleneck=folded")
    assert "folded" in said and "fourier_query" in said


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("text.md", "text.md is not Python (line 2"),
        ("nul.py", "nul.py is not Python"),
        ("nowhere.py", "nowhere.py cannot be read"),
        (".", "cannot be read"),
        ("", "cannot be read"),
        ("script.py", "no get_config()"),
        ("script.py:a", "no get_config()"),
        ("plain.py:a", "plain.py has no variants; write --config=plain.py"),
    ],
)
def test_a_file_is_judged_before_it_is_run(folder, given, words):
    with pytest.raises(UserError) as caught:
        check_file(given)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (folder / "ran").exists()


def test_files_of_settings_pass(folder):
    for name in ("good.py", "good.py:a", "plain.py"):
        check_file(name)
    for path in (ROOT / "configs").glob("*.py"):
        check_file(str(path))


def test_an_error_elsewhere_is_not_the_file_s():
    assert blame("good.py", ValueError("bad flag")) is None


def test_the_files_among_the_arguments():
    argv = [
        "--config=a.py:x",
        "--workdir=w",
        "-config",
        "b.py",
        "--config.model.window=4",
        "--configs=c.py",
        "--",
        "--config=d.py",
    ]
    assert list(config_files(argv)) == ["a.py:x", "b.py"]
    assert list(config_files(["--config"])) == []
