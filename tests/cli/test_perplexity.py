"""`cr-jax perplexity` says what the Python API says, file by file."""

import json
import re

import pytest
import tiny_bank
import tiny_lms

import cr_jax
from cr_jax.cli import main
from cr_jax.scoring.batching import BatchSizes

TEXT = tiny_lms.letters(0, 200) + tiny_lms.letters(1, 300)
CALL = ("--prefix", 16, "--every", 16, "--judged", 32, "--window", 64)
FINE = cr_jax.PerplexityOptions(16, 16, 32, window=64)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return tiny_lms.on_disk(tmp_path_factory.mktemp("perplexity") / "bank", tiny_lms.bank())


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text").write_text(TEXT)
    return tmp_path / "text"


@pytest.fixture
def run(capsys):
    def call(*argv):
        status = main(["perplexity", *(str(a) for a in argv)])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def api(text=TEXT):
    # as the command on a CPU
    return cr_jax.perplexity(tiny_lms.bank(), text, FINE, BatchSizes(experts=2, windows=32))


def test_json_is_the_api_s(run, bank, text):
    status, out, err = run("--bank", bank, *CALL, "--json", text, text)
    assert (status, err, out.count("\n")) == (0, "", 2)
    assert json.loads(out.splitlines()[1]) == {"file": str(text), **api().to_json()}


def test_the_table_has_all_that_was_compared(run, bank, text):
    found = api()
    status, out, err = run("--bank", bank, *CALL, text)
    assert (status, err) == (0, "")
    first, turns, head, *rows = out.splitlines()
    bits, ppl = found.bits_per_byte(found.scheduled), found.perplexity(found.scheduled)
    assert first == (f"{text}: {bits:.4f} bits/byte  perplexity {ppl:.4g}  (500 tokens, 500 bytes)")
    at = found.turns[2].start
    assert turns == f"  spoken by: seed 0-15, e0 16-{at - 1}, e1 {at}-499"
    assert head.split() == ["bits/byte", "perplexity"]
    assert [row.split()[0] for row in rows] == list(found.nats)
    assert rows[-1].split()[1] == f"{found.bits_per_byte(found.experts['e0']):.4f}"


def test_a_memory_says_what_it_takes(run, bank, text):
    call = ("--bank", bank, "--window", 128, "--memory", "latents", "--span", 8, text)
    status, out, err = run(*call)
    assert (status, err) == (0, "")
    assert out.splitlines()[1].startswith("  memory: latents in bfloat16, 500 tokens in 32 windows")
    assert json.loads(run("--json", *call)[1])["memory"]["windows"] == 32
    status, out, err = run("--bank", bank, "--window", 128, "--memory", "ids", "--span", 9, text)
    assert (status, out) == (2, "") and "span=9 does not divide" in err


def test_bad_files_cost_a_line_each(run, bank, text, tmp_path):
    (tmp_path / "empty").write_text("")
    (tmp_path / "bad").write_bytes(b"\xff")
    status, out, err = run(
        "--bank", bank, *CALL, tmp_path / "empty", text, tmp_path / "bad", tmp_path / "gone"
    )
    assert status == 2 and err.count("\n") == 3
    assert out == run("--bank", bank, *CALL, text)[1] != ""


def test_bad_flags_and_banks_are_one_line(run, bank, text, tmp_path):
    plain = tmp_path / "plain"
    tiny_bank.on_disk(plain)
    for argv, word in (
        (("--bank", bank, "--prefix", 0, text), "--prefix 0"),
        (("--bank", bank, "--switch", 2, text), "--switch 2.0"),
        (("--bank", plain, text), "no language models"),
        (("--bank", tmp_path / "nowhere", text), "no bank"),
        (("--bank", bank), "FILE"),
    ):
        status, out, err = run(*argv)
        assert (status, out, err.count("\n")) == (2, "", 1) and word in err


def test_many_turns_are_cut_short(run, bank, tmp_path):
    parts = [tiny_lms.letters(i % 2, 64, seed=i) for i in range(16)]
    (tmp_path / "long").write_text("".join(parts))
    out = run("--bank", bank, *CALL, tmp_path / "long")[1]
    turns = out.splitlines()[1]
    assert re.search(r"(, e\d \d+-\d+){11}, and [3-6] more turns$", turns)
