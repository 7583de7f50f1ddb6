"""A token folder stands for the text to the last bit, or it is refused by name."""

import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_tokens

from cr_jax import config as settings
from cr_jax.data import Mixture, WindowBatches, Windowing, experiment_text, token_folder_writer
from cr_jax.data.corpus_specs import CorpusSpec, all_specs
from cr_jax.data.sources import split_of
from cr_jax.data.token_folder import FORM, TokenFolder, tokenizer_settings
from cr_jax.errors import UserError
from cr_jax.host.files import write_sealed
from cr_jax.training.loop import same_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    tiny_tokens.write_text(folder)
    tiny_tokens.write_tokens(folder)
    return folder


@pytest.fixture
def tokens(made, tmp_path):
    shutil.copytree(made / "tokens", tmp_path / "tokens")
    return tmp_path / "tokens"


def prepared(made, place, change=lambda e: e, **data):
    return experiment_text.prepare(change(tiny_tokens.experiment(made, **data)), place)


def same_windows(one, other):
    assert one.keys() == other.keys()
    for name, windows in one.items():
        for field in ("tokens", "mask", "document"):
            np.testing.assert_array_equal(getattr(windows, field), getattr(other[name], field))


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("mode", ["packed", "padded"])
def test_a_run_reads_the_same_without_its_text(made, tmp_path, compress, mode):
    expected = prepared(made, tmp_path / "one", mode=mode)
    tokens = made / "tokens"
    if compress:
        shutil.copytree(made / "text", tmp_path / "text")
        tokens = tiny_tokens.write_tokens(tmp_path, compress=True)
        shutil.rmtree(tmp_path / "text")
        assert not list(tokens.rglob("tokens.npy"))
    found = prepared(made, tmp_path / "two", root="nowhere", tokens=str(tokens), mode=mode)
    assert found.tokenizer.fingerprint == expected.tokenizer.fingerprint
    assert found.overlap == expected.overlap and expected.overlap
    for split in ("valid", "test", "valid_documents"):
        same_windows(getattr(expected, split), getattr(found, split))
    mixed = found.train["letters"]
    assert isinstance(mixed, Mixture) and mixed.weights == [3.0, 1.0]
    one, two = (
        WindowBatches(text.train, 16, Windowing(12, 3, mode, 256)) for text in (expected, found)
    )
    assert not np.array_equal(one[0]["tokens"], one[1]["tokens"])
    for step in (0, 1, 2, 50, 4000):
        assert one[step].keys() == two[step].keys()
        for key, rows in one[step].items():
            np.testing.assert_array_equal(rows, two[step][key])


def test_nothing_is_written_beside_a_plain_folder_and_packed_ids_are_unpacked_once(
    made, tmp_path, monkeypatch
):
    prepared(made, tmp_path / "plain", tokens=str(made / "tokens"))
    assert not (tmp_path / "plain").exists()
    shutil.copytree(made / "text", tmp_path / "text")
    tokens = tiny_tokens.write_tokens(tmp_path, compress=True)
    before = tiny_tokens.contents(tokens)
    first = prepared(made, tmp_path / "run", tokens=str(tokens))
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.npy")}
    prepared(made, tmp_path / "run", tokens=str(tokens))
    assert len(stamps) == 2 * 7 and {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert tiny_tokens.contents(tokens) == before
    # A damaged copy in the cache is unpacked again.
    place = Path(first.train["digits"].tokens.filename)
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(data)
    again = prepared(made, tmp_path / "run", tokens=str(tokens))
    plain = prepared(made, tmp_path / "plain", tokens=str(made / "tokens"))
    np.testing.assert_array_equal(again.train["digits"].tokens, plain.train["digits"].tokens)


def test_a_run_can_change_from_its_text_to_its_tokens(made):
    record = lambda **data: {
        "experiment": settings.to_dict(tiny_tokens.experiment(made, **data)),
        "model": {},
        "experts": ["digits", "letters"],
        "texts": {},
    }
    same_run(record(), record(tokens="tokens", root="nowhere"))
    with pytest.raises(UserError, match="mode"):
        same_run(record(), record(mode="padded"))


def refused(tokens, made, *words, change=lambda e: e, **data):
    with pytest.raises(UserError) as caught:
        prepared(made, tokens.parent / "run", change, tokens=str(tokens), root="nowhere", **data)
    assert "\n" not in str(caught.value)
    for word in (tokens.name, *words):
        assert word in str(caught.value)


def test_what_does_not_fit_is_told_before_any_ids_are_read(tokens, made, monkeypatch):
    monkeypatch.setattr(TokenFolder, "corpus", lambda *_: pytest.fail("ids were read"))
    last = lambda e: dataclasses.replace(
        e,
        data=dataclasses.replace(
            e.data, unseen={"marks": settings.DomainConfig(test=("files:{root}/other.txt",))}
        ),
    )
    refused(tokens, made, "marks test", change=last)
    small = lambda e: dataclasses.replace(e, model=dataclasses.replace(e.model, vocab_size=100))
    with pytest.raises(UserError, match="vocab_size=100"):
        prepared(made, tokens.parent / "run", small, tokens=str(tokens))


@pytest.mark.parametrize("damage", ["cut", "flip first", "flip last", "longer", "missing"])
def test_every_damaged_file_is_refused_by_name(tokens, made, damage):
    whole = tiny_tokens.contents(tokens)
    # One file of a split stands for those of the others.
    names = [n for n in whole if not n.startswith("corpora/")] + sorted(
        n for n in whole if n.startswith("corpora/")
    )[:3]
    assert len(names) == 5
    for name in names:
        data = bytearray(whole[name])
        if damage == "missing":
            (tokens / name).unlink()
        else:
            data[0 if damage == "flip first" else -1] ^= 0 if damage in ("cut", "longer") else 1
            (tokens / name).write_bytes(
                {"cut": data[:-1], "longer": data + b"\0"}.get(damage, data)
            )
        refused(
            tokens,
            made,
            os.path.basename(name)
            if damage != "missing" or name != "tokens.json"
            else "cr-jax tokenize",
        )
        (tokens / name).write_bytes(whole[name])
    prepared(made, tokens.parent / "run", tokens=str(tokens), root="nowhere")


def test_corpora_that_changed_places_are_refused(tokens, made):
    one, other, *_ = sorted((tokens / "corpora").iterdir())
    one.rename(tokens / "x")
    other.rename(one)
    (tokens / "x").rename(other)
    refused(tokens, made, "corpora", "SHA-256")


def test_links_and_other_files_are_refused(tokens, made):
    (tokens / "notes.txt").write_text("mine")
    refused(tokens, made, "notes.txt", "does not belong")
    (tokens / "notes.txt").unlink()
    (tokens / "corpora" / "empty").mkdir()
    refused(tokens, made, "empty", "does not belong")
    (tokens / "corpora" / "empty").rmdir()
    corpus = next((tokens / "corpora").iterdir())
    (corpus / "tokens.npy").rename(tokens.parent / "ids")
    (corpus / "tokens.npy").symlink_to(tokens.parent / "ids")
    refused(tokens, made, "tokens.npy", "link")
    (corpus / "tokens.npy").unlink()
    os.mkfifo(corpus / "tokens.npy")
    refused(tokens, made, "tokens.npy", "no file")
    (corpus / "tokens.npy").unlink()
    (tokens.parent / "ids").rename(corpus / "tokens.npy")
    corpus.rename(tokens.parent / "corpus")
    corpus.symlink_to(tokens.parent / "corpus")
    refused(tokens, made, corpus.name, "link")


def test_another_format_or_form_is_refused(tokens, made):
    manifest = tokens / "tokens.json"
    record = json.loads(manifest.read_text())
    del record["sha256"]
    for field, value, words in [
        ("format", 2, ("format 2", "reads 1")),
        ("text", "NFC", ("form of the text",)),
        ("groups", "by size", ("form of the groups",)),
        ("corpora", [{}], ("does not describe",)),
        ("corpora", 3, ("does not describe",)),
        ("tokenizer", None, ("does not describe",)),
    ]:
        write_sealed(manifest, {**record, field: value})
        refused(tokens, made, *words)
    tokenizer = {**record["tokenizer"], "fingerprint": "0" * 64}
    write_sealed(manifest, {**record, "tokenizer": tokenizer})
    refused(tokens, made, "tokenizer")


def test_the_form_says_what_the_sources_do():
    digits = {"train": range(8), "valid": [8], "test": [9]}
    for group in map(str, range(50)):
        first = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big")
        assert first % 10 in digits[split_of(group)]
    assert "first 8 bytes (big-endian)" in FORM["groups"] and "0 to 7, 8, 9" in FORM["groups"]


def with_domain(e, name, **change):
    group = "domains" if name in e.data.domains else "unseen"
    domains = dict(getattr(e.data, group))
    domains[name] = dataclasses.replace(domains[name], **change)
    return dataclasses.replace(e, data=dataclasses.replace(e.data, **{group: domains}))


def test_another_config_is_refused(tokens, made):
    also = lambda e: dataclasses.replace(
        e,
        data=dataclasses.replace(
            e.data, domains={**e.data.domains, "marks2": e.data.domains["digits"]}
        ),
    )
    refused(tokens, made, "no tokens of marks2 train", change=also)
    train = ("files:{root}/letters-train.txt",)
    refused(
        tokens,
        made,
        "digits train",
        "letters-train.txt",
        "digits-train.txt",
        change=lambda e: with_domain(e, "digits", train=train),
    )
    refused(
        tokens,
        made,
        "digits valid",
        "digits-test.txt",
        change=lambda e: with_domain(e, "digits", valid=("files:{root}/digits-test.txt",)),
    )
    refused(tokens, made, "marks test", change=lambda e: with_domain(e, "marks", test=train))
    refused(tokens, made, "digits train", "up to 100 tokens", max_train_tokens=100)
    # Fewer domains need less of it.
    few = lambda e: dataclasses.replace(
        e, data=dataclasses.replace(e.data, domains={"digits": e.data.domains["digits"]}, unseen={})
    )
    assert set(prepared(made, tokens.parent / "run", few, tokens=str(tokens)).train) == {"digits"}


def test_records_that_were_grouped_otherwise_are_refused(tokens, made):
    refused(tokens, made, "digits train", "other groups", "grouped by 'owner'", group_key="owner")
    e = sentencepiece()(tiny_tokens.experiment(made))
    other = sentencepiece()(tiny_tokens.experiment(made, group_key="owner"))
    assert tokenizer_settings(e) != tokenizer_settings(other)
    prepared(made, tokens.parent / "run", tokens=str(tokens), max_document_bytes=1)


def test_what_is_no_text_or_also_in_training_text_is_said_without_the_text(made, tmp_path):
    shutil.copytree(made / "text", tmp_path / "text")
    train = tmp_path / "text" / "train"
    train.mkdir()
    shutil.copy(tmp_path / "text" / "digits-test.txt", train)
    (train / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n\0")
    change = lambda e: with_domain(e, "digits", train=("files:{root}/train",))
    said = {}
    tokens = token_folder_writer.write(
        change(tiny_tokens.experiment(tmp_path)), tmp_path / "tokens"
    ).path
    for kind, more in {"text": {}, "tokens": {"tokens": str(tokens), "root": "nowhere"}}.items():
        lines = said[kind] = []
        e = change(tiny_tokens.experiment(tmp_path, **more))
        found = experiment_text.prepare(e, tmp_path / "run", lines.append)
        assert found.overlap["digits"]["test"]["documents"] == 1
        assert not experiment_text.prepare(e, tmp_path / "run", compare=False).overlap
    assert "digits train: left out 1 file that is not text (b.png)" in said["tokens"]
    assert any(line.startswith("note: digits: 1 of 1 test documents") for line in said["tokens"])
    assert said["tokens"] == [line for line in said["text"] if not line.startswith("tokenised ")]


def test_a_folder_below_the_home_folder(made, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(made))
    monkeypatch.chdir(tmp_path)
    found = prepared(made, tmp_path / "run", tokens="~/tokens", root="~/nowhere", cache="~/cache")
    assert set(found.train) == {"digits", "letters"} and not list(tmp_path.iterdir())


def test_no_token_folder_is_one_line(tmp_path, made):
    refused(tmp_path / "nowhere", made, "is no token folder", "cr-jax tokenize")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", made, "is no token folder")


def sentencepiece(folder="", **change):
    return lambda e: dataclasses.replace(
        e,
        **change,
        tokenizer=dataclasses.replace(
            e.tokenizer, kind="sentencepiece", vocab_size=300, folder=folder
        ),
    )


def test_another_tokenizer_is_refused(tokens, made, tmp_path):
    refused(tokens, made, "bytes", "sentencepiece", change=sentencepiece())
    e = sentencepiece()(tiny_tokens.experiment(made))
    trained = token_folder_writer.write(e, tmp_path / "trained").path
    prepared(made, tmp_path / "run", sentencepiece(), tokens=str(trained), root="nowhere")
    refused(trained, made, "seed", change=sentencepiece(seed=1))
    refused(
        trained,
        made,
        "domains",
        change=lambda e: with_domain(
            sentencepiece()(e), "digits", train=("files:{root}/letters-train.txt",)
        ),
    )
    # A folder that the config names is compared where it is there.
    own = sentencepiece(str(trained / "tokenizer"), seed=1)
    prepared(made, tmp_path / "run", own, tokens=str(trained), root="nowhere")
    prepared(made, tmp_path / "run", sentencepiece("/not/here"), tokens=str(trained))
    other = experiment_text.make_tokenizer(
        sentencepiece(seed=2)(
            with_domain(
                tiny_tokens.experiment(made), "digits", train=("files:{root}/marks-test.txt",)
            )
        ),
        tmp_path / "other",
    )
    other.save(tmp_path / "another")
    refused(
        trained,
        made,
        "another tokenizer",
        "another",
        change=sentencepiece(str(tmp_path / "another")),
    )


def test_each_corpus_of_an_experiment_is_listed_once(made):
    e = tiny_tokens.experiment(made, max_train_tokens=400)
    found = all_specs(e)
    assert [str(s) for s in found] == [
        "digits train",
        "letters train",
        "letters train",
        "digits valid",
        "letters valid",
        "digits test",
        "letters test",
        "marks test",
    ]
    assert found[1:3] == [
        CorpusSpec("letters", "train", ("files:{root}/letters-train.txt",), 300),
        CorpusSpec("letters", "train", ("files:{root}/digits-train.txt",), 100),
    ]
    assert found[0].placed("A") == ["files:A/digits-train.txt"]
    assert isinstance(TokenFolder(made / "tokens"), TokenFolder)
