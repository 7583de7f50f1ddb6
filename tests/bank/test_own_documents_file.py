"""Margins on file: of the same experts only, following those that are sealed anew."""

import dataclasses
import json

import numpy as np
import pytest
from tiny_bank import in_memory, refuses, stored

from cr_jax.bank import ExpertBank, own_documents_file
from cr_jax.bank.files import OWN, BankFolder, write_sealed
from cr_jax.host.inside import Inside
from cr_jax.scoring.own_documents import OwnDocuments

NUMBERS = {1: np.linspace(1, 2, 25)}


def of(*against):
    return OwnDocuments(against, NUMBERS, NUMBERS)


@pytest.fixture
def folder(tmp_path):
    bank = stored(tmp_path / "bank", in_memory(3))
    own_documents_file.write(bank.folder, {"e0": of("e1", "e2"), "e1": of("e0")})
    return bank.folder


def test_a_loaded_bank_has_them(folder):
    bank = ExpertBank.load(folder)
    first, second, third = bank.experts
    assert first.own_documents.against == ("e1", "e2") and second.own_documents.against == ("e0",)
    assert third.own_documents is None and bank.verify() == []
    assert ExpertBank.load(folder, "e0").experts[0].own_documents.against == ("e1", "e2")


def test_a_file_of_the_version_without_surprises_is_read(folder):
    with_them = dataclasses.replace(of("e0", "e1"), surprises=NUMBERS)
    own_documents_file.write(folder, {"e2": with_them})
    entries = json.loads((folder / OWN).read_text())["experts"]
    # What the earlier version wrote of an expert, key by key.
    assert set(entries["e0"]) == {"sha256", "measured_with", "residuals", "margins"}
    assert set(entries["e2"]) - set(entries["e0"]) == {"surprises"}
    old, _, new = ExpertBank.load(folder).experts
    assert not old.own_documents.surprises
    assert (new.own_documents.surprises[1] == NUMBERS[1]).all()


def test_a_removed_expert_leaves_the_rest_as_it_is(folder):
    before = ExpertBank.load(folder).expert("e0").own_documents
    bank = ExpertBank.load(folder).remove("e2")
    after = ExpertBank.load(bank.folder)
    assert after.expert("e0").own_documents.against == ("e1",)
    assert (after.expert("e0").own_documents.margins[1] == before.margins[1]).all()
    # Another expert of a name that was measured is not the one that was measured.
    other = dataclasses.replace(in_memory(4).experts[3], name="e2")
    ExpertBank.load(folder).add(other)
    assert ExpertBank.load(folder).expert("e0").own_documents.against == ("e1",)
    assert ExpertBank.load(folder).expert("e2").own_documents is None


def test_what_is_written_of_some_keeps_what_is_right_of_others(folder):
    own_documents_file.write(folder, {"e2": of("e0")})
    found = own_documents_file.read_of(BankFolder(folder))
    assert {n: x.against for n, x in found.items()} == {
        "e0": ("e1", "e2"),
        "e1": ("e0",),
        "e2": ("e0",),
    }
    refuses(lambda: own_documents_file.write(folder, {"e0": of("nobody")}), "nobody")
    refuses(lambda: own_documents_file.write(None, {}), "memory")


def test_damage_is_one_line_that_says_what_to_do(folder):
    text = (folder / OWN).read_text()
    (folder / OWN).write_text(text.replace("1.5", "1.6", 1))
    refuses(lambda: ExpertBank.load(folder), OWN)
    assert any(OWN in line for line in BankFolder(folder).verify())
    kept = {k: v for k, v in json.loads(text).items() if k != "sha256"}
    for experts in ([], {"e0": 3}, {"e0": {**kept["experts"]["e0"], "measured_with": 7}}):
        write_sealed(folder / OWN, {**kept, "experts": experts})
        refuses(lambda: ExpertBank.load(folder), "makes no sense")
        with Inside.at(folder) as inside:
            own_documents_file.reseal(inside, {"old": "new"})  # leaves it as it is
    (folder / OWN).unlink()
    assert ExpertBank.load(folder).expert("e0").own_documents is None


def test_experts_that_were_sealed_anew_keep_their_margins(folder):
    files = BankFolder(folder)
    seal = files.seals("e1")[0]
    with Inside.at(folder) as inside:
        own_documents_file.reseal(inside, {seal: "0" * 64})
    assert own_documents_file.read_of(BankFolder(folder))["e0"].against == ("e2",)
    with Inside.at(folder) as inside:
        own_documents_file.reseal(inside, {"0" * 64: seal})
    assert own_documents_file.read_of(BankFolder(folder))["e0"].against == ("e1", "e2")


def test_experts_of_one_fit_share_a_table_and_too_much_is_refused(folder, monkeypatch):
    own_documents_file.write(
        folder, {f"e{i}": of(*{"e0", "e1", "e2"} - {f"e{i}"}) for i in range(3)}
    )
    assert len(json.loads((folder / OWN).read_text())["tables"]) == 1
    before = (folder / OWN).read_bytes()
    monkeypatch.setattr(own_documents_file, "JSON_MOST", 1000)
    refuses(lambda: own_documents_file.write(folder, {"e0": of("e1")}), "may hold")
    assert (folder / OWN).read_bytes() == before
