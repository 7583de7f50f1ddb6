"""A run's text: budgets dealt over sources, a vocabulary that holds the tokenizer's ids."""

import sys
import types

import pytest
import tiny_run

from cr_jax import config as settings
from cr_jax.config import ModelConfig
from cr_jax.data import ByteTokenizer, Gpt2Tokenizer, count_tokens, documents, experiment_text
from cr_jax.data.corpus_specs import placed
from cr_jax.errors import UserError


def prepared(folder, *train, say=lambda line: None, **data):
    tiny_run.write(folder)
    e = tiny_run.experiment(folder)
    text = {**settings.to_dict(e)["data"], **data}
    text["domains"] = {"digits": {**text["domains"]["digits"], "train": list(train)}}
    e = settings.build({**settings.to_dict(e), "data": text})
    return experiment_text.prepare(e, folder / "run", say)


def test_the_budget_of_a_domain_is_shared_by_the_sources_of_its_mixture(tmp_path):
    one, other = (f"files:{tmp_path}/{k}-train.txt" for k in tiny_run.NAMES)
    mixed = prepared(tmp_path, f"3*{one}", f"1*{other}", max_train_tokens=800).train["digits"]
    assert [len(c.tokens) for c in mixed.corpora] == [600, 200]
    assert count_tokens(mixed) == 800
    plain = prepared(tmp_path, one, other, max_train_tokens=800).train["digits"]
    assert count_tokens(plain) == 800


def test_a_tokenizer_sees_every_source_of_a_domain(tmp_path):
    tiny_run.write(tmp_path)
    specs = [f"files:{tmp_path}/{k}-train.txt" for k in tiny_run.NAMES]
    seen = list(experiment_text._some(specs, 200))
    assert [len(x) for x in seen] == [100, 100]
    assert all(next(documents(s)).text.startswith(x) for s, x in zip(specs, seen, strict=True))


def test_whole_validation_documents_are_there_unless_none_are_wanted(tmp_path):
    tiny_run.write(tmp_path)
    e = tiny_run.experiment(tmp_path)
    found = experiment_text.prepare(e, tmp_path / "run")
    assert set(found.valid_documents) == set(found.valid)
    # One file is one document, of which the first sixteen windows are read.
    assert all(w.mask.all() and len(w) == 16 for w in found.valid_documents.values())
    raw = settings.to_dict(e)
    none = settings.build({**raw, "eval": {**raw["eval"], "calibration_documents": 0}})
    assert not experiment_text.prepare(none, tmp_path / "run").valid_documents
    with pytest.raises(UserError, match="calibration_documents must be a finite number, 0 or"):
        settings.build({**raw, "eval": {**raw["eval"], "calibration_documents": -1}})


def test_what_was_left_out_is_said_in_one_line(tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.txt").write_text("some text\n" * 99)
    (tmp_path / "more" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n\0")
    said = []
    prepared(tmp_path, f"files:{tmp_path}/more", say=said.append)
    assert [line for line in said if "left out" in line] == [
        "digits train: left out 1 file that is not text (b.png)"
    ]


def test_a_line_longer_than_the_setting_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"digits-train\.txt is longer than 99 bytes"):
        prepared(tmp_path, f"files:{tmp_path}/digits-train.txt", max_document_bytes=99)
    with pytest.raises(UserError, match="max_document_bytes must be at least 1"):
        prepared(tmp_path, max_document_bytes=0)


def test_the_home_folder_is_expanded_in_every_path_of_the_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    ByteTokenizer().save(tmp_path / "tok")
    tiny_run.write(tmp_path)
    raw = settings.to_dict(tiny_run.experiment("{root}"))
    raw["data"] |= {"root": "~", "cache": "~/tokens"}
    raw["tokenizer"] = {"kind": "sentencepiece", "folder": "~/tok"}
    text = experiment_text.prepare(settings.build(raw), tmp_path / "run")
    assert text.tokenizer.kind == "bytes" and len(list((tmp_path / "tokens").iterdir())) == 6
    assert not (tmp_path / "~").exists()
    assert placed(["files:{root}/a"], "~/b") == [f"files:{tmp_path}/b/a"]
    assert placed(["files:{root}/a"], "b/") == ["files:b//a"]  # keys of finished corpora stay
    monkeypatch.setitem(sys.modules, "tiktoken", types.ModuleType("tiktoken"))
    monkeypatch.setenv("CR_JAX_GPT2", "~/gpt2")
    with pytest.raises(UserError, match=f"cannot read {tmp_path}/gpt2/encoder.json"):
        Gpt2Tokenizer()


def test_a_vocabulary_holds_the_tokenizers_ids():
    assert experiment_text.sized(ModelConfig(), ByteTokenizer()).vocab_size == 384
    assert experiment_text.sized(ModelConfig(vocab_size=300), ByteTokenizer()).vocab_size == 300
    with pytest.raises(UserError, match="does not hold the 258 ids"):
        experiment_text.sized(ModelConfig(vocab_size=257), ByteTokenizer())


def test_held_out_text_that_is_trained_on_is_said_and_counted(tmp_path):
    said = []
    own = prepared(tmp_path, f"files:{tmp_path}/digits-train.txt", say=said.append)
    assert not [line for line in said if line.startswith("note:")]
    assert {n: set(splits) for n, splits in own.overlap.items()} == {"digits": {"valid", "test"}}
    assert own.overlap["digits"]["test"]["documents"] == 0
    leak = prepared(
        tmp_path, *(f"files:{tmp_path}/digits-{s}.txt" for s in ("train", "test")), say=said.append
    )
    (line,) = [line for line in said if line.startswith("note:")]
    assert "digits: 1 of 1 test documents (100 % of their windows of 64 tokens)" in line
    found = leak.overlap["digits"]["test"]
    assert found["documents"] == found["of_documents"] == 1
    assert found["windows"] == found["of_windows"] > 10
    assert leak.overlap["digits"]["valid"] == own.overlap["digits"]["valid"]
    mixed = prepared(tmp_path, *(f"1*files:{tmp_path}/digits-{s}.txt" for s in ("train", "test")))
    assert mixed.overlap == leak.overlap


def test_processes_that_do_not_report_do_not_compare(tmp_path):
    tiny_run.write(tmp_path)
    e = tiny_run.experiment(tmp_path)
    assert experiment_text.prepare(e, tmp_path / "run", compare=False).overlap == {}


def test_the_group_key_of_the_settings_reaches_the_sources(tmp_path):
    with pytest.raises(UserError, match="no field 'owner' to group by"):
        (tmp_path / "a.jsonl").write_text('{"text": "a", "repo": "b"}\n')
        prepared(tmp_path, f"jsonl:{tmp_path}/a.jsonl@train", group_key="owner")
