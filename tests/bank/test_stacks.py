"""Stacks [E, ...] are made once, when they are asked for, and adding an expert makes none."""

import dataclasses
import os

import jax
import numpy as np
import pytest
import tiny_bank
from tiny_bank import FLAT, fresh, leaves, one

from cr_jax import router
from cr_jax.bank import Expert, ExpertBank, expert_folder, parameters, selected
from cr_jax.config import SEEN, Scoring
from cr_jax.host import inside
from cr_jax.routing.other_rule import by_rule

STACKS = ("params", "weights", "bigram_table", "lm_params")


@pytest.fixture
def made(monkeypatch):
    """How many experts each stack that was made is of."""
    sizes, real = [], parameters.stacked
    monkeypatch.setattr(parameters, "stacked", lambda each: sizes.append(len(each)) or real(each))
    return sizes


def new(name):
    return Expert(name, one(fresh(9), 8), FLAT, bigram=tiny_bank.fresh_bigram(9))


def test_storing_one_more_expert_touches_no_other(tmp_path, made, monkeypatch):
    folder = tmp_path / "bank"
    tiny_bank.on_disk(folder, experts=5)
    bank = ExpertBank.load(folder)
    touched = []
    real = inside.open_inside

    def opened(folder, name, flags=os.O_RDONLY, where=""):
        if name not in ("experts", "bank.json", ".lock"):
            touched.append(f"{where}/{name}")
        return real(folder, name, flags, where)

    monkeypatch.setattr(inside, "open_inside", opened)
    check = parameters.check
    monkeypatch.setattr(
        parameters, "check", lambda what, *more: touched.append(what) or check(what, *more)
    )
    monkeypatch.setattr(expert_folder, "read_expert", touched.append)
    more = bank.add(new("late"))
    odd = [x for x in touched if "late" not in x and not x.startswith(f"{folder}/.bank.json.")]
    assert len(touched) > 9 and not odd
    fewer = more.remove("e0").unmount("e1").select(["late", "e3"]).mount(new("last"))
    assert not made and not any(stack in vars(more) for stack in STACKS)
    assert all(a is b for a, b in zip(more.experts, bank.experts)) and len(more.experts) == 6
    assert fewer.expert("e3") is bank.expert("e3") and fewer.names == ("late", "e3", "last")
    for a, b in zip(*(jax.tree.leaves(x.expert("e4").params) for x in (bank, more)), strict=True):
        assert a is b


def test_a_stack_is_made_once(made):
    bank = tiny_bank.in_memory(3)
    assert bank.params is bank.params and bank.weights is bank.params and made == [3]
    assert leaves(bank.params) == leaves(fresh(3))  # negative control: it is of all, in order
    assert bank.bigram_table is bank.bigram_table


def test_a_change_of_the_rule_keeps_the_stacks_and_another_expert_does_not(made):
    bank = tiny_bank.in_memory(3)
    params, table = bank.params, bank.bigram_table
    other = bank.changed(scoring=Scoring(typicality_weight=2.0))
    assert other.params is params and other.bigram_table is table
    assert by_rule(other, "rebuild").params is params and by_rule(other, "rebuild").scoring == SEEN
    assert made == [3]
    calm = tiny_bank.altered(bank, calibration={"e1": tiny_bank.trained_bank().calibration["e0"]})
    assert calm.params is params
    fewer = bank.unmount("e1")
    assert fewer.params is not params and made == [3, 2]
    bare = tiny_bank.without_bigrams(bank, ["e1"])
    assert bare.params is params and "bigram_table" not in vars(bare)


def test_routing_stacks_once(made):
    bank = tiny_bank.in_memory(2)
    for rule in ("bank", "rebuild", "bank"):
        router.route(bank, tiny_bank.TEXT, router.RouteOptions(rule=rule))
    assert made == [2]


def test_what_is_selected_by_place_is_picked_on_the_device(made):
    bank = tiny_bank.in_memory(3)
    some = selected(bank, np.array([2, 0]))
    assert some.names == ("e2", "e0") and made == [3]
    assert leaves(some.params) == leaves(bank.select(["e2", "e0"]).params)


def test_a_bank_and_its_arrays_cannot_be_changed(tmp_path):
    tiny_bank.on_disk(tmp_path / "bank")
    given = one(fresh(1), 0)
    for bank in (
        ExpertBank.load(tmp_path / "bank"),
        tiny_bank.in_memory(0).mount(Expert("e0", given, FLAT)),
        ExpertBank.load(tmp_path / "bank").add(Expert("half", given, FLAT), "bfloat16"),
        ExpertBank.load(tmp_path / "bank").add(Expert("byte", given, FLAT), "int8"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            bank.experts = ()
        for expert in bank.experts:
            for x in jax.tree.leaves(expert.params):
                assert x.dtype == np.float32
                with pytest.raises(ValueError, match="read-only"):
                    x[...] = 0
    before = leaves(bank.expert("byte").params)
    for x in jax.tree.leaves(given):  # the caller's stay the caller's
        x[...] = 7
    assert leaves(bank.expert("byte").params) == before
