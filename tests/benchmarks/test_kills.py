"""What is counted as lost, as changed and as another end after a grower was killed."""

import argparse
import json
import random

import pytest
import tiny_grow
import zstandard

from benchmarks.continual import kills
from cr_jax.continual.grow import grow
from cr_jax.errors import UserError


@pytest.fixture
def grown(tmp_path):
    """(a bank that was told of six documents, its bytes before)"""
    bank = tiny_grow.bank(tmp_path)
    before = kills.contents(bank)
    kinds = [*tiny_grow.KINDS * 2, "marks", "marks"]
    grow(bank, tiny_grow.of_folder(tiny_grow.inbox(tmp_path / "inbox", kinds)), tiny_grow.OPTIONS)
    return bank, before


def test_nothing_is_lost_where_every_document_is_told_of(grown):
    bank, before = grown
    whole = {"lost": 0, "half_experts": 0, "changed_experts": 0}
    assert kills.left_over(bank, before, 6) == whole
    assert kills.left_over(bank, before, 7)["lost"] == 1
    names, said = kills.decisions(bank)
    assert names == tiny_grow.KINDS and [known for _, known, _ in said].count(False) >= 2


def test_a_kept_text_that_is_gone_and_an_expert_with_other_bytes_are_counted(grown):
    bank, before = grown
    next((bank.parent / "bank.buffer" / "documents").iterdir()).unlink()
    (bank / "experts" / "digits" / "params.safetensors").write_bytes(b"other")
    found = kills.left_over(bank, before, 6)
    assert found["lost"] == 1 and found["changed_experts"] == 1 and found["half_experts"] > 0


def test_new_documents_come_after_half_of_the_known_ones_and_none_twice(tmp_path):
    for name in ("a", "b", "new"):
        (tmp_path / name).mkdir()
        texts = [f"{name} {i % 9} and\u2028more" for i in range(10)]
        lines = [json.dumps({"text": t}, ensure_ascii=False) for t in texts]
        packed = zstandard.compress("\n".join(lines).encode())
        (tmp_path / name / "valid.jsonl.zst").write_bytes(packed)
    a = argparse.Namespace(root=tmp_path, known=["a", "b"], new="new", documents=10, characters=6)
    texts = kills.stream(a, random.Random(0))
    assert len(texts) == len(set(texts)) and max(map(len, texts)) <= 6
    assert not [t for t in texts[:8] if t.startswith("new")]
    with pytest.raises(UserError, match="is not there"):
        kills.stream(argparse.Namespace(**{**vars(a), "new": "gone"}), random.Random(0))
