"""A bank gives back what was stored, refuses what does not fit, and never touches other experts."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tiny_bank
from tiny_bank import FLAT, TINY, contents, fresh, leaves, one, refuses

from cr_jax.bank import Expert, ExpertBank, import_expert, parameters
from cr_jax.data.tokenizers import ByteTokenizer


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank") / "bank"
    tiny_bank.on_disk(folder)
    return folder


@pytest.fixture
def copy(stored, tmp_path):
    shutil.copytree(stored, tmp_path / "bank")
    return tmp_path / "bank"


def test_a_str_is_one_name(stored):
    assert ExpertBank.load(stored, "e1").names == ("e1",)
    assert ExpertBank.load(stored).select("e1").names == ("e1",)
    refuses(lambda: ExpertBank.load(stored, "e9"), "'e9'")


def test_a_bank_trained_with_cudnn_runs_anywhere(tmp_path):
    model = dataclasses.replace(TINY, attention="cudnn")
    ExpertBank.create(tmp_path / "bank", model, ByteTokenizer())
    assert ExpertBank.load(tmp_path / "bank").model == TINY


def test_load_gives_back_what_was_added(stored):
    bank = ExpertBank.load(stored)
    assert bank.names == ("e0", "e1")
    assert bank.model == TINY
    assert leaves(bank.params) == leaves(fresh(2))
    assert bank.about["e1"] == {"seed": 1}
    assert bank.calibration["e0"].to_json() == FLAT.to_json()
    assert bank.verify() == []


def test_names_select_experts_and_their_order(stored):
    bank = ExpertBank.load(stored, ["e1", "e0"])
    assert bank.names == ("e1", "e0")
    assert leaves(one(bank.params, 0)) == leaves(one(fresh(2), 1))
    assert leaves(bank.select(["e0"]).expert_params("e0")) == leaves(one(fresh(2), 0))
    refuses(lambda: ExpertBank.load(stored, ["nope"]), "nope", "e0, e1")
    refuses(lambda: bank.select(["e0", "e0"]), "twice")


def test_bfloat16_halves_the_file_and_mounts_what_it_holds(tmp_path):
    bank = ExpertBank.create(tmp_path / "bank", TINY, ByteTokenizer())
    params = one(fresh(2), 0)
    bank = bank.add(Expert("wide", params, FLAT))
    bank = bank.add(Expert("half", params, FLAT), "bfloat16")
    size = lambda n: (tmp_path / "bank" / "experts" / n / "params.safetensors").stat().st_size
    assert size("half") < 0.6 * size("wide")
    loaded = ExpertBank.load(tmp_path / "bank")
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(loaded.params))
    assert leaves(loaded.params) == leaves(bank.params)
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params)
    assert leaves(loaded.expert_params("half")) == leaves(rounded)
    refuses(lambda: bank.add(Expert("x", params, FLAT), "float16"), "float16")


def test_int8_quarters_the_file_and_is_off_by_half_a_step_at_most(tmp_path):
    bank = ExpertBank.create(tmp_path / "bank", TINY, ByteTokenizer())
    params = one(fresh(2), 0)
    bank = bank.add(Expert("wide", params, FLAT))
    bank = bank.add(Expert("byte", params, FLAT), "int8")
    size = lambda n: (tmp_path / "bank" / "experts" / n / "params.safetensors").stat().st_size
    assert size("byte") < 0.5 * size("wide")  # rows of 16 numbers: scales weigh a quarter here
    loaded = ExpertBank.load(tmp_path / "bank")
    assert leaves(loaded.params) == leaves(bank.params)
    for exact, kept in zip(
        *map(jax.tree.leaves, (params, loaded.expert_params("byte"))), strict=True
    ):
        step = np.abs(exact).max(-1, keepdims=True) / 127
        assert np.all(np.abs(exact - kept) <= 0.501 * step)
    assert leaves(loaded.expert_params("byte")) != leaves(params)


def test_int8_without_its_scales_is_refused(tmp_path):
    bank = ExpertBank.create(tmp_path / "bank", TINY, ByteTokenizer())
    bank.add(Expert("byte", one(fresh(2), 0), FLAT), "int8")
    file = tmp_path / "bank" / "experts" / "byte" / "params.safetensors"
    stored = safetensors.numpy.load_file(file)
    name = next(k for k in stored if k.endswith(".scale"))
    for odd in (
        {k: v for k, v in stored.items() if k != name},
        {**stored, name: stored[name][..., 0]},
        {**stored, "more.scale": stored[name]},
    ):
        safetensors.numpy.save_file(odd, file)
        refuses(lambda: parameters.check_header(file.read_bytes(), TINY, file), "scales")


def test_mount_and_unmount_leave_the_others_bytes():
    bank = tiny_bank.in_memory(3)
    more = bank.mount(Expert("new", one(fresh(2), 0), FLAT))
    assert bank.names == ("e0", "e1", "e2")
    assert leaves(more.select(bank.names).params) == leaves(bank.params)
    assert leaves(more.unmount("new").params) == leaves(bank.params)
    assert more.unmount("e1").names == ("e0", "e2", "new")
    assert leaves(more.unmount("e1").expert_params("e2")) == leaves(bank.expert_params("e2"))
    with pytest.raises(TypeError):
        bank.calibration["e0"] = FLAT
    refuses(lambda: bank.mount(Expert("e0", one(fresh(2), 0), FLAT)), "already")
    refuses(lambda: bank.unmount("new"), "new", "e0, e1, e2")
    refuses(lambda: bank.add(Expert("x", one(fresh(2), 0), FLAT)), "memory")


def test_wrong_shapes_and_numbers(copy):
    bank, good = ExpertBank.load(copy), one(fresh(2), 0)
    missing = {"params": {k: v for k, v in good["params"].items() if k != "embedding"}}
    refuses(lambda: bank.add(Expert("x", missing, FLAT)), "params/embedding", "none")
    wrong = {"params": good["params"] | {"embedding": np.zeros((3, 16), np.float32)}}
    refuses(lambda: bank.add(Expert("x", wrong, FLAT)), "(3, 16)", "(258, 16)")
    refuses(lambda: bank.add(Expert("x", fresh(2), FLAT)), "shape")
    refuses(lambda: bank.add(Expert("x", [1, 2], FLAT)), "nested dicts")
    bad = {"params": good["params"] | {"embedding": np.full((258, 16), np.nan)}}
    refuses(lambda: bank.add(Expert("x", bad, FLAT)), "NaN", "params/embedding")
    refuses(lambda: bank.add(Expert("x", good, FLAT, {"when": object()})), "JSON")
    assert ExpertBank.load(copy).names == ("e0", "e1") and bank.verify() == []


def other_bank(folder, model=TINY, tokenizer=None):
    return ExpertBank.create(folder, model, tokenizer or ByteTokenizer())


def test_import_copies_an_expert_of_another_bank(copy, tmp_path):
    other_bank(tmp_path / "other")
    assert import_expert(tmp_path / "other", copy / "experts" / "e1") == "e1"
    assert import_expert(tmp_path / "other", copy / "experts" / "e1", "again") == "again"
    loaded = ExpertBank.load(tmp_path / "other")
    assert loaded.names == ("e1", "again")
    assert leaves(loaded.expert_params("again")) == leaves(one(fresh(2), 1))
    assert loaded.verify() == []
    refuses(lambda: import_expert(tmp_path / "other", copy / "experts" / "e1"), "already")


def test_import_refuses_what_does_not_fit(copy, tmp_path):
    wide = TINY.__class__(**{**vars(TINY), "d_ff": 64})
    other_bank(tmp_path / "wide", wide)
    before = contents(tmp_path / "wide")
    expert = copy / "experts" / "e0"
    refuses(lambda: import_expert(tmp_path / "wide", expert), "d_ff", "32", "64")

    other_bank(tmp_path / "foreign", TINY, tiny_bank.OtherTokenizer())
    refuses(lambda: import_expert(tmp_path / "foreign", expert), "another tokenizer")
    refuses(lambda: import_expert(tmp_path / "wide", tmp_path / "nothing"), "no expert")
    refuses(lambda: import_expert(tmp_path / "wide", copy), "it is a bank")
    (expert / "calibration.json").write_text("{}")
    refuses(lambda: import_expert(tmp_path / "wide", expert), str(expert), "changed")
    assert contents(tmp_path / "wide") == before
