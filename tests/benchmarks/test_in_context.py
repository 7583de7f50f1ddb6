"""The study of context on a stored bank: positions of several banks, and what is refused."""

import json

import made_experts
import pytest
import tiny_bank

from benchmarks import in_context

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def write_config(folder, names):
    (folder / "tiny.py").write_text(
        "from cr_jax.config import default, domain\n"
        "def get_config():\n"
        "    c = default()\n"
        "    c.train.steps = 1\n"
        f"    c.data.domains = {{n: domain(*[f'files:{folder}/{{n}}.txt'] * 3) for n in {names}}}\n"
        "    return c\n"
    )


@pytest.fixture
def place(tmp_path):
    for i in range(3):
        (tmp_path / f"e{i}.txt").write_text("abcdefghij klmnop " * 40 * (i + 1))
    write_config(tmp_path, ("e0", "e1", "e2"))
    tiny_bank.stored(tmp_path / "bank", tiny_bank.in_memory(3))
    return tmp_path


def called(place, *more):
    flags = "--config", str(place / "tiny.py"), "--out", str(place / "out.json")
    return in_context.main([*flags, "--bank", str(place / "bank"), "--windows", "8", *more])


def test_positions_of_banks_side_by_side(place, monkeypatch):
    made_experts.use(monkeypatch, made_experts.learning)
    assert called(place, "--positions", "--beside", f"same={place / 'bank'}") == 0
    found = json.loads((place / "out.json").read_text())
    assert len(found["by_position"]["bank"]["margin"]) == 16 == found["window"]
    assert found["beside"]["same"]["by_position"] == found["by_position"]
    assert found["by_position"]["windows"] == 24 and found["command"].startswith("python -m")


def test_flags_that_cannot_be_are_one_line(place, capsys):
    for more, word in (
        (("--windows", "3"), "--windows"),
        (("--beside", "bank"), "NAME=BANK"),
        (("--config.data.text_form", "x"), "text_form"),
    ):
        assert called(place, *more) == 2
        error = capsys.readouterr().err
        assert word in error and error.count("\n") == 1
    write_config(place, ("e0", "e1"))
    assert called(place) == 2 and "no domain e2" in capsys.readouterr().err


def test_numbers_are_written_short():
    assert in_context.rounded({"a": [1.23456, (2,)], "b": None, "c": 1}) == {
        "a": [1.2346, [2]],
        "b": None,
        "c": 1,
    }
