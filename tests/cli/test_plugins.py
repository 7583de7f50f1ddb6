"""`--plugin` registers a form that a bank needs, and says in one line why it cannot."""

import dataclasses
import sys

import pytest

from cr_jax.cli import main, plugins
from cr_jax.errors import UserError
from cr_jax.models import bottlenecks
from tests.fixtures import tiny_bank

PLUGIN = """\
from cr_jax.models import register_bottleneck
from cr_jax.models.bottlenecks import BOTTLENECKS

register_bottleneck("of_mine", BOTTLENECKS["fold"])
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(bottlenecks, "BOTTLENECKS", dict(bottlenecks.BOTTLENECKS))
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in {"plugin_of_mine", "broken_plugin"} - before:
        sys.modules.pop(name, None)


def test_a_bank_with_a_form_of_one_s_own_is_read_with_its_plugin(folder, capsys, monkeypatch):
    (folder / "plugin_of_mine.py").write_text(PLUGIN)
    (folder / "text.txt").write_text(tiny_bank.TEXT)
    fold = tiny_bank.TINY
    bottlenecks.BOTTLENECKS["of_mine"] = bottlenecks.BOTTLENECKS["fold"]
    monkeypatch.setattr(tiny_bank, "TINY", dataclasses.replace(fold, bottleneck="of_mine"))
    tiny_bank.on_disk(folder / "bank")
    del bottlenecks.BOTTLENECKS["of_mine"]
    route = ["route", "--bank", "bank", "text.txt"]
    assert main(route) == 2
    assert "of_mine" in (said := capsys.readouterr().err) and "--plugin" in said
    assert main([*route, "--plugin", "plugin_of_mine.py"]) == 0
    assert capsys.readouterr().out.startswith("text.txt: ")


def test_the_folder_of_a_plugin_stands_in_for_no_other_module(folder, monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(folder))])
    before = list(sys.path)
    for name in ("colorsys", "beside_mine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (folder / f"{name}.py").write_text("mine = True\n")
    (folder / "plugin_of_mine.py").write_text("import beside_mine, colorsys\n")
    plugins.load(["plugin_of_mine"])
    plugin = sys.modules["plugin_of_mine"]
    assert plugin.beside_mine.mine and not hasattr(plugin.colorsys, "mine")
    assert sys.path == before
    with pytest.raises(UserError, match="beside_too"):
        plugins.load(["beside_too"])
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.py", "there is no such file"),
        ("nowhere_at_all", "ModuleNotFoundError"),
        ("broken_plugin.py", "ZeroDivisionError"),
        ("json.py", "imported already"),
    ],
)
def test_what_cannot_be_imported_is_one_line(folder, capsys, name, says):
    (folder / "broken_plugin.py").write_text("1 / 0\n")
    (folder / "json.py").write_text("")
    assert main(["bank", "list", "--plugin", name]) == 2
    said = capsys.readouterr().err
    assert says in said and f"--plugin {name}" in said and said.count("\n") == 1
