"""The shipped texts: small, loadable, and held out by author."""

import pytest

from cr_jax.data.source_files import SAMPLES
from cr_jax.data.sources import SPLITS, documents

TRAINED = ("novels_en", "novels_de", "statutes")
UNSEEN = ("math", "novels_ru", "poems_zh")


def test_under_three_megabytes_and_named_in_the_readme():
    files = [path for path in SAMPLES.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3_000_000
    readme = (SAMPLES / "README.md").read_text()
    names = {path.name.removesuffix(".jsonl.xz") for path in files if path.name.endswith(".xz")}
    assert names == {*TRAINED, *UNSEEN}
    assert all(f"`{name}`" in readme for name in names)


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_domain_holds_out_whole_groups(name):
    parts = {split: list(documents(f"samples/{name}@{split}")) for split in SPLITS}
    size = {split: sum(len(d.text.encode()) for d in part) for split, part in parts.items()}
    assert size["train"] > 2_000_000 and size["valid"] > 140_000 and size["test"] > 240_000
    groups = [group for part in parts.values() for group in {d.group for d in part}]
    assert len(groups) == len(set(groups))
    texts = [d.text for part in parts.values() for d in part]
    assert len(texts) == len(set(texts)) == len(list(documents(f"samples/{name}")))
    assert not any("gutenberg" in text.lower() for text in texts)
    assert min(map(len, texts)) >= 1000


@pytest.mark.parametrize("name", UNSEEN)
def test_an_unseen_domain_has_test_text_only(name):
    assert sum(len(d.text.encode()) for d in documents(f"samples/{name}@test")) > 190_000
    assert not list(documents(f"samples/{name}@train"))
