"""The bank in the package is whole, small, and routes texts right after an install."""

import numpy as np
import pytest

from cr_jax.bank import ExpertBank, pretrained
from cr_jax.cli import main
from cr_jax.router import route
from cr_jax.routing.options import RouteOptions

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


def test_the_shipped_numbers_are_those_that_were_measured(bank):
    """Of the bank as it was trained, before its files were renamed."""
    found = route(bank, CODE, RouteOptions(tra="nearest"))
    want = {"python": 3.447676, "rust": 5.103646, "javascript": 5.288936, "go": 5.533922,
            "novels_en": 7.941018, "statutes": 8.147909}
    assert {n: found.residuals[n] for n in want} == pytest.approx(want, rel=1e-4)
    assert (found.p_values["python"], found.p_values["javascript"]) == (1.0, 0.01)
    assert found.tra["python"] == 1.0


def test_the_command_needs_no_bank_to_read_but_one_to_write(capsys, tmp_path):
    assert main(["bank", "verify"]) == 0
    assert main(["bank", "remove", "python"]) == 2
    assert "--bank" in capsys.readouterr().err
