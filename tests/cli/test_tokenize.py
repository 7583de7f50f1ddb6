"""`cr-jax tokenize` and the run that reads its folder."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
import tiny_tokens

from cr_jax.cli import main
from cr_jax.data.corpus_draft import Draft
from cr_jax.experiment import run as application

CONFIG = """
import sys
sys.path.insert(0, {fixtures!r})
import tiny_tokens
VARIANTS = {{"few": 50, "all": 0}}
def get_config(variant="all"):
    return tiny_tokens.config({place!r}, max_train_tokens=VARIANTS[variant])
"""
# Chunks of one document, by two processes; at the eighth it is killed.
KILLED = """
import os, signal, sys
from cr_jax.cli import main
from cr_jax.data import encoding
from cr_jax.data.corpus_draft import Draft
encoding.CHUNK, encoding.ALONE, add, count = 1, 0, Draft.add, 0
def added(self, part):
    global count
    count += 1
    if count == 8:
        self._tokens.write(b"torn")
        self._tokens.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, part)
Draft.add = added
sys.exit(main())
"""


@pytest.fixture
def place(tmp_path):
    tiny_tokens.write_text(tmp_path)
    fixtures = str(pathlib.Path(tiny_tokens.__file__).parent)
    (tmp_path / "config.py").write_text(CONFIG.format(fixtures=fixtures, place=str(tmp_path)))
    return tmp_path


@pytest.fixture
def call(place, capsys):
    def tokenize(*more, config="config.py", out="tokens"):
        status = main(["tokenize", f"--config={place / config}", "--out", str(place / out), *more])
        return status, *capsys.readouterr()

    return tokenize


def refused(result, *words):
    status, out, err = result
    assert (status, out) == (2, "") and err.startswith("cr-jax: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err


def test_it_says_what_it_writes_and_takes_the_settings_of_main(call, place):
    status, out, err = call("--jobs", "1")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 8 + 2 and lines[0].startswith("digits train: ")
    assert "tokens/s with 1 processes" in lines[-2]
    assert f"--config.data.tokens={place / 'tokens'}" in lines[-1]
    corpora = json.loads((place / "tokens" / "tokens.json").read_text())["corpora"]
    counts = {
        f"{c['domain']} {c['split']}: {c['tokens']:,} tokens in {c['documents']:,} documents"
        for c in corpora
    }
    assert counts == set(lines[:8])
    assert call()[1].startswith(f"{place / 'tokens'} already holds these tokens")
    for name, *change in (
        ("few", "--config.data.max_train_tokens=50"),
        ("words", "--config.data.max_train_tokens", "50"),
    ):
        assert call(*change, out=name)[0] == 0
    assert call(config="config.py:few", out="variant")[0] == 0
    few = [tiny_tokens.contents(place / n) for n in ("few", "words", "variant")]
    assert few[0] == few[1] == few[2] != tiny_tokens.contents(place / "tokens")


def test_bad_arguments_are_one_line_and_leave_nothing(call, place):
    before = sorted(p.name for p in place.iterdir())
    refused(call(config="nowhere.py"), "nowhere.py cannot be read")
    refused(call(config="config.py:much"), "no variant 'much'; there are: few, all")
    refused(call("--config.train.stepps=3"), "no setting 'stepps'")
    refused(call("--config.train.steps=x"), "--config.train.steps=x")
    refused(call("--steps=3"), "steps")
    refused(call("stray"), "unexpected argument 'stray'")
    refused(call("--jobs=0"), "--jobs=0", "1 to 1024")
    refused(call("--jobs=many"), "--jobs=many")
    refused(call("--config.data.root=/nowhere"), "/nowhere", "matches no file", ".train")
    refused(call("--config.data.max_train_tokens=-1"), "max_train_tokens")
    refused(call("--config.data.tokens=x"), "config.data.tokens", "leave it out")
    refused(call(out="text"), "is no token folder")
    refused(call(out="config.py/x"), "cannot write")
    assert sorted(p.name for p in place.iterdir() if p.name != "__pycache__") == before


def test_help_says_how_to_train_from_the_folder(capsys):
    assert main(["tokenize", "--help"]) == 0
    said = capsys.readouterr().out
    for words in (
        "--config FILE[:VARIANT]",
        "--out FOLDER",
        "--jobs N",
        "--compress",
        "--config.data.tokens=tokens",
        "--config.GROUP.FIELD=VALUE",
    ):
        assert words in said


def test_killed_in_the_middle_it_goes_on_and_leaves_no_process(call, place):
    more = place / "text" / "digits-more"
    more.mkdir()
    for n in range(10):
        (more / f"{n}.txt").write_text(f"{n} {n + 1}\n" * 30)
    digits = "--config.data.domains.digits.train=('files:{root}/digits-more',)"
    root = str(pathlib.Path(application.__file__).parents[2])
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            KILLED,
            "tokenize",
            f"--config={place / 'config.py'}",
            digits,
            "--out",
            str(place / "tokens"),
            "--jobs=2",
        ],
        capture_output=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": root},
    )
    # The pipes are closed, so the processes that encoded text are gone too.
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (place / "tokens").exists()
    (draft,) = (place / ".tokens.making" / "corpora").iterdir()
    assert (draft / "journal.jsonl").read_bytes().count(b"\n") == 7
    status, out, _ = call(digits)
    assert status == 0
    again = call(digits, out="whole")
    new = [
        int(lines.split("tokenised ")[1].split()[0].replace(",", "")) for lines in (out, again[1])
    ]
    chunk = len("0 1\n" * 30) + 1
    assert new[1] - new[0] == 7 * chunk  # what was finished was not encoded again
    assert tiny_tokens.contents(place / "tokens") == tiny_tokens.contents(place / "whole")


def test_ctrl_c_keeps_what_is_finished(call, place, monkeypatch):
    add, count = Draft.add, 0

    def interrupt(self, part):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        add(self, part)

    monkeypatch.setattr(Draft, "add", interrupt)
    status, _, err = call()
    assert (status, err) == (130, "cr-jax: interrupted; run the same command to go on\n")
    assert not (place / "tokens").exists()
    assert call()[0] == 0 and count == 3 + 5


def test_main_trains_and_evaluates_without_the_text(call, place):
    short = dict(steps=6, log_every=2)

    def report(workdir, **data):
        config = tiny_tokens.config(place, **data)
        config.train.update(short)
        assert application.main(config, str(place / workdir)) == 0
        return json.loads((place / workdir / "report.json").read_text())

    expected = report("text-run")
    assert call("--compress")[0] == 0
    shutil.rmtree(place / "text")
    found = report("token-run", tokens=str(place / "tokens"))
    for part in ("fingerprint", "routing", "ood"):
        assert found[part] == expected[part] and found[part]
    losses = lambda run: [
        [row[k] for k in ("step", "expert", "nll")]
        for row in map(json.loads, (place / run / "metrics.jsonl").read_text().splitlines())
    ]
    assert losses("token-run") == losses("text-run") and losses("token-run")
    # Begun with the text, a run goes on with its tokens, and the other way round.
    assert report("text-run", tokens=str(place / "tokens"))["fingerprint"] == found["fingerprint"]


def test_main_refuses_a_wrong_folder_before_training(call, place, capsys):
    assert call()[0] == 0
    one = sorted((place / "tokens" / "corpora").iterdir())[0] / "tokens.npy"
    one.write_bytes(one.read_bytes()[:-2])
    config = tiny_tokens.config(place, tokens=str(place / "tokens"))
    assert application.main(config, str(place / "run")) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and str(one) in err
    assert not (place / "run" / "checkpoints").exists()
