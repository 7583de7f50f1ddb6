"""The bank in the package is whole, small, and routes texts right after an install."""

import json
import os
import re

import numpy as np
import pytest

from cr_jax.bank import ExpertBank, pretrained
from cr_jax.cli import main
from cr_jax.modular.options import PerplexityOptions
from cr_jax.modular.perplexity import perplexity
from cr_jax.router import route
from cr_jax.routing.content import BLANK, REPEATED
from cr_jax.routing.options import RouteOptions
from cr_jax.routing.result import TOO_LOW
from cr_jax.scoring.calibration import LOW_SHARE

CODE = """\
def parse(lines, strict=False):
    \"\"\"Yields one record per line.\"\"\"
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            key, value = line.split("=", 1)
        except ValueError as error:
            if strict:
                raise SyntaxError(f"line {number} has no '='") from error
            continue
        yield key.strip(), value.strip()


class Reader:
    def __init__(self, path, encoding="utf-8"):
        self.path = path
        self.encoding = encoding

    def __iter__(self):
        with open(self.path, encoding=self.encoding) as stream:
            return iter(list(parse(stream)))
"""


@pytest.fixture(scope="module")
def bank():
    return ExpertBank.load(pretrained.folder())


def test_every_byte_is_as_it_was_written_and_there_are_few(bank):
    assert bank.verify() == []
    assert len(bank.names) >= 8
    assert sum(p.stat().st_size for p in pretrained.folder().rglob("*") if p.is_file()) < 40e6


def test_python_goes_to_python_and_noise_to_nobody(bank):
    assert route(bank, CODE).expert == "python"
    letters = np.random.default_rng(0).choice(list("qxzjkvwy0189#@~^"), 600)
    assert route(bank, "".join(letters)).expert is None


@pytest.mark.parametrize(
    "text, reason",
    [
        ("\n" * 700, BLANK),
        (" " * 700, BLANK),
        ("\t" * 300, BLANK),
        ("\r\n" * 300, BLANK),
        ("\x01\x02" * 150, BLANK),
        ("a" * 1500, REPEATED),
        ("а" * 400, REPEATED),
        (("=" * 70 + "\n") * 8, REPEATED),
        ("the " * 300, REPEATED),
        ("{}" * 400, TOO_LOW),
    ],
)
def test_text_with_less_in_it_than_any_expert_knows_is_not_known(bank, text, reason):
    for found in (route(bank, text), route(bank, text, RouteOptions(max_windows=2))):
        assert (found.expert, found.known, found.reason) == (None, False, reason)
        assert found.nothing_to_judge == (reason in (BLANK, REPEATED))
    free = route(bank, text, RouteOptions(alpha=0))
    assert free.expert == free.nearest and not free.reason


def test_blank_lines_around_a_text_change_no_verdict(bank):
    assert route(bank, "\n" * 70 + CODE + " " * 400).expert == "python"
    one = route(bank, "x")
    assert one.known is None and not one.reason


def test_the_command_says_that_there_is_nothing_to_judge(capsys, tmp_path):
    texts = {"blank": "\n" * 300, "a": "a" * 900, "low": "{}" * 400, "code.py": CODE}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    assert main(["route", *(str(tmp_path / name) for name in texts)]) == 0
    said = [
        re.sub(r"nearest \w+", "nearest E", line.split("  margin ")[0])
        for line in capsys.readouterr().out.splitlines()
    ]
    assert [line.rpartition(os.sep)[2] for line in said] == [
        f"blank: unknown (nearest E; nothing to judge: {BLANK})",
        f"a: unknown (nearest E; nothing to judge: {REPEATED})",
        "low: unknown (nearest E; too predictable)",
        "code.py: python",
    ]
    assert main(["route", "--json", str(tmp_path / "a")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["expert"], found["known"], found["reason"]) == (None, False, REPEATED)
    assert main(["route", "--explain", str(tmp_path / "blank"), str(tmp_path / "low")]) == 0
    out = capsys.readouterr().out
    assert f"unknown: nothing to judge, {BLANK}; nearest is " in out
    assert "unknown: too predictable, there is less in it than in the own text of " in out


def test_the_shipped_numbers_are_those_that_were_measured(bank):
    """Of the bank as it was trained, before its files were renamed."""
    found = route(bank, CODE, RouteOptions(tra="nearest"))
    want = {
        "python": 3.447676,
        "rust": 5.103646,
        "javascript": 5.288936,
        "go": 5.533922,
        "novels_en": 7.941018,
        "statutes": 8.147909,
    }
    assert {n: found.residuals[n] for n in want} == pytest.approx(want, rel=1e-4)
    low = found.p_values["python"] * LOW_SHARE  # of two windows that are easy, but not too easy
    assert low == pytest.approx(1 / 97, abs=0.01) and low > LOW_SHARE * 0.05
    assert found.p_values["javascript"] == pytest.approx(0.01 / (1 - LOW_SHARE))
    assert found.tra["python"] == 1.0


def test_python_s_language_model_predicts_python_best_and_the_seed_comes_second(bank):
    found = perplexity(bank, CODE, PerplexityOptions(prefix=16, every=16))
    alone = {**found.experts, "seed": found.seed}
    assert alone.keys() == {*bank.names, "seed"}
    assert sorted(alone, key=alone.get)[:2] == ["python", "seed"]
    assert found.mixture < found.seed
    assert [turn.expert for turn in found.turns] == ["seed", "python"]


def test_the_command_needs_no_bank_to_read_but_one_to_write(capsys, tmp_path):
    assert main(["bank", "verify"]) == 0
    assert main(["bank", "remove", "python"]) == 2
    assert "--bank" in capsys.readouterr().err
