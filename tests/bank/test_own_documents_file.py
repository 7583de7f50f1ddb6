"""Margins on file: of the same experts only, following those that are sealed anew."""

import dataclasses

import numpy as np
import pytest
from tiny_bank import in_memory, refuses, stored

from cr_jax.bank import ExpertBank, own_documents_file
from cr_jax.bank.files import OWN, BankFolder
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
    (folder / OWN).unlink()
    assert ExpertBank.load(folder).expert("e0").own_documents is None
