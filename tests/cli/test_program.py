"""`cr-jax` as a process of its own: its caches, its pipes and what it imports."""

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import jax
import pytest
import tiny_bank

import cr_jax
from cr_jax.cli import program

TEXT = "def route(text):\r\n    return min(experts)\t# ünïcödé 中文\n" * 8


@pytest.fixture
def stored(tmp_path):
    tiny_bank.on_disk(tmp_path / "bank")
    return tmp_path / "bank"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode())
    return str(path)


def environment(tmp_path):
    root = str(Path(cr_jax.__file__).parents[1])
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    return keep | {"PYTHONPATH": root, "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_as_a_program(stored, text, tmp_path):
    """A fresh process: quiet, and it keeps what it compiled."""
    command = [sys.executable, "-c", "import sys; from cr_jax.cli import main; sys.exit(main())"]
    done = subprocess.run(
        [*command, "route", "--bank", str(stored), text],
        capture_output=True,
        text=True,
        env=environment(tmp_path) | {"JAX_PLATFORMS": "cpu"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\S+: (e\d|unknown \(nearest e\d\))  margin .*\)\n", done.stdout)
    assert any((tmp_path / "cache" / "cr-jax" / "programs").iterdir())


def test_a_closed_pipe_is_one_line(stored, tmp_path):
    command = [sys.executable, "-c", "import sys; from cr_jax.cli import main; sys.exit(main())"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*command, "bank", "list", "--bank", str(stored)],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
    )
    os.close(writer)
    assert done.returncode == 2
    assert done.stderr == "cr-jax: the output could not be written to its end: Broken pipe\n"


def test_importing_the_package_or_the_command_does_not_import_jax(tmp_path):
    code = (
        "import sys, cr_jax, cr_jax.cli; cr_jax.__version__; print('jax' in sys.modules);"
        "cr_jax.ExpertBank; print('jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(tmp_path)
    )
    assert done.stdout.split() == ["False", "True"], done.stderr


@pytest.mark.parametrize("message", ["RESOURCE_EXHAUSTED: Out of memory allocating 9 B", None])
def test_too_little_memory_is_one_line(monkeypatch, capsys, text, message):
    def refuse():
        raise jax.errors.JaxRuntimeError(message) if message else MemoryError()

    monkeypatch.setattr(program, "prepare", refuse)
    assert program.main(["route", text]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "not enough memory" in said


def test_other_errors_of_a_device_are_not_hidden(monkeypatch, text):
    def fail():
        raise jax.errors.JaxRuntimeError("INTERNAL: no")

    monkeypatch.setattr(program, "prepare", fail)
    with pytest.raises(jax.errors.JaxRuntimeError):
        program.main(["route", text])


def test_a_shell_is_told_how_a_word_goes_on(monkeypatch, capsys):
    """By argcomplete, where it is installed; it leaves nothing to be run."""
    asked = []
    module = types.ModuleType("argcomplete")

    def autocomplete(parser):
        asked.append(parser.prog)
        raise SystemExit(0)

    module.autocomplete = autocomplete
    monkeypatch.setitem(sys.modules, "argcomplete", module)
    assert program.main(["bank"]) == 2 and not asked
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    assert program.main(["bank"]) == 0 and asked == ["cr-jax"]
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert program.main(["bank"]) == 2
