"""A memory in a folder answers as it did; what was changed, cut or made up is one line."""

import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy
import tiny_bank
import tiny_lms
from tiny_bank import refuses

from cr_jax.host.files import sealed
from cr_jax.modular import memory
from cr_jax.modular.memory_file import INDEX, check_place, is_memory, load, save
from cr_jax.modular.memory_pages import Reader
from cr_jax.modular.options import IDS, LATENTS, MemoryOptions

TEXT = tiny_lms.letters(0, 90) + "what none of them knows" + tiny_lms.letters(1, 90)


@pytest.fixture(scope="module")
def bank():
    return tiny_bank.trained_bank()


def written(bank, kind, dtype="int4"):
    return memory.write(bank, TEXT, MemoryOptions(kind, dtype=dtype))


@pytest.fixture(scope="module")
def kept(bank):
    return written(bank, LATENTS)


def rewritten(folder, **fields):
    """Changes fields of the index and seals it again, as a stranger can."""
    raw = json.loads((folder / INDEX).read_text())
    raw.pop("sha256")
    (folder / INDEX).write_bytes(sealed({**raw, **fields}))


@pytest.mark.parametrize(("kind", "dtype"), [(LATENTS, "int4"), (LATENTS, "bfloat16"), (IDS, "")])
def test_a_memory_that_was_stored_answers_the_same(bank, tmp_path, kind, dtype):
    before = written(bank, kind, dtype or "bfloat16")
    assert not is_memory(tmp_path) and save(before, tmp_path / "m") == tmp_path / "m"
    after = load(tmp_path / "m", bank)
    assert is_memory(tmp_path / "m") and after.to_json() == before.to_json()
    query, every = np.frombuffer(b"what none", np.uint8).astype(np.int32), np.arange(len(before))
    one, two = (Reader(bank, m) for m in (before, after))
    assert (one.tokens(every) == two.tokens(every)).all()
    assert (one.best([query]) == two.best([query])).all()
    assert (one.attended([query], 8)[0] == two.attended([query], 8)[0]).all()


def test_a_memory_replaces_another_and_nothing_else(bank, kept, tmp_path):
    save(written(bank, IDS), tmp_path / "m")
    save(kept, tmp_path / "m")
    assert len(list((tmp_path / "m").iterdir())) == 2 and load(tmp_path / "m", bank).codes
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    refuses(lambda: save(kept, tmp_path / "other"), "holds something else")
    refuses(lambda: save(kept, tmp_path / "other" / "thesis.txt"), "cannot write")
    refuses(lambda: check_place(tmp_path / "other"), "holds something else")
    refuses(lambda: check_place(tmp_path / "other" / "thesis.txt"), "cannot write")
    check_place(tmp_path / "m")
    check_place(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "other" / "thesis.txt").read_text() == "mine"
    for own in ('{"entities": []}', "[]", "no JSON"):
        (tmp_path / "m" / INDEX).write_text(own)
        refuses(lambda: save(kept, tmp_path / "m"), "holds something else")
        assert (tmp_path / "m" / INDEX).read_text() == own


def test_what_was_changed_or_cut_is_refused(bank, kept, tmp_path):
    folder = save(kept, tmp_path / "m")
    (data,) = folder.glob("*.safetensors")
    whole = data.read_bytes()
    for bad in (whole[:-1], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], b""):
        data.write_bytes(bad)
        refuses(lambda: load(folder, bank), "changed or cut short")
    data.unlink()
    refuses(lambda: load(folder, bank), "is missing")
    data.symlink_to(tmp_path / "elsewhere")
    refuses(lambda: load(folder, bank), "is a link")
    refuses(lambda: load(tmp_path / "nowhere", bank), "is missing")


def test_another_version_and_what_is_made_up_are_refused(bank, kept, tmp_path):
    folder = save(kept, tmp_path / "m")
    for other in (1, 3):
        rewritten(folder, format=other)
        refuses(lambda: load(folder, bank), f"has format {other}, this version reads 2")
    rewritten(folder, format=2, options={"kind": "latents"})
    refuses(lambda: load(folder, bank), "does not hold the memory that it says")
    save(kept, folder)
    rewritten(folder, model={"window": 32, "latents": 4, "d_latent": 16, "vocab_size": 258})
    refuses(lambda: load(folder, bank), "windows of 32 tokens in 4 latents of 16, the bank 16")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("expert", lambda x: x + 5),
        ("length", lambda x: x * 0),
        ("length", lambda x: x + 90),
        ("length", lambda x: x[0]),  # no array of windows but one number
        ("keys", lambda x: x[:, :4]),
        ("numbers", lambda x: x.astype(np.int8)),
        ("scale", lambda x: x * np.float32(np.nan)),
        ("fix_start", lambda x: x[::-1]),
        ("fix_at", lambda x: x + 900),
        ("fix_at", lambda x: x[0]),
        ("fix_ids", lambda x: x + 900),
    ],
)
def test_numbers_that_no_writer_makes_are_refused(bank, kept, tmp_path, name, change):
    folder = save(kept, tmp_path / "m")
    (data,) = folder.glob("*.safetensors")
    arrays = safetensors.numpy.load_file(data)
    arrays[name] = np.ascontiguousarray(change(arrays[name]))
    raw = safetensors.numpy.save(arrays)
    data.write_bytes(raw)
    rewritten(folder, sha256_of_data=hashlib.sha256(raw).hexdigest())
    refuses(lambda: load(folder, bank), "does not hold the memory that it says")


def test_a_bank_that_lost_the_writer_is_told_its_name(bank, kept, tmp_path):
    folder = save(kept, tmp_path / "m")
    small = bank.select(["e1"])
    refuses(lambda: Reader(small, load(folder, small)), "'e0', which the bank has no more")
