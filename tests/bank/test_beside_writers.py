"""Who reads a bank while another process changes it gets one state of it, and no false message; who
changes it while a run puts another bank there changes that one."""

import concurrent.futures
import dataclasses
import os
import shutil
import threading

import pytest
import tiny_bank
from tiny_bank import FLAT, contents, fresh, one, refuses

from cr_jax.bank import Expert, ExpertBank, files, import_expert, manifest
from cr_jax.bank.changes import take
from cr_jax.bank.creation import delete_bank, put_in_place, recover
from cr_jax.bank.files import BankFolder
from cr_jax.cli import main
from cr_jax.errors import UserError
from cr_jax.host.inside import Inside
from cr_jax.modular.language_models import BankLms

WAITS = 0.3  # seconds in which a thread that need not wait would be done


@pytest.fixture
def bank(tmp_path):
    tiny_bank.with_lms(tmp_path / "bank", 2)
    return tmp_path / "bank"


def replaced(bank, say=lambda line: None):
    """What the end of a run does, with a copy of the bank."""
    new = bank.with_name("bank.partial")
    shutil.copytree(bank, new, symlinks=True)
    put_in_place(new, bank, lambda found, name: take(BankFolder(new), found.folder, name), say)


def removed(bank):
    ExpertBank.load(bank).remove("e1")


def again(bank):
    """The same bank.json as before, word for word, and another folder."""
    before = (bank / "bank.json").read_bytes()
    expert = ExpertBank.load(bank).expert("e1")
    ExpertBank.load(bank).remove("e1").add(expert)
    assert (bank / "bank.json").read_bytes() == before


def another(bank):
    found = ExpertBank.load(bank)
    found.remove("e1").add(dataclasses.replace(found.expert("e1"), params=one(fresh(9), 8)))


def added(bank):
    ExpertBank.load(bank).add(Expert("late", one(fresh(9), 8), FLAT))


CHANGES = (removed, again, another, replaced, added)


def meanwhile(monkeypatch, module, name, *acts):
    """Each act happens before one of the calls of a function; -> those that are still to come."""
    real, left = getattr(module, name), list(acts)

    def call(*arguments):
        if left and threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=left.pop(0))
            thread.start()
            thread.join()
        return real(*arguments)

    monkeypatch.setattr(module, name, call)
    return left


@pytest.mark.parametrize("change", CHANGES)
def test_a_bank_that_changes_while_it_is_loaded_is_loaded(bank, change, monkeypatch):
    acts = [lambda: change(bank)] * (1 if change in (removed, added) else 2)
    for options in ({}, {"verify": False}, {"lms": False}):
        with monkeypatch.context() as patch:
            left = meanwhile(patch, manifest, "parse_sealed", *acts)
            assert "e0" in ExpertBank.load(bank, **options).names and not left
        acts = [lambda: replaced(bank)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_bank_that_changes_while_it_is_verified_is_as_it_was_written(bank, change, monkeypatch):
    left = meanwhile(monkeypatch, manifest, "parse_sealed", lambda: change(bank))
    assert BankFolder(bank).verify() == [] and not left


@pytest.mark.parametrize("change", CHANGES)
def test_a_bank_that_changes_while_it_is_listed_is_listed(bank, change, monkeypatch, capsys):
    left = meanwhile(monkeypatch, Inside, "read_json", lambda: change(bank))
    assert main(["bank", "list", "--bank", str(bank)]) == 0
    assert capsys.readouterr().err == "" and not left


def test_what_is_damaged_is_told_once_and_for_all(bank, monkeypatch):
    """Negative control: nobody writes."""
    file = bank / "experts/e1/params.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    opened, real = [], files._found
    monkeypatch.setattr(files, "_found", lambda path: opened.append(path) or real(path))
    refuses(lambda: ExpertBank.load(bank), "changed or cut short")
    assert len(opened) == 1 and len(BankFolder(bank).verify()) == 1
    shutil.rmtree(bank / "experts/e1")
    refuses(lambda: ExpertBank.load(bank), "e1 is missing")


@pytest.mark.parametrize("deleted", [True, False])
def test_a_folder_that_is_deleted_while_it_is_looked_for_is_no_problem(bank, monkeypatch, deleted):
    """Negative control: one that stays and belongs to nobody is told."""
    stray = bank / "experts" / "gone"
    stray.mkdir()
    (stray / "file").write_text("x")
    real, seen = Inside.is_folder, []

    def is_folder(inside, name):
        found = real(inside, name)
        if name == "gone":
            seen.append(found)
            if deleted and found:
                shutil.rmtree(stray)
        return found

    monkeypatch.setattr(Inside, "is_folder", is_folder)
    found = BankFolder(bank).verify()
    assert seen[0] and (found == [] if deleted else "belongs to no expert" in found[0])


def test_a_draft_that_is_being_written_is_no_stranger(bank, monkeypatch):
    draft, go = threading.Event(), threading.Event()
    real = Inside.write

    def write(inside, name, data):
        if inside.path.name.startswith(".late") and name != manifest.MANIFEST:
            draft.set()
            go.wait(20)
        real(inside, name, data)

    monkeypatch.setattr(Inside, "write", write)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        adding = pool.submit(import_expert, bank, bank / "experts/e0", "late")
        draft.wait(20)
        verifying = pool.submit(BankFolder(bank).verify)
        with pytest.raises(concurrent.futures.TimeoutError):
            verifying.result(WAITS)  # it waits: what it found may be a draft
        go.set()
        assert verifying.result() == [] and adding.result() == "late"


def test_a_language_model_is_read_from_the_bank_that_was_loaded(bank):
    lms = BankLms(ExpertBank.load(bank, lms=False))
    replaced(bank)
    want = tiny_bank.leaves(ExpertBank.load(bank).expert("e1").lm)
    assert tiny_bank.leaves(lms.params(1)) == want
    found = ExpertBank.load(bank)
    other = dataclasses.replace(found.expert("e0"), lm=found.expert("e1").lm)
    found.remove("e0").add(other)
    refuses(lambda: lms.params(0), "was changed since it was loaded", "load it again")


def test_an_expert_that_is_added_while_a_run_ends_is_in_the_new_bank(bank, tmp_path, monkeypatch):
    """It was said to be added, and deleted with the old bank."""
    shutil.copytree(bank, tmp_path / "source")
    rename, adding = os.rename, []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:

        def late(old, new, **more):
            if not adding:  # between the look at the old bank and its end
                source = tmp_path / "source/experts/e0"
                adding.append(pool.submit(import_expert, bank, source, "late"))
                with pytest.raises(concurrent.futures.TimeoutError):
                    adding[0].result(WAITS)
            rename(old, new, **more)

        monkeypatch.setattr(os, "rename", late)
        replaced(bank)
        assert adding[0].result() == "late"
    loaded = ExpertBank.load(bank)
    assert loaded.names == ("e0", "e1", "late") and loaded.verify() == []
    assert sorted(os.listdir(tmp_path)) == ["bank", "source"]


def test_who_adds_waits_for_the_bank_that_a_run_puts_there(bank, tmp_path):
    """Between the two renames there is no bank."""
    os.rename(bank, tmp_path / "bank.old")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        source = tmp_path / "bank.old/experts/e0"
        adding = pool.submit(import_expert, bank, source, "late")
        loading = pool.submit(ExpertBank.load, bank)
        for each in (adding, loading):
            with pytest.raises(concurrent.futures.TimeoutError):
                each.result(WAITS)
        shutil.copytree(tmp_path / "bank.old", tmp_path / "bank.new")
        os.rename(tmp_path / "bank.new", bank)  # whole at once, as a run does it
        assert adding.result() == "late" and "e0" in loading.result().names


def test_a_run_that_was_stopped_between_the_renames_is_named(bank, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_SWAP", 0.05)
    os.rename(bank, tmp_path / "bank.old")
    refuses(lambda: ExpertBank.load(bank), "run was stopped", "rename", "bank.old")
    recover(bank, print)
    assert ExpertBank.load(bank).names == ("e0", "e1") and os.listdir(tmp_path) == ["bank"]


def test_a_lock_that_was_made_too_late_keeps_no_folder(bank, tmp_path, monkeypatch):
    real, late = Inside.delete_folder, []

    def delete_folder(inside, name):
        if name.endswith(".old") and len(late) < 3:
            late.append((inside.path / name / ".lock").write_text(""))
        return real(inside, name)

    monkeypatch.setattr(Inside, "delete_folder", delete_folder)
    said = []
    replaced(bank, said.append)
    assert len(late) == 3 and not said and os.listdir(tmp_path) == ["bank"]


def test_what_is_not_the_banks_survives_its_replacement(bank, tmp_path):
    (bank / "notes").write_text("mine")
    (bank / "experts/e0/more").write_text("mine")
    (bank / "experts/link").symlink_to(tmp_path)
    said = []
    replaced(bank, said.append)
    (left,) = (p for p in tmp_path.iterdir() if p.name.startswith("bank.old.left"))
    assert str(left) in said[0] and len(said) == 1
    assert {str(p.relative_to(left)) for p in left.rglob("*") if not p.is_dir()} >= {
        "notes",
        "experts/e0/more",
    }
    assert (left / "experts/link").is_symlink()


def test_a_bank_is_deleted_with_all_that_is_its_own(bank, tmp_path):
    """Negative control."""
    delete_bank(bank, print)
    assert os.listdir(tmp_path) == []


def test_a_link_in_the_place_of_a_bank_is_left_alone(bank, tmp_path):
    os.rename(bank, tmp_path / "elsewhere")
    bank.symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="in the way"):
        replaced(bank)
    said = []
    (tmp_path / "bank.old").symlink_to(tmp_path / "elsewhere")
    recover(bank, said.append)
    assert contents(tmp_path / "elsewhere") == before and "bank.old" in said[0]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_rename_that_fails_leaves_the_old_bank(bank, monkeypatch, failing):
    before, rename, calls = contents(bank), os.rename, []

    def fail(old, new, **more):
        calls.append(old)
        if len(calls) == failing:
            raise OSError(5, "Input/output error")
        rename(old, new, **more)

    monkeypatch.setattr(os, "rename", fail)
    refuses(lambda: replaced(bank), "Input/output error")
    assert contents(bank) == before and ExpertBank.load(bank).verify() == []


def test_a_full_disk_is_not_taken_for_damage(bank, tmp_path, monkeypatch):
    """An expert that could not be taken along stays in the old bank, which stays in its place."""
    new = bank.with_name("bank.partial")
    shutil.copytree(bank, new)
    ExpertBank.load(bank).add(Expert("late", one(fresh(9), 8), FLAT))
    before = contents(bank)

    def keep(found, name):
        with files.writable(new):
            raise OSError(28, "No space left on device")

    refuses(lambda: put_in_place(new, bank, keep, print), "No space left")
    assert contents(bank) == before and new.exists()
