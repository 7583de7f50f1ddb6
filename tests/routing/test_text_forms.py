"""How a text was saved does not change where it goes; what it says is never changed."""

import dataclasses
import itertools
import json
import unicodedata

import numpy as np
import pytest
import tiny_bank

import cr_jax
from cr_jax import config as settings
from cr_jax import router
from cr_jax.bank import files as bank_files
from cr_jax.bank import pretrained, set_typicality_weight
from cr_jax.cli import main
from cr_jax.data import Mixture, content, experiment_text, load_corpus
from cr_jax.data.sources import Reading
from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.routing import document
from cr_jax.routing.cascade import Cascade
from cr_jax.routing.explain import explain
from cr_jax.routing.reconstruct import marked, reconstruct

TEXT = unicodedata.normalize("NFC", "Die Bäume, schön — café\n\n\tdéjà vu ẹ̀\nq̣ 가각\n") * 3
APART = unicodedata.normalize("NFD", TEXT)
FORMS = {
    "crlf": TEXT.replace("\n", "\r\n").encode(),
    "cr": TEXT.replace("\n", "\r").encode(),
    "nfd": APART.encode(),
    "nfd and crlf": APART.replace("\n", "\r\n").encode(),
    "bom": TEXT.encode("utf-8-sig"),
    "utf-16": TEXT.encode("utf-16"),
    "utf-16 crlf": TEXT.replace("\n", "\r\n").encode("utf-16"),
    "utf-32": APART.encode("utf-32"),
    "nel": TEXT.replace("\n", "\x85").encode(),
    "ls": TEXT.replace("\n", "\u2028").encode(),
}


@pytest.fixture(scope="module")
def bank():
    return tiny_bank.in_memory()


@pytest.fixture(params=FORMS)
def file(request, tmp_path):
    path = tmp_path / "text"
    path.write_bytes(FORMS[request.param])
    return path


def test_a_file_goes_the_same_way_in_every_form(bank, file):
    found = router.route(bank, TEXT)
    assert router.route(bank, file) == found
    assert Cascade(bank, 2).route(file) == Cascade(bank, 2).route(TEXT)
    assert np.array_equal(router.score(bank, file), router.score(bank, TEXT), equal_nan=True)
    explained = explain(bank, file, windows=99)
    assert explained.route == explain(bank, TEXT).route and explained.complete
    assert "".join(span.text for span in explained.spans) == TEXT
    assert explained.text_form == "lf_nfc"


def test_in_a_raw_bank_forms_differ(bank):
    raw = bank.changed(text_form="raw")
    assert router.route(raw, TEXT) == router.route(bank, TEXT)
    for text in (APART, TEXT.replace("\n", "\r\n")):
        assert router.route(raw, text).tokens == len(text.encode()) > len(TEXT.encode())
        assert "".join(span.text for span in explain(raw, text, windows=99).spans) == text


def test_pieces_may_end_anywhere(bank):
    text = APART.replace("\n", "\r\n")[:60]
    blocks = lambda x: np.concatenate([b.tokens[b.mask] for b in document.blocks(bank, x, 4)])
    whole = blocks(text)
    for a, b in itertools.combinations(range(0, len(text) + 1), 2):
        assert np.array_equal(blocks(iter((text[:a], text[a:b], text[b:]))), whole), (a, b)


def test_rebuilding_is_of_the_text_as_it_was_written(bank, file, tmp_path, capsys):
    text = "".join(cr_jax.data.read_text(file))
    parts = list(reconstruct(bank, "e0", file))
    assert bytes(np.concatenate([p.tokens for p in parts]).tolist()).decode() == text
    same = [part._replace(rebuilt=part.tokens) for part in parts]
    assert "".join(marked(bank.tokenizer, same)) == text


def test_a_bank_records_its_form(tmp_path):
    for form in ("lf_nfc", "raw"):
        folder = tmp_path / form
        made = tiny_bank.on_disk(folder, text_form=form)
        assert json.loads((folder / "bank.json").read_text())["text_form"] == form
        set_typicality_weight(folder, 1.0)
        loaded = cr_jax.ExpertBank.load(folder)
        for bank in (
            made,
            loaded,
            loaded.select(["e1"]),
            loaded.unmount("e0"),
            loaded.mount(dataclasses.replace(loaded.expert("e0"), name="new")),
        ):
            assert bank.text_form == form
    assert tiny_bank.on_disk(tmp_path / "usual").text_form == "lf_nfc"


def test_a_bank_without_a_record_reads_the_usual_form_and_one_of_the_future_is_refused(tmp_path):
    tiny_bank.on_disk(tmp_path)
    index = json.loads((tmp_path / "bank.json").read_text())
    index.pop("sha256")
    before = router.route(cr_jax.ExpertBank.load(tmp_path), TEXT)
    for form in (None, "nfkc", ["raw"], 3):
        changed = {**index, "text_form": form}
        if form is None:
            changed.pop("text_form")
        bank_files.write_sealed(tmp_path / "bank.json", changed)
        if form is None:
            old = cr_jax.ExpertBank.load(tmp_path)
            assert old.text_form == "lf_nfc" and router.route(old, TEXT) == before
        else:
            tiny_bank.refuses(
                lambda: cr_jax.ExpertBank.load(tmp_path), "text in the form", "upgrade"
            )


def test_training_reads_the_same_tokens_in_every_form(file, tmp_path):
    (tmp_path / "plain").write_text(TEXT)
    load = lambda path, form: load_corpus(
        [f"files:{path}"], ByteTokenizer(), tmp_path / "cache", reading=Reading(text_form=form)
    )
    assert content(load(file, "lf_nfc")) == content(load(tmp_path / "plain", "lf_nfc"))
    written = "".join(cr_jax.data.read_text(file))
    assert ByteTokenizer().decode(load(file, "raw").tokens) == written != TEXT


def test_the_setting_reaches_the_corpora_and_the_tokenizers_text(tmp_path):
    import tiny_run

    tiny_run.write(tmp_path)
    plain = experiment_text.prepare(tiny_run.experiment(tmp_path), tmp_path / "run")
    for path in tmp_path.glob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    for form in ("lf_nfc", "raw"):
        raw = settings.to_dict(tiny_run.experiment(tmp_path))
        raw["data"]["text_form"] = form
        e = settings.build(raw)
        found = experiment_text.prepare(e, tmp_path / "run")
        for name in tiny_run.NAMES:
            assert not isinstance(found.train[name], Mixture)
            same = content(found.train[name]) == content(plain.train[name])
            assert (
                same
                == np.array_equal(found.valid[name].tokens, plain.valid[name].tokens)
                == (form == "lf_nfc")
            )
        seen = "".join(
            experiment_text._some(e.data.domains["digits"].train, 10**6, Reading(text_form=form))
        )
        assert ("\r" in seen and "\ufeff" in seen) == (form == "raw")
    with pytest.raises(cr_jax.errors.UserError, match="must be one of lf_nfc, raw"):
        settings.build({**raw, "data": {**raw["data"], "text_form": "nfd"}})


def test_a_document_of_nothing_but_a_mark_is_none(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf")
    (tmp_path / "b.txt").write_text("b")
    found = load_corpus(
        [f"files:{tmp_path}"],
        ByteTokenizer(),
        tmp_path / ".cache",
        reading=Reading(text_form="lf_nfc"),
    )
    assert found.names == ["b.txt"]


def test_the_command_says_the_same_and_names_the_form(tmp_path, capsys):
    tiny_bank.on_disk(tmp_path / "bank")
    (tmp_path / "plain").write_text(TEXT)
    for name, data in FORMS.items():
        (tmp_path / name).write_bytes(data)
    files = [str(tmp_path / name) for name in ("plain", *FORMS)]
    assert main(["route", "--bank", str(tmp_path / "bank"), *files]) == 0
    said = [
        line.removeprefix(file)
        for line, file in zip(capsys.readouterr().out.splitlines(), files, strict=True)
    ]
    assert len(set(said)) == 1
    page = tmp_path / "page.html"
    argv = ["route", "--bank", str(tmp_path / "bank"), "--explain"]
    assert main([*argv, "--html", str(page), files[1]]) == 0
    for text in (capsys.readouterr().out, page.read_text()):
        assert "text read with line ends as LF and Unicode as NFC" in text
    assert main([*argv, "--json", files[1]]) == 0
    assert json.loads(capsys.readouterr().out)["explanation"]["text_form"] == "lf_nfc"


def test_the_shipped_bank_reads_the_same_tokens_in_every_form(file):
    bank = cr_jax.ExpertBank.load(pretrained.folder(), [])
    blocks = lambda text: [b.tokens.tolist() for b in document.blocks(bank, text, 8)]
    assert blocks(file) == blocks(TEXT) != blocks(iter([TEXT, "x"]))
