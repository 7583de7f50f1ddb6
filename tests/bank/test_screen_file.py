"""Where bigram models decide: the record on file, and what becomes of it when the bank changes."""

import dataclasses
import json
import shutil

import pytest
from tiny_bank import FLAT, fresh, fresh_bigram, in_memory, one, refuses, stored

from cr_jax.bank import Expert, ExpertBank, screen_file, set_typicality_weight
from cr_jax.bank.bigram_bank import BigramBank
from cr_jax.bank.files import BankFolder, write_sealed
from cr_jax.bank.screen_file import Screen
from cr_jax.routing.ready import bigram_bank

GOOD = Screen(
    {2: 0.25, 4: 0.125},
    {"e0": {2: (1.0, 4.5, 0.5), 4: (1.5, 4.0, 0.0)}, "e1": {}},
    alpha=0.05,
    typicality_weight=0.0,
    at_least=0.999,
    agreement=1.0,
    decided=0.5,
    documents=120,
    few={4: ("e1",)},
)


@pytest.fixture
def folder(tmp_path):
    stored(tmp_path / "bank", in_memory(2))
    screen_file.write(tmp_path / "bank", GOOD)
    return tmp_path / "bank"


def test_the_screen_comes_back_and_belongs_to_the_bank(folder):
    bank = ExpertBank.load(folder)
    assert bank.verify() == []
    assert BigramBank.load(folder).screen == GOOD == bigram_bank(bank).screen
    assert bigram_bank(bank.select(["e1", "e0"])).screen is None
    assert ExpertBank.load(folder, ["e1", "e0"]).screen is None


def test_a_bank_in_memory_keeps_the_screen_it_was_loaded_with(folder):
    bank = ExpertBank.load(folder)
    assert bank.remove("e1").screen is None and bank.changed(seed_lm=None).screen == GOOD
    shutil.rmtree(folder)
    assert bigram_bank(bank).screen == GOOD


def test_a_damaged_screen_is_told_where_it_is_needed(folder):
    (folder / "screen.json").write_text("{}")
    bank = ExpertBank.load(folder)  # so that it can be fitted again
    refuses(lambda: bigram_bank(bank), "screen.json")


@pytest.mark.parametrize("change", ["add", "remove", "weight"])
def test_a_screen_of_another_bank_is_not_used(folder, change):
    bank = ExpertBank.load(folder)
    if change == "add":
        bank.add(Expert("e2", one(fresh(3), 2), FLAT, bigram=fresh_bigram(5)))
    elif change == "remove":
        bank.remove("e1")
    else:
        set_typicality_weight(folder, 1.0)
    assert screen_file.read_of(BankFolder(folder)) is None
    assert BigramBank.load(folder).screen is None


def test_a_changed_or_senseless_screen_is_one_line(folder):
    path = folder / "screen.json"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"0.125", b"0.625"))
    refuses(lambda: BigramBank.load(folder), "screen.json")
    assert any("screen.json" in line for line in BankFolder(folder).verify())
    kept = {k: v for k, v in json.loads(raw).items() if k != "sha256"}
    for field, value in (
        ("margins", {"2": -1.0}),
        ("margins", None),
        ("usual", {"e0": {"2": [5.0, 1.0]}}),
        ("usual", {"e0": {"2": [5.0]}}),
        ("decided", 2.0),
        ("margins", {}),
        ("usual", {"e0": {}}),
        ("usual", {"e0": {}, "e1": {}, "e2": {}}),
        ("documents", -1),
        ("alpha", 10**400),
        ("few", {"3": ["e1"]}),
        ("few", {"4": ["e7"]}),
    ):
        write_sealed(path, {**kept, field: value})
        refuses(lambda: BigramBank.load(folder), "screen", "fit it again")
        assert any("fit it again" in line for line in BankFolder(folder).verify())


def test_only_a_bank_on_disk_with_these_experts_gets_one(folder):
    refuses(lambda: screen_file.write(None, GOOD), "memory")
    other = dataclasses.replace(GOOD, usual={"e0": {}, "e7": {}}, few={})
    refuses(lambda: screen_file.write(folder, other), "e1")
