"""The 64 narrow domains: who belongs where, and that no document is in two splits."""

import fnmatch
import json

import numpy as np
import pytest

from benchmarks.bank import subdomains
from benchmarks.bank.inputs import read_sets
from cr_jax.data import ByteTokenizer
from cr_jax.errors import UserError


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Two domains of one folder, one word per document; a third kind belongs to none."""
    monkeypatch.setattr(subdomains, "TABLE", {"code": ("path", {"a": "x/a/*", "b": "x/b/*"})})
    monkeypatch.setattr(subdomains, "WINDOW", 8)
    (tmp_path / "code").mkdir()
    lines = [{"path": f"x/{kind}/{n}", "text": f"{kind}{n:03d}"}
             for n in range(120) for kind in "abc"]
    (tmp_path / "code/train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_there_are_sixty_four():
    assert sum(len(patterns) for _, patterns in subdomains.TABLE.values()) == 64


def test_no_value_belongs_to_two_domains():
    """Of each pattern the value with nothing, and with something, for its stars."""
    for domain, (_, patterns) in subdomains.TABLE.items():
        for name, pattern in patterns.items():
            for filled in ("", "z", "linux-6.1"):
                value = pattern.replace("*", filled)
                assert [n for n, p in patterns.items() if fnmatch.fnmatchcase(value, p)] == [
                    name], (domain, value)


def test_a_document_is_in_one_domain_and_one_split(small):
    tokenizer = ByteTokenizer()
    found = subdomains.read(small / "code", "path", {"a": "x/a/*", "b": "x/b/*"}, tokenizer,
                            {s: 10_000 for s in ("train", "valid", "test")})
    seen = {}
    for name, splits in found.items():
        for split, ids in splits.items():
            assert len(ids)
            for text in tokenizer.decode(ids[ids < 256]).split(name)[1:]:
                assert text.isdigit()  # nothing of another domain between
                assert seen.setdefault((name, text), split) == split
    assert len(seen) == 240


def test_what_the_bank_is_given(small):
    out = small / "out"
    subdomains.make(small, ByteTokenizer(), out, train_tokens=100, count=2)
    sets = read_sets(out / "sets.npz")
    assert set(sets) == {f"{s}/code.{n}" for s in ("valid", "test") for n in "ab"}
    assert all(w.tokens.shape == (2, 8) and w.mask.all() for w in sets.values())
    assert len(np.load(out / "code.a.train.npy")) == 100


def test_a_domain_without_text_is_named_before_anything_is_written(small, monkeypatch):
    monkeypatch.setattr(subdomains, "TABLE", {
        "code": ("path", {"a": "x/a/*", "none": "y/*"})})
    with pytest.raises(UserError, match=r"code\.none has 0 tokens for train"):
        subdomains.make(small, ByteTokenizer(), small / "out", 100, 2)
    assert not (small / "out").exists()


@pytest.mark.parametrize("words", [["--windows", "1"], ["--train-tokens", "15"]])
def test_arguments_that_allow_too_little_are_not_blamed_on_the_text(small, capsys, words):
    ByteTokenizer().save(small / "tokenizer")
    assert subdomains.main(["--data", str(small), "--tokenizer", str(small / "tokenizer"),
                            "--out", str(small / "out"), *words]) == 2
    assert "error: --windows must be at least 2, --train-tokens at least 16" in (
        capsys.readouterr().err)
    assert not (small / "out").exists()


def test_ids_of_more_than_sixteen_bits_are_refused(small):
    large = ByteTokenizer()
    for size, fits in ((1 << 16, True), ((1 << 16) + 1, False)):
        large.vocab_size = size
        if fits:
            subdomains.make(small, large, small / "fits", 100, 2)
        else:
            with pytest.raises(UserError, match="65,537 ids do not fit"):
                subdomains.make(small, large, small / "out", 100, 2)
    assert not (small / "out").exists()
