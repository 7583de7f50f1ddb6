"""A stored bank gets the language models of another bank or run; nothing else of it changes."""

import dataclasses
import gc
import os
import shutil

import pytest
import tiny_bank
from tiny_bank import TINY_LM, contents, fresh, leaves, one, refuses

from cr_jax.bank import ExpertBank, import_expert, import_lms, parameters
from cr_jax.bank.files import SEED, BankFolder, write_sealed
from cr_jax.bank.headers import stored_dtype
from cr_jax.bank.manifest import LM, MANIFEST
from cr_jax.cli import main
from cr_jax.errors import UserError


def run_of(folder, dtype="float32", **more):
    """The workdir of a run whose bank has language models."""
    tiny_bank.with_lms(folder / "bank", dtype=dtype, **more)
    return folder


@pytest.mark.parametrize("dtype", parameters.DTYPES)
def test_experts_of_the_same_names_get_them_and_keep_their_bytes(tmp_path, dtype):
    plain = tiny_bank.on_disk(tmp_path / "plain")  # e0 and e1; the run has e2 too
    before, source = contents(plain.folder), run_of(tmp_path / "run", dtype)
    given = import_lms(plain.folder, source)
    assert list(given.experts) == ["e0", "e1"] and given.seed is not None
    after = ExpertBank.load(plain.folder)
    assert after.verify() == [] and after.lm == TINY_LM
    want = ExpertBank.load(source / "bank")
    for name in ("e0", "e1"):
        assert leaves(after.expert(name).lm) == leaves(want.expert(name).lm)
        assert stored_dtype(BankFolder(plain.folder).open_expert(name), LM) == dtype
    assert leaves(after.seed_lm) == leaves(want.seed_lm)
    now = contents(plain.folder)
    changed = {path for path in before if now[path] != before[path]}
    assert {path.name for path in changed} == {"bank.json", MANIFEST}
    assert {path.name for path in now.keys() - before.keys()} == {LM, MANIFEST}
    import_lms(
        plain.folder, source / "bank"
    )  # a bank is as good as its workdir, and again the same
    assert contents(plain.folder) == now


def test_the_experts_that_give_them_are_opened_one_at_a_time(tmp_path, monkeypatch):
    plain, source = tiny_bank.on_disk(tmp_path / "plain"), run_of(tmp_path / "run")
    most = []
    read = parameters.read

    def counted(*args):
        paths = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        own = os.path.realpath(source)
        most.append(sum(p.startswith(own) and p.endswith(("/e0", "/e1", "/e2")) for p in paths))
        return read(*args)

    monkeypatch.setattr(parameters, "read", counted)
    import_lms(plain.folder, source)
    assert max(most) == 1


def test_another_dtype_can_be_asked_for(tmp_path):
    plain = tiny_bank.on_disk(tmp_path / "plain")
    import_lms(plain.folder, run_of(tmp_path / "run"), "int8")
    loaded = ExpertBank.load(plain.folder)
    exact = one(fresh(3, TINY_LM, seed=5), 0)
    assert leaves(loaded.expert("e0").lm) == leaves(parameters.rounded(exact, "int8"))
    assert leaves(loaded.expert("e0").lm) != leaves(exact)


def test_what_does_not_fit_leaves_the_bank_as_it_was(tmp_path):
    plain = tiny_bank.on_disk(tmp_path / "plain").folder
    source = run_of(tmp_path / "run")
    before = contents(plain)
    refuses(lambda: import_lms(plain, tmp_path / "nowhere"), "no bank at")
    refuses(lambda: import_lms(tmp_path / "nowhere", source), "no bank at")
    bare = tiny_bank.on_disk(tmp_path / "bare").folder
    refuses(lambda: import_lms(plain, bare), "no language models to give")
    strangers = tiny_bank.stored(tmp_path / "x", tiny_bank.in_memory(2)).folder
    for old, new in (("e0", "a"), ("e1", "b")):
        expert = dataclasses.replace(ExpertBank.load(strangers).expert(old), name=new)
        ExpertBank.load(strangers).remove(old).add(expert)
    refuses(lambda: import_lms(strangers, source), "of e0, e1, e2", "other experts: a, b")
    other = BankFolder(tiny_bank.on_disk(tmp_path / "other").folder)
    write_sealed(other.path / "bank.json", {**other.index, "tokenizer": 64 * "f"})
    refuses(lambda: import_lms(other.path, source), "another tokenizer", "tokenizer.folder")
    refuses(lambda: import_lms(plain, source, "int4"), "int4")
    file = source / "bank" / "experts" / "e1" / LM
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    refuses(lambda: import_lms(plain, source), "changed or cut short", "e1")
    file = source / "bank" / SEED / LM
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    refuses(lambda: import_lms(plain, source), "changed or cut short", SEED)
    assert contents(plain) == before


def test_the_command_says_who_has_one_now(tmp_path, capsys):
    plain = tiny_bank.on_disk(tmp_path / "plain", 4).folder
    source = run_of(tmp_path / "run", seed=False)
    ask = ["bank", "add-lms", "--bank", str(plain), str(source)]
    assert main(ask) == 0
    said = capsys.readouterr().out
    assert said == f"language models for e0, e1, e2; {source} has none for e3\n"
    assert main(["bank", "verify", "--bank", str(plain)]) == 0
    assert main([*ask, "--dtype", "int8"]) == 2  # others than those that are stored
    assert "another language model already" in capsys.readouterr().err
    assert main(ask[:2] + [str(source)]) == 2 and "--bank" in capsys.readouterr().err


def test_a_refused_change_leaves_nothing_open(tmp_path):
    bank = tiny_bank.on_disk(tmp_path / "bank").folder
    broken = tmp_path / "broken"
    shutil.copytree(bank / "experts" / "e1", broken)
    (broken / "config.json").write_bytes(b"{}")
    missing = tmp_path / "missing"
    shutil.copytree(bank / "experts" / "e1", missing)
    (missing / "config.json").unlink()
    gc.collect()
    gc.disable()
    try:
        before = sorted(os.listdir("/dev/fd"))
        for source, words in (
            (bank / "experts" / "e0", "already"),
            (broken, "was changed"),
            (missing, "is missing"),
        ):
            said = None
            try:
                import_expert(bank, source)
            except UserError as error:
                said = str(error)
            assert said is not None and words in said
            assert sorted(os.listdir("/dev/fd")) == before
    finally:
        gc.enable()
    assert ExpertBank.load(bank).verify() == []
