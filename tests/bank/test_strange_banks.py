"""A bank from a stranger: nothing outside its folder is read, written or deleted, whatever lies in
it, and nothing is waited for."""

import os
import shutil

import numpy as np
import pytest
import tiny_bank
from tiny_bank import FLAT, contents, fresh, one, refuses

from cr_jax.bank import Expert, ExpertBank, LanguageModels, import_expert, parameters, store_lms
from cr_jax.bank.files import BankFolder, sha256, write_sealed
from cr_jax.bank.manifest import MANIFEST, write_manifest
from cr_jax.cli import main
from cr_jax.routing.cascade import Cascade

PLACES = (
    "bank.json",
    "cascade.json",
    "experts",
    "experts/e0",
    "experts/e0/params.safetensors",
    "experts/e0/config.json",
    "experts/e0/calibration.json",
    "experts/e0/bigram.safetensors",
    "experts/e0/lm.safetensors",
    "experts/e0/manifest.json",
    "seed_lm",
    "seed_lm/lm.safetensors",
    "tokenizer",
    "tokenizer/tokenizer.json",
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine") / "bank"
    bank = tiny_bank.with_lms(folder, 2)
    Cascade.fit(bank, dict.fromkeys(bank.names, tiny_bank.spread()), min_candidates=1).save()
    return folder


@pytest.fixture
def bank(pristine, tmp_path):
    shutil.copytree(pristine, tmp_path / "here" / "bank")
    return tmp_path / "here" / "bank"


def outside(bank, place):
    """Moves a part of the bank out of it and leaves a link; -> where it lies now."""
    other = bank.parent.parent / "outside" / place
    other.parent.mkdir(parents=True, exist_ok=True)
    os.rename(bank / place, other)
    (bank / place).symlink_to(other)
    return other


@pytest.mark.parametrize("place", PLACES)
def test_a_link_is_followed_by_no_command(bank, place, tmp_path, capsys):
    outside(bank, place)
    before = contents(tmp_path / "outside")
    tiny_bank.on_disk(tmp_path / "new", 0)
    inside_e0 = place.startswith("experts/e0") or place == "experts"
    assert main(["bank", "verify", "--bank", str(bank)]) == 2
    said = capsys.readouterr().err
    assert f"{bank / place} is a link" in said
    for command in (
        ["bank", "list", "--bank", str(bank)],
        ["bank", "remove", "--bank", str(bank), "e0"],
        ["bank", "add", "--bank", str(bank), str(bank / "experts/e1"), "--name", "again"],
        ["bank", "add", "--bank", str(tmp_path / "new"), str(bank / "experts/e0")],
    ):
        status = main(command)
        said = capsys.readouterr()
        assert status in (0, 2) and "Traceback" not in said.err
        assert contents(tmp_path / "outside") == before, command
    if not inside_e0 and place != "cascade.json":
        refuses(lambda: ExpertBank.load(bank), "is a link")
    others = (bank / "experts").resolve() if place == "experts" else bank / "experts"
    assert "again" not in os.listdir(others) or place != "experts"


def test_remove_and_add_below_a_linked_experts_folder_touch_nothing(bank, tmp_path):
    """The worst of it: `remove` deleted a folder outside, `add` replaced one."""
    other = outside(bank, "experts")
    (other / "mine").mkdir()
    (other / "mine" / "thesis").write_text("years")
    before = contents(tmp_path / "outside")
    refuses(lambda: BankFolder(bank).remove("e0"), "experts is a link", "put a copy")
    refuses(lambda: import_expert(bank, other / "e1", "mine"), "experts is a link")
    assert contents(tmp_path / "outside") == before


def test_an_expert_that_is_a_link_is_taken_out_and_its_files_are_left(bank, tmp_path, capsys):
    outside(bank, "experts/e0")
    before = contents(tmp_path / "outside")
    assert main(["bank", "remove", "--bank", str(bank), "e0"]) == 0
    said = capsys.readouterr().out
    (aside,) = (bank / "aside").iterdir()
    assert aside.is_symlink() and str(aside) in said and "set aside" in said
    assert contents(tmp_path / "outside") == before and BankFolder(bank).names == ("e1",)


def test_what_the_manifest_does_not_list_is_set_aside_and_named(bank, capsys):
    (bank / "experts/e0/notes.txt").write_text("mine")
    (bank / "experts/e0/more").mkdir()
    (bank / "experts/e0/more/data").write_text("mine too")
    assert main(["bank", "remove", "--bank", str(bank), "e0"]) == 0
    (aside,) = (bank / "aside").iterdir()
    assert str(aside) in capsys.readouterr().out
    assert {str(p) for p in contents(aside)} == {"notes.txt", "more/data"}
    assert main(["bank", "verify", "--bank", str(bank)]) == 2
    assert f"{aside} was set aside" in capsys.readouterr().err


def test_a_manifest_that_bank_json_does_not_know_proves_nothing(bank):
    """What `remove` deletes, bank.json names by its SHA-256."""
    (bank / "experts/e0/thesis").write_text("years")
    index = dict(BankFolder(bank).index)
    index["experts"]["e0"]["sha256"] = "0" * 64
    write_sealed(bank / "bank.json", index)
    kept = contents(bank / "experts/e0")
    files = BankFolder(bank)
    files.remove("e0")
    (aside,) = (bank / "aside").iterdir()
    assert contents(aside) == kept and str(aside) in files.notes[0]


def test_what_is_proved_is_deleted_without_a_word(bank, capsys):
    """Negative control."""
    assert main(["bank", "remove", "--bank", str(bank), "e0"]) == 0
    assert capsys.readouterr().out == "removed e0\n"
    assert sorted(os.listdir(bank / "experts")) == ["e1"] and not (bank / "aside").exists()


@pytest.mark.parametrize("place", [p for p in PLACES if "." in p])
@pytest.mark.parametrize("what", ["fifo", "/dev/zero", "folder"])
def test_fifos_and_devices_are_refused_at_once(bank, place, what, tmp_path, capsys):
    (bank / place).unlink()
    if what == "fifo":
        os.mkfifo(bank / place)
    elif what == "folder":
        (bank / place).mkdir()
    else:
        (bank / place).symlink_to(what)
    tiny_bank.on_disk(tmp_path / "new", 0)
    assert main(["bank", "verify", "--bank", str(bank)]) == 2
    if place.startswith("experts"):
        refuses(lambda: import_expert(tmp_path / "new", bank / "experts/e0"))
        assert os.listdir(tmp_path / "new" / "experts") == []
    if place == "cascade.json":
        refuses(lambda: Cascade.load(bank), "cascade.json")
    else:
        refuses(lambda: ExpertBank.load(bank))
    assert main(["bank", "list", "--bank", str(bank)]) in (0, 2)
    assert all(len(line) < 600 for line in capsys.readouterr().err.splitlines())


@pytest.mark.parametrize("place", [p for p in PLACES if "." in p])
def test_files_of_any_size_fill_neither_memory_nor_the_disk(bank, place, tmp_path):
    with open(bank / place, "r+b") as file:
        file.truncate(1 << 42)
    if place.startswith("experts"):
        tiny_bank.on_disk(tmp_path / "new", 0)
        refuses(lambda: import_expert(tmp_path / "new", bank / "experts/e0"), "larger than")
        assert os.listdir(tmp_path / "new" / "experts") == []
    read = Cascade.load if place == "cascade.json" else ExpertBank.load
    refuses(lambda: read(bank), "larger than", place)


def test_a_file_that_is_listed_elsewhere_is_not_read(bank, tmp_path):
    (tmp_path / "secret").write_text("secret")
    index = dict(BankFolder(bank).index)
    for name in ("../../../secret", str(tmp_path / "secret"), "..", ""):
        files = {**index["tokenizer_files"], name: sha256(tmp_path / "secret")}
        write_sealed(bank / "bank.json", {**index, "tokenizer_files": files})
        refuses(lambda: ExpertBank.load(bank), "no name inside")
        assert any("no name inside" in line for line in BankFolder(bank).verify())


def test_litter_in_the_way_of_an_expert_is_kept(bank):
    """An expert that bank.json does not name may have been added by somebody else."""
    shutil.copytree(bank / "experts/e0", bank / "experts/late")
    want = contents(bank / "experts/late")
    ExpertBank.load(bank).add(
        Expert("late", one(fresh(3), 2), FLAT, bigram=tiny_bank.fresh_bigram())
    )
    (aside,) = (bank / "aside").iterdir()
    assert contents(aside) == want and ExpertBank.load(bank).names == ("e0", "e1", "late")


def test_the_place_of_a_language_model_is_not_taken_from_another_file(bank):
    plain = tiny_bank.stored(bank.parent / "plain", tiny_bank.in_memory(2))
    (plain.folder / "experts/e0/lm.safetensors").write_text("mine")
    (plain.folder / "seed_lm").mkdir()
    (plain.folder / "seed_lm" / "diary").write_text("mine")
    loaded = ExpertBank.load(bank)
    given = LanguageModels(loaded.lm, loaded.seed_lm, {"e0": loaded.expert("e0").lm})
    store_lms(plain.folder, given)
    kept = [p.read_text() for p in (plain.folder / "aside").rglob("*") if p.is_file()]
    assert kept == ["mine", "mine"]
    assert ExpertBank.load(plain.folder).expert("e0").lm is not None


def test_numbers_that_no_training_gives_are_refused(bank, tmp_path):
    """Sealed rightly; `add` and `load` read the same numbers."""
    good = ExpertBank.load(bank)
    tiny_bank.on_disk(tmp_path / "new", 0)
    file = bank / "experts/e0" / parameters.FILE
    for number in (np.nan, np.inf, -np.inf, 1e30, -3e7):
        params = {"params": dict(good.expert("e0").params["params"])}
        embedding = np.array(params["params"]["embedding"])
        embedding[3, 4] = number
        params["params"]["embedding"] = embedding
        file.write_bytes(parameters.dumps(params))
        index, shape = dict(BankFolder(bank).index), BankFolder(bank).index["lm"]
        write_manifest(bank / "experts/e0", index["tokenizer"], shape)
        index["experts"]["e0"]["sha256"] = sha256(bank / "experts/e0" / MANIFEST)
        write_sealed(bank / "bank.json", index)
        for call in (
            lambda: ExpertBank.load(bank),
            lambda: ExpertBank.load(bank, verify=False),
            lambda: import_expert(tmp_path / "new", bank / "experts/e0"),
            lambda: good.mount(Expert("x", params, FLAT)),  # noqa: B023
        ):
            refuses(call, "params/embedding", "NaN or infinite")
