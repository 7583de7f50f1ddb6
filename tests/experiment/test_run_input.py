"""What the application answers to bad settings, text, folders and flags, and to Ctrl-C."""

import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest
import tiny_run

from cr_jax.experiment import run

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def bad(tmp_path, capsys):
    """Calls main; -> the one line that it printed to stderr, when it ends with status 2."""
    tiny_run.write(tmp_path, (*tiny_run.NAMES, "marks"))

    def call(change=lambda config: None, workdir=None, argv=()):
        config = tiny_run.config(tmp_path)
        with config.unlocked():
            change(config)
        assert run.main(config, str(workdir or tmp_path / "run"), argv) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: ")
        return lines[0]

    return call


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda c: c.model.update(latent=3), "did you mean 'latents'"),
        (lambda c: c.train.update(steps=0), "exactly one of steps, tokens, seconds"),
        (lambda c: c.train.update(batch=12), "multiple of the 8 devices"),
        (lambda c: c.model.update(heads=3), "multiple of 2 x heads"),
        (lambda c: c.model.update(vocab_size=100), "does not hold the 258 ids"),
        (
            lambda c: c.model.update(bottleneck="folds"),
            "config.model.bottleneck must be one of query",
        ),
        (
            lambda c: c.scoring.update(rate=17),
            "rate=17 must not exceed 16, the channels of a latent",
        ),
        (lambda c: c.data.domains.digits.update(train=("files:/nowhere/*.txt",)), "/nowhere"),
        (lambda c: c.data.domains.digits.update(test=("jsonl:/nowhere.jsonl",)), "/nowhere.jsonl"),
        (lambda c: c.data.domains.digits.update(train=("stdlib@trains",)), "unknown split"),
        (lambda c: c.tokenizer.update(kind="sentencepiece", folder="/nowhere"), "/nowhere"),
        (lambda c: c.update(studies=("astrology",)), "unknown study 'astrology'"),
    ],
    ids=range(12),
)
def test_bad_settings_and_missing_files_are_one_line(bad, change, words):
    assert words in bad(change)


def test_empty_text_is_one_line(bad, tmp_path):
    (tmp_path / "digits-train.txt").write_text("")
    assert "digits-train.txt" in bad()


def test_text_that_is_not_text_is_one_line(bad, tmp_path):
    (tmp_path / "digits-train.txt").write_bytes(b"abc\xff\xfe\x00" * 99)
    assert "digits-train.txt" in bad()


def test_a_workdir_in_use_is_one_line(bad, tmp_path):
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another run is using" in bad()
    assert [p.name for p in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_workdir_that_cannot_be_made_is_one_line(bad, tmp_path):
    (tmp_path / "file").write_text("x")
    assert "cannot be written" in bad(workdir=tmp_path / "file" / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_workdir_is_one_line(bad, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "cannot be written" in bad(workdir=tmp_path / "locked" / "run")


def test_a_stray_argument_is_one_line(bad):
    assert "unexpected argument 'train.steps=3'" in bad(argv=("main.py", "train.steps=3"))


@pytest.mark.parametrize("lost", [False, True])
def test_ctrl_c_between_stages_is_one_line(tmp_path, capsys, monkeypatch, lost):
    """Also where a library's callback swallows the exception."""
    tiny_run.write(tmp_path)

    def pressed(*_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt:
            if not lost:
                raise
        return types.SimpleNamespace(tokenizer=None, train={})

    monkeypatch.setattr(run.experiment_text, "prepare", pressed)
    before = signal.getsignal(signal.SIGINT)
    assert run.main(tiny_run.config(tmp_path), str(tmp_path / "run")) == 130
    assert capsys.readouterr().err.strip() == "stopped; run the same command to go on"
    assert signal.getsignal(signal.SIGINT) is before


def test_as_a_program(tmp_path):
    """A misspelt flag: exit status 2 and one line, no traceback, nothing written."""
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "main.py"),
            f"--config={ROOT / 'configs' / 'quickstart.py'}",
            f"--workdir={tmp_path / 'run'}",
            "--config.train.step=3",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "step" in done.stderr
    assert not (tmp_path / "run").exists()
