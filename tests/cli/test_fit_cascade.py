"""`cr-jax bank fit-cascade`: the fit of the library, on file, from text that is named two ways."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tiny_bank
import tiny_run
import tiny_tokens

from cr_jax.bank import Expert, ExpertBank
from cr_jax.bank.cascade_file import CandidateFit
from cr_jax.bank.screen_file import Screen
from cr_jax.cli import fit_cascade, main
from cr_jax.data import ByteTokenizer
from cr_jax.data.token_folder import TokenFolder
from cr_jax.data.windows import windows_of
from cr_jax.routing import screen_fit
from cr_jax.routing.cascade import Cascade

CONFIG = """
from cr_jax.config import default, domain
def get_config(variant="both"):
    config = default()
    config.train.steps = 1
    config.data.root = {place!r}
    names = ("e0", "e1") if variant == "both" else ("e0",)
    config.data.domains = {{n: domain(*3 * ("files:{{root}}/" + n + ".txt",)) for n in names}}
    return config
"""
TOKENS_CONFIG = """
import sys
sys.path.insert(0, {fixtures!r})
import tiny_tokens
def get_config():
    return tiny_tokens.config({place!r})
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bank of two experts, on letters a-j and q-z, and text of each; bank/, e0.txt, e1.txt."""
    place = tmp_path_factory.mktemp("fit")
    tiny_bank.stored(place / "bank", tiny_bank.trained_bank())
    for name, letters in (("e0", "abcdefghij"), ("e1", "qrstuvwxyz")):
        drawn = np.random.default_rng(0).choice([*letters], 1199)
        (place / f"{name}.txt").write_text("".join(drawn))
    return place


@pytest.fixture
def place(made, tmp_path):
    shutil.copytree(made, tmp_path / "fit")
    (tmp_path / "fit/my.py").write_text(CONFIG.format(place=str(tmp_path / "fit")))
    return tmp_path / "fit"


@pytest.fixture
def call(place, capsys):
    def fit(*words, bank="bank"):
        words = [str(w) for w in ("bank", "fit-cascade", "--bank", place / bank, *words)]
        status = main(words)
        return status, *capsys.readouterr()

    return fit


def both(place):
    return [word for n in ("e0", "e1") for word in ("--valid", f"{n}=files:{place}/{n}.txt")]


def test_it_stores_what_the_library_measures_whichever_way_text_is_named(call, place):
    status, out, err = call("--config", place / "my.py", "--min-candidates", "1")
    assert (status, err) == (0, "")
    assert "100.0000% with" in out and "1.00 experts on average" in out and "offsets" not in out
    stored = [str(place / "bank" / name) for name in ("cascade.json", "own_documents.json")]
    assert out.splitlines()[-3:-1] == stored
    assert out.splitlines()[-1].startswith("no screen: ") and "there are 2" in out
    by_config = (place / "bank/cascade.json").read_bytes()

    bank = ExpertBank.load(place / "bank")
    texts = [(place / f"{n}.txt").read_bytes() for n in bank.names]
    ids = [np.frombuffer(text, np.uint8).astype(np.int32) for text in texts]
    end = ByteTokenizer().end_id  # after each document
    cut = [windows_of(np.append(x, end).astype(np.int32), 16, bank.tokenizer.pad_id) for x in ids]
    expected = Cascade.fit(bank, dict(zip(bank.names, cut, strict=True)), min_candidates=1)
    stored = Cascade.load(place / "bank")
    assert stored.fitted == expected.fitted and stored.fitted.windows == 2 * 1200 // 16

    (place / "bank/cascade.json").unlink()
    assert call(*both(place), "--min-candidates", "1")[0] == 0
    assert (place / "bank/cascade.json").read_bytes() == by_config
    # --valid fills what the config lacks, and stands before what it has.
    short = place / "short.txt"
    short.write_text("abcdefghij" * 20)
    more = "--config", f"{place / 'my.py'}:one", "--valid", f"e1=files:{place}/e1.txt"
    assert call(*more, "--min-candidates", "1")[0] == 0
    assert (place / "bank/cascade.json").read_bytes() == by_config
    assert call(*more, "--valid", f"e0=files:{short}", "--min-candidates", "1")[0] == 0
    assert Cascade.load(place / "bank").fitted.windows == 1200 // 16 + 201 // 16


def test_flags_are_arguments_of_the_fit_and_routing_reads_what_was_fitted(call, place, capsys):
    flags = "--windows", "30", "--at-least", "0.5", "--max-windows", "7"
    assert call(*both(place), *flags)[0] == 0
    made = Cascade.load(place / "bank")
    assert (made.min_candidates, made.max_windows) == (2, 7)  # of two experts, all
    assert (made.fitted.windows, made.fitted.at_least) == (60, 0.5)
    route = ["route", "--bank", str(place / "bank"), "--cascade", "--json", str(place / "e1.txt")]
    assert main(route) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["nearest"] == "e1" and said["bigrams"].keys() == {"e0", "e1"}


def test_the_share_is_the_screens_too_and_an_old_screen_goes(call, place, monkeypatch):
    asked = []
    old = Screen({1: 0.5}, {"e0": {}, "e1": {}}, 0.05, 0.0, 0.999, 1.0, 0.0, 90)

    def fit(bank, documents, at_least):
        asked.append(at_least)
        return old

    monkeypatch.setattr(screen_fit, "fit_screen", fit)
    assert call(*both(place), "--at-least", "0")[0] == 0 and call(*both(place))[0] == 0
    assert asked == [0.0, screen_fit.AT_LEAST] and (place / "bank/screen.json").exists()
    monkeypatch.undo()
    status, out, _ = call(*both(place))
    assert status == 0 and not (place / "bank/screen.json").exists()
    no_screen, deleted = out.splitlines()[-2:]
    assert "no screen" in no_screen and deleted.startswith(f"deleted {place / 'bank/screen.json'}")


def test_text_is_read_in_the_banks_form(call, place):
    lines = "ab\r\n" * 300  # two bytes of four in every line end, one of three in the form of LF
    (place / "e0.txt").write_bytes(lines.encode())
    bank = tiny_bank.trained_bank()
    raw = ExpertBank.create(
        place / "raw", bank.model, bank.tokenizer, bank.scoring, text_form="raw"
    )
    for expert in bank.experts:
        raw = raw.add(Expert(expert.name, expert.params, expert.calibration, bigram=expert.bigram))
    counts = {}
    for folder in ("bank", "raw"):
        assert call(*both(place), "--min-candidates", "1", bank=folder)[0] == 0
        counts[folder] = Cascade.load(place / folder).fitted.windows - 1200 // 16
    assert counts == {"bank": 901 // 16, "raw": 1201 // 16}


def test_a_token_folder_gives_the_fit_of_its_text(call, place, tmp_path, monkeypatch):
    tiny_tokens.write_text(tmp_path)
    tokens = tiny_tokens.write_tokens(tmp_path)
    config = tmp_path / "c.py"
    fixtures = str(pathlib.Path(tiny_tokens.__file__).parent)
    config.write_text(TOKENS_CONFIG.format(fixtures=fixtures, place=str(tmp_path)))
    bank = ExpertBank(tiny_bank.TINY, ByteTokenizer())
    for name, expert in zip(tiny_run.NAMES, tiny_bank.trained_bank().experts, strict=True):
        bank = bank.mount(Expert(name, expert.params, expert.calibration, bigram=expert.bigram))
    tiny_bank.stored(place / "runs", bank)
    fits = []
    for more in ([], [f"--config.data.tokens={tokens}", "--config.data.root=/nowhere"]):
        assert call("--config", config, *more, bank="runs")[0] == 0
        fits.append(Cascade.load(place / "runs").fitted)
    assert fits[0] == fits[1] and fits[0].windows > 4
    raw = f"--config.data.tokens={tokens}", "--config.data.text_form=raw"
    refused(call("--config", config, *raw, bank="runs"), "reads lf_nfc")
    monkeypatch.setattr(TokenFolder, "own_tokenizer", lambda self: tiny_bank.OtherTokenizer())
    refused(call("--config", config, raw[0], bank="runs"), "tokenizer")


def test_offsets_are_named_where_they_take_something_off():
    wide = CandidateFit(1, 0.5, 1000.0, {"e0": 0.25, "e1": 0.0}, 1.0, 2.0, 9)
    said = "\n".join(fit_cascade.said(wide))
    assert "1000.000" in said and "0.250 e0" in said and "e1" not in said


def refused(result, *words):
    """Exit code 2, nothing on stdout, one line on stderr with every word."""
    status, out, err = result
    assert (status, out) == (2, ""), err
    assert err.startswith("cr-jax: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err, err


def test_bad_input_is_one_line_and_no_text_is_read_for_it(call, place, monkeypatch):
    bare = tiny_bank.without_bigrams(tiny_bank.in_memory(2))
    tiny_bank.stored(place / "bare", bare)
    config = ["--config", place / "my.py"]
    monkeypatch.setattr("cr_jax.data.load_corpus", None)  # calling it is an error of another kind
    for words, says in (
        (["--valid", f"e2=files:{place}/e0.txt"], "e2=files"),
        (["--valid", "e0"], "NAME=SOURCE"),
        (["--valid", f"e0=files:{place}/e0.txt"], "for the experts e1: give --config"),
        ([], "for the experts e0, e1: give --config"),
        (["--config", f"{place / 'my.py'}:one"], "for the experts e1: give --valid"),
        ([*both(place)[:2], "--valid", f"e1=files:{place}/none.txt"], "none.txt"),
        ([*config, "--config.data.root=/nowhere"], "/nowhere"),
        ([*config, "--config.data.rot=x"], "rot"),
        (["--config", "no.py"], "no.py"),
        ([*both(place), "--config.data.root=x"], "give that"),
        ([*both(place), "--windows", "1"], "--windows"),
        ([*both(place), "--at-least", "1.5"], "--at-least"),
        ([*both(place), "--at-least", "nan"], "--at-least"),
        ([*both(place), "--min-candidates", "0"], "--min-candidates"),
        ([*both(place), "--max-windows", "-1"], "--max-windows"),
    ):
        refused(call(*words), says)
    refused(call(*config, bank="bare"), "no bigram model for e0, e1")
    refused(call(*config, bank="nothing"), "nothing")
    assert not (place / "bank/cascade.json").exists()


def test_text_that_is_too_short_leaves_the_fit_that_was_there(call, place):
    assert call(*both(place), "--min-candidates", "1")[0] == 0
    before = (place / "bank/cascade.json").read_bytes()
    (place / "e1.txt").write_text("qrst")
    refused(call(*both(place)), "e1 has a single validation window")
    assert (place / "bank/cascade.json").read_bytes() == before
