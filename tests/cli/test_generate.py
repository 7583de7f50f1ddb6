"""`cr-jax generate` streams what the Python API gives, and ends cleanly whatever happens."""

import errno
import io
import json
import os
import re
import sys
import types

import pytest
import tiny_bank
import tiny_lms

import cr_jax
from cr_jax.cli import main
from cr_jax.modular import deciding, generate
from cr_jax.modular.deciding import Decision

PROMPT = tiny_lms.letters(0, 40)
ODD = "Größe 12345 !!!! 中文 %%%% ---- {}" * 2
CALL = ("--max-tokens", 40, "--every", 16)


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    return tiny_lms.on_disk(tmp_path_factory.mktemp("generate") / "bank", tiny_lms.bank())


@pytest.fixture
def run(capsys):
    def call(*argv):
        status = main(["generate", *(str(a) for a in argv)])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def refused(result, *words):
    """Exit code 2, nothing on stdout, one line on stderr with every word."""
    status, out, err = result
    assert (status, out) == (2, "")
    assert err.startswith("cr-jax: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err


def api(prompt, **options):
    found = cr_jax.generate(tiny_lms.bank(), prompt, cr_jax.GenerateOptions(**options))
    list(found)
    return found


def test_the_text_is_that_of_the_api(run, bank):
    want = api(PROMPT, max_tokens=40, every=16)
    assert run("--bank", bank, *CALL, PROMPT) == (0, want.text + "\n", "")
    cold = api(PROMPT, max_tokens=9, temperature=0, expert="e1")
    flags = ("--max-tokens", 9, "--temperature", 0, "--expert", "e1")
    assert run("--bank", bank, *flags, PROMPT)[1] == cold.text + "\n" != want.text[:10]
    seed = api(PROMPT, max_tokens=9, temperature=0, expert="seed")
    assert run("--bank", bank, *flags[:4], "--expert", "seed", PROMPT)[1] == seed.text + "\n"


def test_json_is_one_object_of_the_api(run, bank):
    status, out, err = run("--bank", bank, *CALL, "--json", PROMPT)
    assert (status, err, out.count("\n")) == (0, "", 1)
    want = api(PROMPT, max_tokens=40, every=16)
    assert json.loads(out) == json.loads(json.dumps({"prompt": PROMPT, **want.to_json()}))
    assert want.text == json.loads(out)["text"] != ""


def test_the_prompt_comes_from_standard_input(run, bank, monkeypatch):
    data = types.SimpleNamespace(buffer=io.BytesIO(PROMPT.encode()))
    monkeypatch.setattr(sys, "stdin", data)
    assert run("--bank", bank, *CALL, "-")[1] == run("--bank", bank, *CALL, PROMPT)[1]


def test_an_empty_prompt_is_the_seed_s(run, bank):
    want = api("", max_tokens=40, every=16)
    assert want.spans[0].decision.experts == ("seed",)
    assert run("--bank", bank, *CALL) == run("--bank", bank, *CALL, "") == (0, want.text + "\n", "")


def test_who_speaks_is_shown_where_it_changes(run, bank):
    out = run("--bank", bank, *CALL, "--show-experts", "abc")[1]
    want = api("abc", max_tokens=40, every=16)
    first, second = want.spans
    assert out == (
        f"[seed: 3 tokens are too few to judge]\n{first.text}\n"
        f"[{second.decision.experts[0]}: known]\n{second.text}\n"
    )


def test_unknown_text_and_a_long_prompt_are_said(run, bank):
    status, out, err = run("--bank", bank, *CALL, ODD)
    assert status == 0 and out
    assert err == "cr-jax: no expert knows it: residual too high; seed speaks\n"
    assert run("--bank", bank, *CALL, "--json", ODD)[2] == ""
    long = tiny_lms.letters(0, 300)
    err = run("--bank", bank, *CALL, "--positions", 64, long)[2]
    assert err == (
        "cr-jax: the prompt's first 268 of 300 tokens are not seen: a model sees at most 64 "
        "positions (--positions)\n"
    )


def test_a_context_of_any_length_is_kept_and_asked_again(run, bank, tmp_path):
    book = tmp_path / "book.txt"
    book.write_text(tiny_lms.letters(0, 500) + "!!vault=QZ-77!!" + tiny_lms.letters(1, 500))
    flags = ("--bank", bank, "--max-tokens", 9, "--temperature", 0, "--positions", 192)
    ask = (*flags, "--memory", "latents", "--latents-as", "int8")
    status, out, err = run(*ask, "--context", book, "--keep-memory", tmp_path / "m", "!!vault=")
    options = cr_jax.GenerateOptions(
        max_tokens=9,
        temperature=0,
        positions=192,
        memory=cr_jax.MemoryOptions("latents", dtype="int8"),
    )
    want = cr_jax.generate(tiny_lms.bank(), "!!vault=", options, context=book)
    assert (status, out) == (0, "".join(p.text for p in want) + "\n")
    assert f"cr-jax: memory: {want.memory}\n" in err and "bytes" in err
    again = run(*ask, "--context", tmp_path / "m", "--json", "!!vault=")
    assert json.loads(again[1])["memory"] == want.memory.to_json() and again[0] == 0
    # without a memory its end is seen
    plain = run(*flags, "--context", book, "!!vault=")
    assert plain[0] == 0 and "tokens are not seen" in plain[2] and "memory" not in plain[2]


def test_what_a_memory_cannot_be_is_one_line(run, bank, tmp_path):
    book, other = tmp_path / "book.txt", tmp_path / "other"
    book.write_text(tiny_lms.letters(0, 500) + tiny_lms.letters(1, 500))
    ask = ("--positions", 192, "--max-tokens", 1, "--memory", "latents")
    kept = tmp_path / "m"
    assert run("--bank", bank, *ask, "--context", book, "--keep-memory", kept, "abc")[0] == 0
    tiny_lms.on_disk(other, tiny_lms.bank(experts=("e1",)).select(["e1"]))
    refused(run("--bank", other, *ask, "--context", kept, "a"), "'e0', which the bank has no more")
    refused(run("--bank", bank, *ask, "a"), "--context")
    refused(run("--bank", bank, "--keep-memory", kept, "--context", book, "a"), "--memory")
    refused(run("--bank", bank, *ask, "--context", tmp_path / "nowhere", "a"), "nowhere")
    with pytest.MonkeyPatch.context() as patch:  # before the text is read
        patch.setattr(cr_jax.modular.memory, "write_windows", lambda *_: pytest.fail("read"))
        late = (*ask, "--context", book, "--keep-memory", tmp_path, "a")
        refused(run("--bank", bank, *late), "holds something else")
    refused(run("--bank", bank, *ask, "--context", book, "--span", 5, "a"), "does not divide")
    refused(run("--bank", bank, *ask, "--context", book, "--pages", 0, "a"), "--pages 0")
    refused(run("--bank", bank, *ask, "--context", kept, "--memory", "ids", "a"), "keeps latents")
    data = next(kept.glob("*.safetensors"))
    data.write_bytes(data.read_bytes()[:-3])
    refused(run("--bank", bank, *ask, "--context", kept, "a"), "changed or cut short")


@pytest.fixture
def changing(monkeypatch):
    """Who speaks changes every time, and says a line of its own."""
    turn = []

    def again(self, text, now):
        turn.append(0)
        return Decision(("e1",) if len(turn) % 2 else ("e0",), True, "\x1b[2Jhostile\n")

    monkeypatch.setattr(deciding.Judge, "again", again)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_colours_are_for_terminals_that_want_them(bank, changing, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def shown(*more):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        argv = ["generate", "--bank", bank, *map(str, CALL), "--show-experts", *more, PROMPT]
        assert main(argv) == 0
        return terminal.getvalue()

    coloured, plain = shown(), shown("--color", "never")
    assert re.findall(r"\x1b\[(\d+)m\w", coloured) == ["36", "33", "36"]  # e0, e1, e0
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain and "\x1b" not in plain
    assert r"\x1b[2Jhostile" in plain  # what a bank says cannot steer a terminal
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown() == plain


def test_a_model_cannot_steer_a_terminal(bank, monkeypatch):
    piece = generate.Piece("a\x1b[2J\x9bb\n", "e0", False, 4)
    monkeypatch.setattr(generate.Generation, "__iter__", lambda self: iter([piece]))
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["generate", "--bank", bank, PROMPT]) == 0
    assert terminal.getvalue() == "a\ufffd[2J\ufffdb\n"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--max-tokens", 0), ("--max-tokens 0", "at least 1")),
        (("--max-tokens", "x"), ("--max-tokens",)),
        (("--temperature", -1), ("--temperature -1.0",)),
        (("--temperature", "nan"), ("--temperature nan",)),
        (("--top-p", 0), ("--top-p 0.0",)),
        (("--top-p", 1.01), ("--top-p 1.01",)),
        (("--seed", -3), ("--seed -3",)),
        (("--every", -1), ("--every -1",)),
        (("--mix", 3), ("mix=3", "2 experts")),
        (("--mix", 2, "--expert", "e0"), ("--mix 2",)),
        (("--stop", ""), ("a stop is a text",)),
        (("--expert", "nobody"), ("nobody", "e0, e1")),
        (("--positions", 3), ("--positions 3",)),
    ],
)
def test_bad_flags_are_one_line(run, bank, flags, words):
    refused(run("--bank", bank, *flags, PROMPT), *words)
    refused(run("--bank", bank, "--json", *flags, PROMPT), *words)


def test_bad_banks_and_prompts_are_one_line(run, bank, tmp_path, monkeypatch):
    refused(run("--bank", tmp_path / "nowhere", PROMPT), "no bank")
    tiny_bank.on_disk(tmp_path / "plain")
    refused(run("--bank", tmp_path / "plain", PROMPT), "no language models", "configs/modular.py")
    some = tiny_lms.on_disk(tmp_path / "some", tiny_lms.bank(False, ("e1",)))
    refused(run("--bank", some, "--expert", "e0", PROMPT), "'e0' has no language model")
    refused(run("--bank", some, "--expert", "seed", PROMPT), "no seed")
    refused(run("--bank", some, ""), "empty prompt")
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(b"\xff")))
    refused(run("--bank", bank, "-"), "UTF-8")
    monkeypatch.setattr(sys, "stdin", None)
    refused(run("--bank", bank, "-"), "standard input is closed")


def test_a_failure_on_the_way_leaves_no_partial_json(run, bank, monkeypatch):
    def stops(self, text, now):
        raise cr_jax.UserError("the disk is gone")

    monkeypatch.setattr(deciding.Judge, "again", stops)
    refused(run("--bank", bank, *CALL, "--json", PROMPT), "the disk is gone")
    status, _, err = run("--bank", bank, *CALL, PROMPT)
    assert status == 2 and err == "cr-jax: the disk is gone\n"


def test_ctrl_c_on_the_way_is_130(run, bank, monkeypatch):
    def stops(self, text, now):
        raise KeyboardInterrupt

    monkeypatch.setattr(deciding.Judge, "again", stops)
    assert run("--bank", bank, *CALL, "--json", PROMPT) == (130, "", "cr-jax: interrupted\n")


def test_a_reader_that_has_enough_is_one_line(bank, monkeypatch, capsys):
    class Broken(io.StringIO):
        def write(self, text):
            if self.tell() > 10:
                raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
            return super().write(text)

    broken = Broken()
    monkeypatch.setattr(sys, "stdout", broken)
    assert main(["generate", "--bank", bank, *map(str, CALL), PROMPT]) == 2
    assert broken.getvalue() == api(PROMPT, max_tokens=16).text  # the first piece
    assert capsys.readouterr().err == (
        "cr-jax: the output could not be written to its end: Broken pipe\n"
    )


def test_help_says_what_there_is(run):
    out = run("--help")[1]
    for word in ("PROMPT", "--show-experts", "(default 0.8)", "seed speaks", "NO_COLOR"):
        assert word in out
