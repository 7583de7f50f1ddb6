"""TFDS by name: a tiny data set written as ArrayRecord here, read without TensorFlow."""

import sys

import pytest

from cr_jax.data.sources import documents, fingerprint
from cr_jax.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("tfds")

    class TinyTexts(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Three texts, found again by their files only."""

        pkg_dir_path = where  # a test module is no package to look for a description in
        __module__ = "tiny_texts"  # of a module in a package TFDS wants importlib_resources
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "repo": tfds.features.Text()}
            )
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i, text in enumerate(["eins", "zwei ä", "drei"]):
                yield i, {"text": text, "repo": f"r{i}"}

    TinyTexts(data_dir=where, file_format="array_record").download_and_prepare()
    return where


def test_reads_a_prepared_set_without_tensorflow(folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    found = list(documents("tfds:tiny_texts/train"))
    assert {(d.text, d.group) for d in found} == {("eins", "r0"), ("zwei ä", "r1"), ("drei", "r2")}
    assert {d.text for d in documents("tfds:tiny_texts/train#repo")} == {"r0", "r1", "r2"}
    assert fingerprint("tfds:tiny_texts/train") != fingerprint("tfds:tiny_texts/train#repo")
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("spec", ["tfds:no_such_set/train", "tfds:tiny_texts/no_such_split"])
def test_what_is_not_there_is_one_line(folder, monkeypatch, spec):
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    with pytest.raises(UserError) as error:
        list(documents(spec))
    assert "\n" not in str(error.value) and "prepare" in str(error.value)


@pytest.mark.parametrize("size", [0, 70_000])
def test_a_file_that_was_cut_short_is_one_line(folder, monkeypatch, size):
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    (path,) = folder.rglob("*.array_record*")
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="cannot be read") as error:
            list(documents("tfds:tiny_texts/train"))
        assert "\n" not in str(error.value)
    finally:
        path.write_bytes(whole)
