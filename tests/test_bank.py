"""A bank gives back what was stored, refuses what was changed, and never touches other experts."""

import concurrent.futures
import dataclasses
import json
import os
import shutil
import struct
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tiny_bank
from tiny_bank import FLAT, TINY, fresh, leaves, one

from cr_jax import bank_folder, parameter_files
from cr_jax.bank import ExpertBank, import_expert
from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.errors import UserError


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank") / "bank"
    tiny_bank.on_disk(folder)
    return folder


@pytest.fixture
def copy(stored, tmp_path):
    shutil.copytree(stored, tmp_path / "bank")
    return tmp_path / "bank"


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in files(folder)}


def refuses(call, *words):
    """`call` raises one line that holds every word."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


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
    bank.add("wide", params, FLAT)
    bank.add("half", params, FLAT, dtype="bfloat16")
    size = lambda n: (tmp_path / "bank" / "experts" / n / "params.safetensors").stat().st_size
    assert size("half") < 0.6 * size("wide")
    loaded = ExpertBank.load(tmp_path / "bank")
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(loaded.params))
    assert leaves(loaded.params) == leaves(bank.params)
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params)
    assert leaves(loaded.expert_params("half")) == leaves(rounded)
    refuses(lambda: bank.add("x", params, FLAT, dtype="float16"), "float16")


def test_int8_quarters_the_file_and_is_off_by_half_a_step_at_most(tmp_path):
    bank = ExpertBank.create(tmp_path / "bank", TINY, ByteTokenizer())
    params = one(fresh(2), 0)
    bank.add("wide", params, FLAT)
    bank.add("byte", params, FLAT, dtype="int8")
    size = lambda n: (tmp_path / "bank" / "experts" / n / "params.safetensors").stat().st_size
    assert size("byte") < 0.5 * size("wide")  # rows of 16 numbers: scales weigh a quarter here
    loaded = ExpertBank.load(tmp_path / "bank")
    assert leaves(loaded.params) == leaves(bank.params)
    for exact, kept in zip(*map(jax.tree.leaves, (params, loaded.expert_params("byte"))),
                           strict=True):
        step = np.abs(exact).max(-1, keepdims=True) / 127
        assert np.all(np.abs(exact - kept) <= 0.501 * step)
    assert leaves(loaded.expert_params("byte")) != leaves(params)


def test_int8_without_its_scales_is_refused(tmp_path):
    bank = ExpertBank.create(tmp_path / "bank", TINY, ByteTokenizer())
    bank.add("byte", one(fresh(2), 0), FLAT, dtype="int8")
    file = tmp_path / "bank" / "experts" / "byte" / "params.safetensors"
    stored = safetensors.numpy.load_file(file)
    name = next(k for k in stored if k.endswith(".scale"))
    for odd in ({k: v for k, v in stored.items() if k != name},
                {**stored, name: stored[name][..., 0]}, {**stored, "more.scale": stored[name]}):
        safetensors.numpy.save_file(odd, file)
        refuses(lambda: parameter_files.check_header(file, TINY), "scales")


def test_mount_and_unmount_leave_the_others_bytes():
    bank = tiny_bank.in_memory(3)
    more = bank.mount("new", one(fresh(2), 0), FLAT)
    assert bank.names == ("e0", "e1", "e2")
    assert leaves(more.select(bank.names).params) == leaves(bank.params)
    assert leaves(more.unmount("new").params) == leaves(bank.params)
    assert more.unmount("e1").names == ("e0", "e2", "new")
    assert leaves(more.unmount("e1").expert_params("e2")) == leaves(bank.expert_params("e2"))
    with pytest.raises(TypeError):
        bank.calibration["e0"] = FLAT
    refuses(lambda: bank.mount("e0", one(fresh(2), 0), FLAT), "already")
    refuses(lambda: bank.unmount("new"), "new", "e0, e1, e2")
    refuses(lambda: bank.add("x", one(fresh(2), 0), FLAT), "memory")


def test_add_and_remove_leave_the_others_files(copy):
    before = contents(copy)
    bank = ExpertBank.load(copy)
    kept = leaves(bank.params)
    bank.add("new", one(fresh(3), 2), FLAT)
    assert bank.names == ("e0", "e1", "new")
    assert leaves(bank.select(["e0", "e1"]).params) == kept
    bank.remove("new")
    assert bank.names == ("e0", "e1")
    assert leaves(bank.params) == kept
    assert contents(copy) == before


def test_an_interrupted_addition_leaves_nothing(copy, monkeypatch):
    before = contents(copy)
    bank = ExpertBank.load(copy)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parameter_files, "write", full)
    refuses(lambda: bank.add("new", one(fresh(2), 0), FLAT), "No space left")
    assert contents(copy) == before
    assert bank.names == ("e0", "e1")


def test_litter_of_a_killed_addition_is_named_and_replaced(copy):
    litter = copy / "experts" / "new"
    litter.mkdir()
    (litter / "params.safetensors").write_bytes(b"half")
    assert any("new" in line and "delete" in line for line in ExpertBank.load(copy).verify())
    ExpertBank.load(copy).add("new", one(fresh(2), 0), FLAT)
    assert ExpertBank.load(copy).verify() == []


def test_two_open_banks_do_not_lose_each_others_experts(copy):
    first, second = ExpertBank.load(copy), ExpertBank.load(copy)
    first.add("a", one(fresh(2), 0), FLAT)
    second.add("b", one(fresh(2), 1), FLAT)
    assert ExpertBank.load(copy).names == ("e0", "e1", "a", "b")


def test_additions_at_the_same_time_do_not_lose_each_other(copy, monkeypatch):
    write = bank_folder.write_sealed

    def slowly(path, value):
        time.sleep(0.05)  # long enough for the others to read what is about to be replaced
        write(path, value)

    monkeypatch.setattr(bank_folder, "write_sealed", slowly)
    names = [f"r{i}" for i in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(
            lambda n: import_expert(copy, copy / "experts" / "e1", n), names)) == names
    loaded = ExpertBank.load(copy)
    assert set(loaded.names) == {"e0", "e1", *names} and loaded.verify() == []


def test_every_flipped_byte_is_found(copy):
    random = np.random.default_rng(0)
    for path in files(copy):
        raw = path.read_bytes()
        some = random.choice(len(raw), min(len(raw), 12), replace=False)
        for at in sorted({0, len(raw) - 1, *map(int, some)}):
            changed = bytearray(raw)
            changed[at] ^= 1 << int(random.integers(8))
            path.write_bytes(changed)
            refuses(lambda: ExpertBank.load(copy))
            try:  # verify lists it, unless bank.json itself cannot be read
                assert bank_folder.BankFolder(copy).verify(), (path, at)
            except UserError:
                assert path.name == "bank.json"
        path.write_bytes(raw)
    assert ExpertBank.load(copy).verify() == []


def test_every_missing_or_cut_file_is_found(copy):
    for path in files(copy):
        raw = path.read_bytes()
        for wrong in (b"", raw[:-1], raw + b"\n"):
            path.write_bytes(wrong)
            refuses(lambda: ExpertBank.load(copy))
        path.unlink()
        refuses(lambda p=path: ExpertBank.load(copy), path.name)
        path.write_bytes(raw)


def test_no_bank(tmp_path):
    refuses(lambda: ExpertBank.load(tmp_path / "nowhere"), "no bank", "bank.json")
    refuses(lambda: ExpertBank.load(tmp_path), "no bank")
    (tmp_path / "file").write_text("x")
    refuses(lambda: ExpertBank.load(tmp_path / "file"), "no bank")
    for text in ("", "{", "[]", "null", '{"format": 1}', '{"format": NaN}', "[" * 100_000):
        (tmp_path / "bank.json").write_text(text)
        refuses(lambda: ExpertBank.load(tmp_path), "bank.json")


def test_create_refuses_a_folder_with_files(stored, tmp_path):
    refuses(lambda: ExpertBank.create(stored, TINY, ByteTokenizer()), "not an empty folder")
    (tmp_path / "empty").mkdir()
    assert ExpertBank.create(tmp_path / "empty", TINY, ByteTokenizer()).names == ()
    assert ExpertBank.load(tmp_path / "empty").params is None
    small = TINY.__class__(**{**vars(TINY), "vocab_size": 200})
    refuses(lambda: ExpertBank.create(tmp_path / "x", small, ByteTokenizer()), "vocab_size")
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_place_is_named(tmp_path):
    tmp_path.chmod(0o500)
    refuses(lambda: ExpertBank.create(tmp_path / "bank", TINY, ByteTokenizer()), "cannot write")


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "../up", "a/b", "a\\b", "a b", "a\n", "a\0", "é", "unknown",
             "x" * 101])
def test_bad_names(copy, name):
    bank = ExpertBank.load(copy)
    before = contents(copy.parent)
    refuses(lambda: bank.add(name, one(fresh(2), 0), FLAT), "name")
    refuses(lambda: import_expert(copy, copy / "experts" / "e0", name), "name")
    assert contents(copy.parent) == before


def test_wrong_shapes_and_numbers(copy):
    bank, good = ExpertBank.load(copy), one(fresh(2), 0)
    missing = {"params": {k: v for k, v in good["params"].items() if k != "embedding"}}
    refuses(lambda: bank.add("x", missing, FLAT), "params/embedding", "none")
    wrong = {"params": good["params"] | {"embedding": np.zeros((3, 16), np.float32)}}
    refuses(lambda: bank.add("x", wrong, FLAT), "(3, 16)", "(258, 16)")
    refuses(lambda: bank.add("x", fresh(2), FLAT), "shape")
    refuses(lambda: bank.add("x", [1, 2], FLAT), "nested dicts")
    bad = {"params": good["params"] | {"embedding": np.full((258, 16), np.nan)}}
    refuses(lambda: bank.add("x", bad, FLAT), "NaN", "params/embedding")
    refuses(lambda: bank.add("x", good, FLAT, {"when": object()}), "JSON")
    assert ExpertBank.load(copy).names == ("e0", "e1") and bank.verify() == []


def test_a_header_with_absurd_shapes_is_refused_before_allocating(copy, monkeypatch):
    file = copy / "experts" / "e0" / "params.safetensors"
    raw = file.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + size])
    allocated = []
    monkeypatch.setattr(parameter_files.np, "empty", lambda *a, **k: allocated.append(a))

    def forged(header):
        text = json.dumps(header).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size:])
        refuses(lambda: ExpertBank.load(copy, verify=False), "params.safetensors")

    huge = {k: dict(v, shape=[1 << 40, 1 << 20]) for k, v in header.items()}
    forged(huge)
    forged({"params/embedding": {"dtype": "F32", "shape": [0, 1 << 60], "data_offsets": [0, 0]}})
    file.write_bytes(struct.pack("<Q", 1 << 62) + raw[8:])
    refuses(lambda: ExpertBank.load(copy, verify=False), "params.safetensors")
    assert not allocated


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
    refuses(lambda: import_expert(tmp_path / "wide", copy), "missing")
    (expert / "calibration.json").write_text("{}")
    refuses(lambda: import_expert(tmp_path / "wide", expert), str(expert), "changed")
    assert contents(tmp_path / "wide") == before


def test_a_replaced_tokenizer_is_refused(copy, monkeypatch):
    monkeypatch.setattr(
        "cr_jax.data.tokenizers.load_tokenizer", lambda folder: tiny_bank.OtherTokenizer())
    refuses(lambda: ExpertBank.load(copy), "fingerprint")
