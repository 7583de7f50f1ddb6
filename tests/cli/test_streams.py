"""What the programs say and answer where streams are closed, full or broken."""

import errno
import io
import itertools
import json
import os
import subprocess
import sys

import pytest
import tiny_bank
import tiny_run

import cr_jax
from cr_jax import errors
from cr_jax.cli import streams
from cr_jax.experiment import run

HOSTILE = "a\x1b[2J\x9bb\u202ec\u2066d\u200fe\nf\rg\x07\x00h\ud800"


def test_a_problem_is_one_printable_line_of_bounded_length(capsys):
    assert errors.one_line("two\n  lines\t here") == "two lines here"
    assert errors.one_line(HOSTILE).isprintable()
    assert errors.one_line("größe 中文") == "größe 中文"
    long = errors.one_line("x" * 10_000)
    assert len(long) == errors.MOST and long.endswith(" ...")
    assert errors.complain("cr-jax", HOSTILE * 100) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("cr-jax: a")
    assert err[:-1].isprintable() and len(err) < errors.MOST + 20


def test_a_complaint_without_stderr_never_goes_to_stdout(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert errors.complain("cr-jax", "no") == 2
    assert capsys.readouterr().out == ""


def test_what_steers_a_terminal():
    assert errors.STEERING.sub("", HOSTILE) == "a[2Jbcde\nfgh\ud800"
    assert errors.STEERING.sub("", "tab\tline\ngröße ─ 中") == "tab\tline\ngröße ─ 中"


class Broken(io.StringIO):
    """Fails from the `after`-th write on, as a full disk or a pipe without a reader does."""

    def __init__(self, after=0, code=errno.EPIPE):
        super().__init__()
        self.after, self.code = after, code

    def write(self, text):
        if self.after <= 0:
            raise OSError(self.code, os.strerror(self.code))
        self.after -= 1
        return super().write(text)


def test_a_lost_stdout_is_told_once_and_ends_nothing(monkeypatch):
    told, broken = [], Broken(after=1, code=errno.ENOSPC)
    monkeypatch.setattr(sys, "stdout", broken)
    with streams.guarded(told.append):
        for i in range(4):
            sys.stdout.write(str(i))
            sys.stdout.flush()
    assert broken.getvalue() == "0" and told == ["No space left on device"]
    assert sys.stdout is broken


def test_a_broken_stderr_is_nobody_s_problem(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", Broken())
    with streams.guarded(lambda why: pytest.fail(why)):
        print("word", file=sys.stderr)
        print("word")
        errors.complain("error", "no")
    assert capsys.readouterr().out == "word\n"


def test_streams_that_are_closed_from_the_start(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with streams.guarded(told.append):
        streams.need_stdout()
        print("x")
        print("y", file=sys.stderr)
        assert not sys.stdout.isatty() and sys.stdout.encoding == "utf-8"
    assert told == ["it is closed"] and sys.stdout is None


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """{(command, closed descriptors): (status, stdout, stderr)}: one process that forks."""
    folder = tmp_path_factory.mktemp("streams")
    tiny_bank.on_disk(folder / "bank")
    script = """
import itertools, json, os, sys
from cr_jax.cli import main
BANK = ["--bank", "bank"]
COMMANDS = {"list": ["bank", "list", *BANK], "json": ["bank", "list", "--json", *BANK],
            "verify": ["bank", "verify", *BANK], "bad": ["bank", "list", "--bank", "none"],
            "stdin": ["route", *BANK, "-"], "usage": ["what"], "help": ["--help"],
            "add": ["bank", "add", *BANK, "bank/experts/e0", "--name", "more"]}
found = []
for (name, argv), closed in itertools.product(COMMANDS.items(), [c for n in range(4) for c in
                                              itertools.combinations(range(3), n)] + ["full"]):
    if name == "add" and closed != (1,):
        continue  # the bank must stay as it is
    if not (pid := os.fork()):
        for number, file in ((1, "out"), (2, "err")):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if closed == "full":
            os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
            closed = ()
        for number in closed:
            os.close(number)
            setattr(sys, ("stdin", "stdout", "stderr")[number], None)
        status = main(argv)
        # Data files must never have been given a standard descriptor.
        for number in range(3):
            if os.readlink(f"/proc/self/fd/{number}").startswith(os.getcwd() + "/bank"):
                status = 99
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    found.append([name, closed, status, open("out").read(), open("err").read()])
print(json.dumps(found))
"""
    root = os.path.dirname(os.path.dirname(cr_jax.__file__))
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": root, "XDG_CACHE_HOME": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    return {
        (name, closed if closed == "full" else tuple(closed)): rest
        for name, closed, *rest in json.loads(done.stdout)
    }


COMBINATIONS = [c for n in range(4) for c in itertools.combinations(range(3), n)]


@pytest.mark.parametrize("closed", COMBINATIONS)
@pytest.mark.parametrize("name", ["list", "json", "verify", "bad", "stdin", "usage", "help"])
def test_closed_streams_in_every_combination(answers, name, closed):
    status, out, err = answers[name, closed]
    whole = answers[name, ()]
    good = name in ("list", "json", "verify", "help") and 1 not in closed
    assert status == (0 if good else 2)
    assert out == (whole[1] if good else "")  # never a complaint among the answers
    assert err.count("\n") == (0 if good or 2 in closed else 1)
    assert "Traceback" not in err
    if name == "stdin" and 0 in closed and not {1, 2} & set(closed):
        assert "standard input is closed" in err


@pytest.mark.parametrize("name", ["list", "json", "verify", "help"])
def test_a_full_stdout_is_one_line(answers, name):
    status, _, err = answers[name, "full"]
    assert status == 2 and err.count("\n") == 1 and "No space left on device" in err


def test_nothing_is_changed_where_it_could_not_be_said(answers):
    status, _, err = answers["add", (1,)]
    assert status == 2 and err == (
        "cr-jax: the output could not be written to its end: it is closed\n"
    )
    assert "more" not in answers["list", ()][1]


def test_training_ends_well_although_nobody_hears_it(tmp_path, monkeypatch):
    """stdout breaks after two lines and stderr from the start: the bank is made all the same."""
    tiny_run.write(tmp_path, (*tiny_run.NAMES, "marks"))
    config, told = tiny_run.config(tmp_path), []
    config.train.steps, config.studies = 2, ()
    monkeypatch.setattr(sys, "stdout", Broken(after=4))
    monkeypatch.setattr(sys, "stderr", Broken(code=errno.EBADF))
    with streams.guarded(told.append):
        assert run.main(config, str(tmp_path / "run")) == 0
    assert told == ["Broken pipe"]
    assert (tmp_path / "run" / "bank" / "bank.json").is_file()
    assert (tmp_path / "run" / "report.html").is_file()


def test_lines_of_a_run_cannot_steer_a_terminal(capsys):
    run._say(f"report: {HOSTILE}")
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and out[:-1].isprintable()
