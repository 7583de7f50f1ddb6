"""A run's text: budgets dealt over sources, a vocabulary that holds the tokenizer's ids."""

import pytest
import tiny_run

from cr_jax import config as settings
from cr_jax.config import ModelConfig
from cr_jax.data import ByteTokenizer, count_tokens, documents, experiment_text
from cr_jax.errors import UserError


def prepared(folder, *train, **data):
    tiny_run.write(folder)
    e = tiny_run.experiment(folder)
    text = {**settings.to_dict(e)["data"], **data}
    text["domains"] = {"digits": {**text["domains"]["digits"], "train": list(train)}}
    e = settings.build({**settings.to_dict(e), "data": text})
    return experiment_text.prepare(e, folder / "run")


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


def test_a_vocabulary_holds_the_tokenizers_ids():
    assert experiment_text.sized(ModelConfig(), ByteTokenizer()).vocab_size == 384
    assert experiment_text.sized(ModelConfig(vocab_size=300), ByteTokenizer()).vocab_size == 300
    with pytest.raises(UserError, match="does not hold the 258 ids"):
        experiment_text.sized(ModelConfig(vocab_size=257), ByteTokenizer())
