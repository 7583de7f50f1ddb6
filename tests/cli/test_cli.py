"""`cr-jax` says what the Python API says, and answers bad input with one line and exit code 2."""

import io
import json
import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tiny_bank

import cr_jax
from cr_jax import router
from cr_jax.cli import main, progress
from cr_jax.data.text_form import text_form
from cr_jax.routing import rounds
from cr_jax.routing.reconstruct import Rebuilt, marked, reconstruct
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.residuals import WindowSums

TEXT = "def route(text):\r\n    return min(experts)\t# ünïcödé 中文\n" * 8


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "bank"
    tiny_bank.on_disk(folder)
    return folder


@pytest.fixture
def bank(stored, tmp_path):
    shutil.copytree(stored, tmp_path / "bank")
    return str(tmp_path / "bank")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode())
    return str(path)


@pytest.fixture
def run(capsys):
    def call(*argv):
        status = main([str(a) for a in argv])
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


def test_json_equals_the_python_api(run, bank, text):
    status, out, err = run("route", "--bank", bank, "--json", text)
    assert (status, err) == (0, "")
    loaded = cr_jax.ExpertBank.load(bank)
    found = cr_jax.route(
        loaded, TEXT, sizes=BatchSizes(experts=2, windows=32)
    )  # as the CLI on a CPU
    said = json.loads(out)
    assert said.pop("file") == text
    assert said.pop("p_value") == found.p_values[found.nearest]
    assert said == found.to_json()


def test_one_line_per_file_in_order_and_standard_input(run, bank, text, tmp_path, monkeypatch):
    (tmp_path / "b").write_text("short")
    data = types.SimpleNamespace(buffer=io.BytesIO(TEXT.encode()))
    monkeypatch.setattr(sys, "stdin", data)
    status, out, err = run("route", "--bank", bank, tmp_path / "b", "-", text)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 3
    assert lines[1].removeprefix("-") == lines[2].removeprefix(text)
    found = cr_jax.route(cr_jax.ExpertBank.load(bank), TEXT)
    assert f"p {found.p_values[found.nearest]:.3f}" in lines[2]
    for name, residual in found.residuals.items():
        assert f"{name} {residual:.3f}" in lines[2]
    assert "(1 window, 5 tokens)" in lines[0]


def test_tra_is_measured_when_it_is_asked_for(run, bank, text):
    plain, asked = (run("route", "--bank", bank, *more, text)[1] for more in ((), ("--tra",)))
    found = cr_jax.route(cr_jax.ExpertBank.load(bank), TEXT, cr_jax.RouteOptions(tra="nearest"))
    assert f"  tra {found.tra[found.nearest]:.3f} | " in asked and "  tra " not in plain
    assert asked.replace(f"  tra {found.tra[found.nearest]:.3f}", "") == plain
    for more, want in (((), {}), (("--tra",), found.tra)):
        assert json.loads(run("route", "--bank", bank, "--json", *more, text)[1])["tra"] == want


def test_a_text_too_short_to_judge(run, bank, tmp_path):
    (tmp_path / "space").write_text(" ")
    for alpha in (0.05, 1):
        status, out, err = run("route", "--bank", bank, "--alpha", alpha, tmp_path / "space")
        assert (status, err) == (0, "") and out.count("\n") == 1
        assert re.search(r": e\d  margin \S+  p -  \(too short to judge\) \| ", out)
    said = json.loads(
        run("route", "--bank", bank, "--json", tmp_path / "space")[1],
        parse_constant=lambda word: pytest.fail(f"{word} is not JSON"),
    )
    assert said["p_value"] is said["known"] is None
    assert said["expert"] == said["nearest"] and set(said["p_values"].values()) == {None}
    out = run("route", "--bank", bank, "--explain", tmp_path / "space")[1]
    assert "too few to say" in out and "nan" not in out
    assert "too short to judge" in run("route", "--help")[1]


def test_a_beginning_is_judged_alone(run, bank, text, tmp_path):
    (tmp_path / "start").write_bytes(text_form(TEXT).encode()[:32])
    one, other = (
        json.loads(run("route", "--bank", bank, "--json", *more)[1])
        for more in (("--max-windows", 2, text), (tmp_path / "start",))
    )
    assert one | {"file": ""} == other | {"file": ""} and one["windows"] == 2
    assert "16 tokens" in run("bank", "list", "--bank", bank)[1]
    refused(run("route", "--bank", bank, "--max-windows", "-1", text), "--max-windows")


def test_an_end_is_judged_alone(run, bank, text, tmp_path):
    (tmp_path / "end").write_bytes(text_form(TEXT).encode()[-16:])
    said = lambda *more: json.loads(run("route", "--bank", bank, "--json", *more)[1]) | {"file": ""}
    alone = said(tmp_path / "end")
    assert alone["windows"] == 1
    assert said("--last-tokens", 16, text) == alone != said(text)
    assert said("--last-tokens", 16, "--exact", text) == alone
    for more in (("--max-windows", 2), ("--stop", 0.9), ("--explain",)):
        refused(run("route", "--bank", bank, "--last-tokens", 9, *more, text), "leave out", more[0])
    refused(run("route", "--bank", bank, "--last-tokens", -1, text), "--last-tokens")


@pytest.mark.parametrize(
    ("old", "new"), [("--head", "--max-windows"), ("--keep", "--min-candidates")]
)
def test_flags_of_the_last_version_work_and_say_their_new_name(run, tmp_path, text, old, new):
    bank = tiny_bank.stored(tmp_path / "three", tiny_bank.in_memory(3)).folder
    status, out, error = run("route", "--bank", bank, old, 2, text)
    assert run("route", "--bank", bank, new, 2, text) == (0, out, "") and status == 0
    assert run("route", "--bank", bank, text)[1] != out
    assert error.count("\n") == 1 and f"{old} is now {new}" in error


@pytest.mark.parametrize("few", [0, 20])
def test_a_terminal_is_shown_how_far_a_file_is(bank, text, monkeypatch, capsys, few):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "200")  # wide enough for all of the bar
    monkeypatch.setattr(progress, "DELAY", 0)
    monkeypatch.setattr(rounds, "LARGE", 0)  # of small files there is nothing to show
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(["route", "--bank", bank, "--max-windows", str(few), text]) == 0
    said = terminal.getvalue()
    assert "text.txt" in said and ("100%|" in said)
    tokens = len(text_form(TEXT).encode())
    assert (f", {-(-tokens // 16)} windows]" in said) == (few == 0)  # not a part of a rate
    assert ("20/20" in said) == (few == 20)
    assert capsys.readouterr().out.count("\n") == 1


def test_alpha_decides_what_is_unknown(run, bank, text):
    assert json.loads(run("route", "--bank", bank, "--json", "--alpha", 0, text)[1])["expert"]
    said = json.loads(run("route", "--bank", bank, "--json", "--alpha", 1, text)[1])
    assert said["expert"] is None and said["nearest"] in said["residuals"]
    assert "unknown (nearest" in run("route", "--bank", bank, "--alpha", 1, text)[1]
    refused(run("route", "--bank", bank, "--alpha", "2", text), "--alpha")
    refused(run("route", "--bank", bank, "--alpha", "x", text), "--alpha")


BAD = {
    "empty": (b"", "empty"),
    "nul": (b"text\0more", "NUL"),
    "latin1": (b"caf\xe9 au lait", "UTF-8"),
    "binary": (bytes(range(256)), "NUL"),
    "cut": ("é".encode()[:1], "UTF-8"),
    "late": (b"x" * 3_000_000 + b"\xff", "UTF-8"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files(run, bank, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(  # the last byte of a large file matters here, not its route
        router,
        "score_bank",
        lambda bank, windows, *_, **__: WindowSums(np.ones((2, len(windows)), np.float32), None),
    )
    data, word = BAD[kind]
    (tmp_path / kind).write_bytes(data)
    refused(run("route", "--bank", bank, tmp_path / kind), kind, word)
    refused(run("reconstruct", "--bank", bank, "--expert", "e0", tmp_path / kind), kind, word)


def test_missing_folder_and_unknown_names(run, bank, text, tmp_path):
    for file, word in (
        (tmp_path / "nowhere", "not exist"),
        (tmp_path, "folder"),
        (text + "/x", "text.txt/x"),
        ("x" * 5000, "xxx"),
    ):
        if file != tmp_path:  # its files are routed: test_route_many.py
            refused(run("route", "--bank", bank, file), word)
        refused(run("reconstruct", "--bank", bank, "--expert", "e0", file), word)
    refused(run("reconstruct", "--bank", bank, "--expert", "nope", text), "nope", "e0, e1")
    for command in (
        ["route", text],
        ["reconstruct", "--expert", "e0", text],
        ["bank", "list"],
        ["bank", "verify"],
        ["bank", "add", text],
        ["bank", "remove", "e0"],
    ):
        at = 2 if command[0] == "bank" else 1
        refused(run(*command[:at], "--bank", tmp_path / "nowhere", *command[at:]), "no bank")
    refused(run("route", "--bank", bank), "FILE")
    refused(run("bank", "remove", "e0"), "--bank")
    refused(run("bank"), "ACTION")
    refused(run(), "COMMAND")
    refused(run("nonsense"), "nonsense")


def test_good_files_are_routed_beside_bad_ones(run, bank, text, tmp_path):
    (tmp_path / "bad").write_bytes(b"good at first\n" * 9 + b"\xff")
    status, out, err = run("route", "--bank", bank, tmp_path / "bad", text, tmp_path / "gone", text)
    assert status == 2
    assert [line.split(":")[0] for line in out.splitlines()] == [text, text]
    assert len(err.splitlines()) == 2 and "bad" in err and "gone" in err


def test_a_changed_bank_is_refused(run, bank, text):
    path = Path(bank) / "experts" / "e1" / "params.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    refused(run("route", "--bank", bank, text), "params.safetensors", "SHA-256")
    refused(run("bank", "verify", "--bank", bank), "params.safetensors", "SHA-256")
    refused(run("bank", "add", "--bank", bank, "--name", "x", path.parent), "SHA-256")
    assert run("reconstruct", "--bank", bank, "--expert", "e0", text)[0] == 0  # e0 is whole
    assert run("bank", "remove", "--bank", bank, "e1")[0] == 0
    assert run("route", "--bank", bank, text)[0] == 0


def test_bank_list_add_remove_verify(run, bank, tmp_path):
    before = {p: p.read_bytes() for p in Path(bank).rglob("*") if p.is_file()}
    status, out, _ = run("bank", "list", "--bank", bank)
    assert status == 0 and [x.split()[0] for x in out.splitlines()[1:]] == ["e0", "e1"]
    assert out.splitlines()[0].endswith("; a residual is nats/token to rebuild the text")
    row = json.loads(run("bank", "list", "--bank", bank, "--json")[1].splitlines()[1])
    assert (row["name"], row["dtype"], row["about"]) == ("e1", "float32", {"seed": 1})
    source = Path(bank) / "experts" / "e0"
    assert run("bank", "add", "--bank", bank, source, "--name", "copy")[:2] == (0, "added copy\n")
    assert cr_jax.ExpertBank.load(bank).names == ("e0", "e1", "copy")
    refused(run("bank", "add", "--bank", bank, source), "already")
    refused(run("bank", "add", "--bank", bank, source, "--name", "../x"), "name")
    refused(run("bank", "add", "--bank", bank, source.parent), "no manifest.json")
    assert run("bank", "verify", "--bank", bank)[0] == 0
    assert run("bank", "remove", "--bank", bank, "copy") == (0, "removed copy\n", "")
    refused(run("bank", "remove", "--bank", bank, "copy"), "copy", "e0, e1")
    assert {p: p.read_bytes() for p in Path(bank).rglob("*") if p.is_file()} == before


def test_reconstruct_marks_what_differs(run, bank, text):
    status, out, err = run("reconstruct", "--bank", bank, "--expert", "e0", text)
    assert (status, err) == (0, "")
    parts = list(reconstruct(cr_jax.ExpertBank.load(bank), "e0", TEXT))
    tokens = np.concatenate([p.tokens for p in parts])
    rebuilt = np.concatenate([p.rebuilt for p in parts])
    assert bytes(tokens.tolist()).decode() == TEXT
    right = (tokens == rebuilt).mean()
    mean = np.concatenate([p.nll for p in parts]).mean(dtype=float)
    assert out.splitlines()[-1] == (
        f"TRA {100 * right:.2f} % of {len(tokens)} tokens, "
        f"nll {mean:.3f} nats/token with all tokens seen"
    )
    assert out.count("[-") == out.count("{+") > 0
    # What is routed has another form than what is rebuilt.
    raw = cr_jax.ExpertBank.load(bank).changed(text_form="raw")
    found = cr_jax.route(raw, TEXT, cr_jax.RouteOptions(tra="all"))
    assert found.tra["e0"] == pytest.approx(right)
    nll = np.concatenate([p.nll for p in parts]).mean(dtype=float)
    assert found.residuals["e0"] == pytest.approx(nll, rel=1e-5)


def test_marks():
    tokenizer = tiny_bank.ByteTokenizer()

    def show(original: bytes, rebuilt: list[int] | bytes, cut=3, **options):
        rows = np.array([list(original), list(rebuilt)], np.int32)
        parts = [
            Rebuilt(*rows[:, i : i + cut], np.zeros(cut, np.float32))
            for i in range(0, rows.shape[1], cut)
        ]
        return "".join(marked(tokenizer, parts, **options))

    plain = "ab\r\n中文é\x1b[2J"
    for cut in range(1, 9):  # no character is torn apart where two parts meet
        padded = plain + "." * (-len(plain.encode()) % cut)
        assert show(padded.encode(), padded.encode(), cut) == padded
    assert show(b"abcd", b"axyd", 4) == "a[-bc-]{+xy+}d"
    assert show(b"ab", [97, 259], 2) == "a[-b-]{++}"  # an id that stands for nothing
    coloured = show(b"a\x1bb\x7f\x9b\n", b"a\x1bc\x7f\x9b\n", 6, terminal=True)
    assert coloured == "a␛\x1b[31;9mb\x1b[0m\x1b[32;1mc\x1b[0m␡\ufffd\n"


def test_ctrl_c_is_130(run, bank, text, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(router, "score_bank", interrupted)
    assert run("route", "--bank", bank, text) == (130, "", "cr-jax: interrupted\n")


def test_a_name_cannot_break_the_line(run, bank, tmp_path):
    path = tmp_path / "new\nline\x1b[2J"
    path.write_text("some text")
    status, out, _ = run("route", "--bank", bank, path)
    assert status == 0 and out.count("\n") == 1 and "\x1b" not in out
    assert json.loads(run("route", "--bank", bank, "--json", path)[1])["file"] == str(path)
    path.write_text("")
    refused(run("route", "--bank", bank, path), "\\x1b[2J is empty")


def test_help_and_version(run):
    status, out, _ = run("--help")
    assert status == 0 and "cr-jax route --bank" in out
    assert all(word in run("route", "--help")[1] for word in ("margin", "nats/token", "alpha"))
    assert "[-original-]{+rebuilt+}" in run("reconstruct", "--help")[1]
    assert run("--version") == (0, f"cr-jax {cr_jax.__version__}\n", "")
    assert {"ExpertBank", "route", "score", "UserError"} <= set(dir(cr_jax))
    with pytest.raises(AttributeError):
        cr_jax.nothing  # noqa: B018
