"""A bank's folder: what is changed, missing or cut is found; what goes wrong leaves nothing."""

import concurrent.futures
import dataclasses
import json
import os
import shutil
import struct
import time

import numpy as np
import pytest
import tiny_bank
from tiny_bank import FLAT, TINY, contents, fresh, leaves, one, refuses

from cr_jax.bank import Expert, ExpertBank, import_expert, parameters
from cr_jax.bank import files as bank_folder
from cr_jax.data.tokenizers import ByteTokenizer
from cr_jax.errors import UserError
from cr_jax.host.inside import Inside


@pytest.fixture
def stored(tmp_path):
    tiny_bank.on_disk(tmp_path / "bank")
    return tmp_path / "bank"


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_add_and_remove_leave_the_others_files(stored):
    before = contents(stored)
    bank = ExpertBank.load(stored)
    kept = leaves(bank.params)
    more = bank.add(Expert("new", one(fresh(3), 2), FLAT))
    assert more.names == ("e0", "e1", "new") and bank.names == ("e0", "e1")
    assert leaves(more.select(["e0", "e1"]).params) == kept
    fewer = more.remove("new")
    assert fewer.names == ("e0", "e1") and more.names == ("e0", "e1", "new")
    assert leaves(fewer.params) == kept
    assert contents(stored) == before


def test_an_interrupted_addition_leaves_nothing(stored, monkeypatch):
    before = contents(stored)
    bank = ExpertBank.load(stored)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parameters, "dumps", full)
    refuses(lambda: bank.add(Expert("new", one(fresh(2), 0), FLAT)), "No space left")
    assert contents(stored) == before
    assert bank.names == ("e0", "e1")


def test_litter_of_a_killed_addition_is_named_and_replaced(stored):
    litter = stored / "experts" / "new"
    litter.mkdir()
    (litter / "params.safetensors").write_bytes(b"half")
    assert any("new" in line and "delete" in line for line in ExpertBank.load(stored).verify())
    ExpertBank.load(stored).add(Expert("new", one(fresh(2), 0), FLAT))
    (kept,) = (stored / "aside").iterdir()
    assert (kept / "params.safetensors").read_bytes() == b"half"
    (said,) = ExpertBank.load(stored).verify()
    assert f"{kept} was set aside" in said
    shutil.rmtree(stored / "aside")
    assert ExpertBank.load(stored).verify() == []


def test_two_open_banks_do_not_lose_each_others_experts(stored):
    first, second = ExpertBank.load(stored), ExpertBank.load(stored)
    first.add(Expert("a", one(fresh(2), 0), FLAT))
    second.add(Expert("b", one(fresh(2), 1), FLAT))
    assert ExpertBank.load(stored).names == ("e0", "e1", "a", "b")


def test_additions_at_the_same_time_do_not_lose_each_other(stored, monkeypatch):
    write = Inside.write_sealed

    def slowly(inside, name, value):
        time.sleep(0.05)  # long enough for the others to read what is about to be replaced
        write(inside, name, value)

    monkeypatch.setattr(Inside, "write_sealed", slowly)
    names = [f"r{i}" for i in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert (
            list(pool.map(lambda n: import_expert(stored, stored / "experts" / "e1", n), names))
            == names
        )
    loaded = ExpertBank.load(stored)
    assert set(loaded.names) == {"e0", "e1", *names} and loaded.verify() == []


def test_every_flipped_byte_is_found(stored):
    random = np.random.default_rng(0)
    for path in files(stored):
        raw = path.read_bytes()
        some = random.choice(len(raw), min(len(raw), 5), replace=False)
        for at in sorted({0, len(raw) - 1, *map(int, some)}):
            changed = bytearray(raw)
            changed[at] ^= 1 << int(random.integers(8))
            path.write_bytes(changed)
            refuses(lambda: ExpertBank.load(stored))
            try:  # verify lists it, unless bank.json itself cannot be read
                assert bank_folder.BankFolder(stored).verify(), (path, at)
            except UserError:
                assert path.name == "bank.json"
        path.write_bytes(raw)
    assert ExpertBank.load(stored).verify() == []


def test_every_missing_or_cut_file_is_found(stored):
    for path in files(stored):
        raw = path.read_bytes()
        for wrong in (b"", raw[:-1], raw + b"\n"):
            path.write_bytes(wrong)
            refuses(lambda: ExpertBank.load(stored))
        path.unlink()
        refuses(lambda p=path: ExpertBank.load(stored), path.name)
        path.write_bytes(raw)


def test_no_bank(tmp_path):
    refuses(lambda: ExpertBank.load(tmp_path / "nowhere"), "no bank", "bank.json")
    refuses(lambda: ExpertBank.load(tmp_path), "no bank")
    (tmp_path / "file").write_text("x")
    refuses(lambda: ExpertBank.load(tmp_path / "file"), "no bank")
    for text in ("", "{", "[]", "null", '{"format": 1}', '{"format": NaN}', "[" * 100_000):
        (tmp_path / "bank.json").write_text(text)
        refuses(lambda: ExpertBank.load(tmp_path), "bank.json")


def test_a_bank_is_found_from_inside_and_a_path_without_a_name_is_one_line(stored, monkeypatch):
    monkeypatch.chdir(stored)
    assert ExpertBank.load(".").names == ("e0", "e1") == ExpertBank.load("").names
    monkeypatch.chdir(stored.parent)
    for path in (".", "", "/"):
        refuses(lambda path=path: ExpertBank.load(path), "there is no bank.json")


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
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "../up",
        "a/b",
        "a\\b",
        "a b",
        "a\n",
        "a\0",
        "é",
        "unknown",
        "x" * 101,
    ],
)
def test_bad_names(stored, name):
    bank = ExpertBank.load(stored)
    before = contents(stored.parent)
    refuses(lambda: bank.add(Expert(name, one(fresh(2), 0), FLAT)), "name")
    refuses(lambda: import_expert(stored, stored / "experts" / "e0", name), "name")
    assert contents(stored.parent) == before


def test_a_header_with_absurd_shapes_is_refused_before_allocating(stored, monkeypatch):
    file = stored / "experts" / "e0" / "params.safetensors"
    raw = file.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    allocated = []
    monkeypatch.setattr(parameters, "_value", lambda *a: allocated.append(a))

    def forged(header):
        text = json.dumps(header).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])
        refuses(lambda: ExpertBank.load(stored, verify=False), "params.safetensors")

    huge = {k: dict(v, shape=[1 << 40, 1 << 20]) for k, v in header.items()}
    forged(huge)
    forged({"params/embedding": {"dtype": "F32", "shape": [0, 1 << 60], "data_offsets": [0, 0]}})
    file.write_bytes(struct.pack("<Q", 1 << 62) + raw[8:])
    refuses(lambda: ExpertBank.load(stored, verify=False), "params.safetensors")
    assert not allocated


def test_banks_written_before_rotary_values(tmp_path):
    """Their latent queries are plain, and a form that is gone is named."""
    plain = dataclasses.replace(TINY, bottleneck="query", rotary_values=False)
    bank = tiny_bank.stored(tmp_path / "bank", tiny_bank.in_memory(1, plain))

    def rewrite(change):
        for file in ("bank.json", "experts/e0/config.json"):
            raw = json.loads((bank.folder / file).read_text())
            change(raw["model"])
            if raw.pop("sha256", None):
                bank_folder.write_sealed(bank.folder / file, raw)
            else:
                (bank.folder / file).write_text(json.dumps(raw))

    def forget(model):
        for field in ("rotary_values", "positional_bias", "value_start", "value_frequencies"):
            del model[field]

    rewrite(forget)
    assert ExpertBank.load(bank.folder, verify=False).model == plain
    rewrite(lambda model: model.update(rotary_values=True))  # negative control: other parameters
    refuses(lambda: ExpertBank.load(bank.folder, verify=False), "params.safetensors")
    rewrite(lambda model: model.update(bottleneck="query_fold"))
    refuses(lambda: ExpertBank.load(bank.folder, verify=False), "query, fold, ", "'query_fold'")


def test_a_replaced_tokenizer_is_refused(stored, monkeypatch):
    monkeypatch.setattr(
        "cr_jax.data.tokenizers.read_tokenizer", lambda *_: tiny_bank.OtherTokenizer()
    )
    refuses(lambda: ExpertBank.load(stored), "fingerprint")


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_every_file_of_a_bank_has_the_umask_s_mode(tmp_path, umask):
    """Written by training, added or copied, all files alike."""
    old = os.umask(umask)
    try:
        tiny_bank.on_disk(tmp_path / "bank")
        import_expert(tmp_path / "bank", tmp_path / "bank" / "experts" / "e0", "copy")
    finally:
        os.umask(old)
    found = list((tmp_path / "bank").rglob("*"))
    assert sum(p.suffix == ".safetensors" for p in found) == 3
    for path in found:
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path


@pytest.mark.parametrize("place", ["", "experts", "tokenizer", "nowhere"])
def test_a_wrong_folder_is_not_called_damaged(stored, place):
    """What was never an expert cannot be restored from a copy."""
    before = contents(stored)
    with pytest.raises(UserError, match="no expert at") as caught:
        import_expert(stored, stored / place, "new")
    assert "restore" not in str(caught.value) and "BANK/experts/NAME" in str(caught.value)
    assert ("is a bank" in str(caught.value)) == (place == "")
    assert contents(stored) == before


def test_an_expert_whose_part_is_gone_is_still_called_damaged(stored):
    """Negative control."""
    (stored / "experts" / "e0" / "params.safetensors").unlink()
    refuses(lambda: import_expert(stored, stored / "experts" / "e0", "new"), "restore it from")
