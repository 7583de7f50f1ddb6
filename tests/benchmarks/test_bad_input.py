"""Benchmarks answer a missing folder, a bad file of settings and a flag that cannot be meant with
one line and status 2, and write nothing.
"""

import pathlib

import pytest

from benchmarks import throughput
from benchmarks.bank import subdomains
from benchmarks.law import run as law
from benchmarks.law import tokens as law_tokens
from benchmarks.record import bits
from benchmarks.record import tokens as record_tokens
from benchmarks.results import check_folder
from cr_jax.errors import UserError

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
LAW = "--grids {configs}/ablate_latents.py:gpu --tokens none --seconds 9 --out out"
LAW_TOKENS = "--config {configs}/ablate_latents.py:gpu --data none --out out"
CASES = [
    (law, LAW, "none/sources.json"),
    (law, LAW + " --out file/out", "file is no folder"),
    (law, LAW + " --seconds 0", "--seconds"),
    (law, LAW + " --compilers 0", "--compilers"),
    (law, LAW + " --grids {configs}/bank.py", "config.ablation"),
    (law, LAW + " --grids text.md", "text.md is not Python"),
    (law_tokens, LAW_TOKENS, "none/code_python"),
    (law_tokens, LAW_TOKENS + " --test-tokens 0", "--test-tokens"),
    (law_tokens, LAW_TOKENS + " --out damaged", "damaged/sources.json"),
    (law_tokens, LAW_TOKENS + " --out file", "file is no folder"),
    (subdomains, "--data none --out out", "no train*.jsonl in none/code_c"),
    (subdomains, "--data none --out file/out", "file is no folder"),
    (bits, "--workdir none --out out.json", "none/config.json"),
    (bits, "--workdir none --fsq 1 --out out.json", "--fsq must be 0 or 2"),
    (bits, "--workdir none --fsq-seconds 0 --out out.json", "--fsq-seconds"),
    (bits, "--workdir none --out file/bits.json", "file is no folder"),
    (law, LAW + " --grids wrong.py", "wrong.py: ZeroDivisionError"),
    (record_tokens, "--data none --gpt2 none --out out", "none/encoder.json"),
    (throughput, "--models 9b --out out", "9b"),
    (throughput, "--models tiny --seconds 0 --out out", "--seconds"),
    (throughput, "--models tiny --seconds nan --out out", "--seconds"),
]


@pytest.mark.parametrize(
    ("program", "words", "said"),
    CASES,
    ids=[f"{program.__name__.removeprefix('benchmarks.')}-{said}" for program, _, said in CASES],
)
def test_bad_input_is_one_line_and_writes_nothing(
    program, words, said, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("x")
    (tmp_path / "text.md").write_text("# words, no program\nIt is text.\n")
    (tmp_path / "wrong.py").write_text("def get_config():\n    return 1 / 0\n")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "sources.json").write_text("[")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert program.main(words.format(configs=CONFIGS).split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_sources_that_are_whole_are_read(tmp_path):
    """The other way: an earlier call's file is no damaged one."""
    (tmp_path / "sources.json").write_text('{"up": {"vocab_size": 64}}')
    assert law_tokens.read_sources(tmp_path / "sources.json") == {"up": {"vocab_size": 64}}


def test_a_folder_that_can_be_made_is_not_made(tmp_path):
    check_folder(tmp_path)
    check_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file is no folder"):
        check_folder(tmp_path / "file" / "b")
