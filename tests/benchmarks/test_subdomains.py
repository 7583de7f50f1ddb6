"""The 64 narrow domains: who belongs where, and that no document is in two splits."""

import fnmatch
import json
import pathlib

import pytest

from benchmarks.bank import subdomains
from benchmarks.settings_file import load
from cr_jax.data import documents

TABLE = subdomains.TABLE  # as it stands; a fixture replaces it
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Two domains of one folder, one word per document; a third kind belongs to none."""
    monkeypatch.setattr(subdomains, "TABLE", {"code": ("path", {"a": "x/a/*", "b": "x/b/*"})})
    (tmp_path / "code").mkdir()
    lines = [
        {"path": f"x/{kind}/{n}", "text": f"{kind}{n:03d}"} for n in range(120) for kind in "abc"
    ]
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
                    name
                ], (domain, value)


def written(folder):
    """{(name, split): texts}"""
    return {
        (p.parent.name, p.stem): [json.loads(x)["text"] for x in p.read_text().splitlines()]
        for p in folder.rglob("*.jsonl")
    }


def test_a_document_is_in_one_domain_and_one_split(small):
    assert subdomains.main(["--data", str(small), "--out", str(small / "out")]) == 0
    found = written(small / "out")
    assert found.keys() == {(f"code_{n}", s) for n in "ab" for s in ("train", "valid", "test")}
    for (name, _), texts in found.items():
        assert texts and all(text[0] == name[-1] for text in texts)
    every = [text for texts in found.values() for text in texts]
    assert len(every) == len(set(every)) == 240
    train = sum(len(texts) for (_, split), texts in found.items() if split == "train")
    assert 0.6 < train / 240 < 0.95


def test_what_is_written_feeds_the_bank_s_config(small):
    """The specs of configs/bank.py:narrow64, and the names it asks for."""
    made = load(str(ROOT / "configs" / "bank.py:narrow64")).data.domains
    assert sorted(made) == sorted(
        f"{d}_{n}" for d, (_, patterns) in TABLE.items() for n in patterns
    )
    subdomains.make(small, small / "out")
    for split in ("train", "valid", "test"):
        (spec,) = made["legal_law"][split]
        spec = spec.replace("{root}", str(small / "out")).replace("legal_law", "code_a")
        assert [d.text for d in documents(spec)] == written(small / "out")["code_a", split]


def test_a_domain_without_text_is_named_and_nothing_is_written(small, monkeypatch, capsys):
    monkeypatch.setattr(subdomains, "TABLE", {"code": ("path", {"a": "x/a/*", "none": "y/*"})})
    words = ["--data", str(small), "--out", str(small / "out")]
    assert subdomains.main(words) == 2
    said = capsys.readouterr().err
    assert "code_none has no document for train" in said and said.count("\n") == 1
    assert sorted(p.name for p in small.iterdir()) == ["code"]


def test_a_folder_that_holds_something_is_left_alone(small, capsys):
    (small / "out").mkdir()
    (small / "out" / "mine.txt").write_text("mine")
    assert subdomains.main(["--data", str(small), "--out", str(small / "out")]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [p.name for p in (small / "out").iterdir()] == ["mine.txt"]
