"""Experts of a bank or of a workdir join another bank; nothing is copied before all is checked."""

import dataclasses
import shutil

import pytest
import tiny_bank
from tiny_bank import contents, refuses

from cr_jax.bank import ExpertBank, cascade_file, import_experts, pretrained
from cr_jax.bank.cascade_file import CandidateFit
from cr_jax.bank.entry_checks import check_own, unused_fits
from cr_jax.bank.files import BankFolder
from cr_jax.cli import main


@pytest.fixture
def banks(tmp_path):
    """A bank of e0 and e1, and the workdir of a run whose bank has f0, f1 and f2."""
    mine = tiny_bank.stored(tmp_path / "mine", tiny_bank.in_memory(2)).folder
    other = tiny_bank.in_memory(3, seed=4)
    named = [dataclasses.replace(e, name=f"f{i}") for i, e in enumerate(other.experts)]
    tiny_bank.stored(tmp_path / "run" / "bank", other.changed(experts=tuple(named)))
    return mine, tmp_path / "run"


def test_all_or_some_of_a_bank_or_a_workdir_join_byte_for_byte(banks):
    mine, workdir = banks
    before = contents(mine / "experts")
    assert import_experts(mine, workdir, only=["f1"]) == ["f1"]
    assert import_experts(mine, workdir / "bank", "mine", only=["f1"]) == ["mine"]
    assert import_experts(mine, workdir / "bank", only=["f2", "f0"]) == ["f2", "f0"]
    assert import_experts(mine, workdir / "bank" / "experts" / "f0", "again") == ["again"]
    assert ExpertBank.load(mine).names == ("e0", "e1", "f1", "mine", "f2", "f0", "again")
    assert ExpertBank.load(mine).verify() == []
    now, given = contents(mine / "experts"), contents(workdir / "bank" / "experts")
    assert {path: now[path] for path in before} == before
    assert {path: now[path] for path in given} == given


def test_what_does_not_fit_copies_nothing(banks, tmp_path):
    mine, workdir = banks
    before = contents(mine)
    join = lambda *more, **named: import_experts(mine, *more, **named)
    refuses(lambda: join(mine), "already has an expert 'e0'")
    refuses(lambda: join(workdir, "one"), "3 experts", "one name")
    refuses(lambda: join(workdir, only=["f9"]), "no expert 'f9'", "f0, f1, f2")
    refuses(lambda: join(workdir, "E1", ["f0"]), "'e1'", "case only")
    refuses(lambda: join(workdir / "bank/experts/f0", only=["f0"]), "no bank")
    refuses(lambda: join(tmp_path / "nowhere"), "no expert at")
    bank = tiny_bank.in_memory(1, tokenizer=tiny_bank.OtherTokenizer())
    spoken = dataclasses.replace(bank.experts[0], name="x")
    tiny_bank.stored(tmp_path / "alien", bank.changed(experts=(spoken,)))
    refuses(lambda: join(tmp_path / "alien"), "another tokenizer")
    raw = ExpertBank.create(tmp_path / "raw", tiny_bank.TINY, tiny_bank.BYTES, text_form="raw")
    raw.add(spoken)
    refuses(lambda: join(tmp_path / "raw"), "in the form 'raw'", "'lf_nfc'")
    file = workdir / "bank/experts/f2/calibration.json"  # the last of three
    file.write_bytes(file.read_bytes().replace(b"1", b"2", 1))
    refuses(lambda: join(workdir), "changed or cut short", "f2")
    assert contents(mine) == before


def test_a_cascade_of_fewer_experts_is_told_of_and_counts_again_without_the_new_one(banks, capsys):
    mine, workdir = banks
    fit = CandidateFit(1, 0.5, 0.0, None, 1.0, 1.0, 10)
    cascade_file.write(mine, fit, 0, ["e0", "e1"], 0.0)
    assert unused_fits(BankFolder(mine)) is None
    assert main(["bank", "add", "--bank", str(mine), str(workdir), "--expert", "f0"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "added f0" and len(out) == 2
    assert out[1].startswith("cascade.json of ") and f"fit-cascade --bank {mine}" in out[1]
    assert main(["bank", "remove", "--bank", str(mine), "f0"]) == 0
    assert unused_fits(BankFolder(mine)) is None and cascade_file.read(mine)[0] == fit


def test_the_shipped_bank_is_left_alone_and_a_copy_is_not(tmp_path):
    refuses(lambda: check_own(pretrained.folder()), "ships with cr_jax", "cp -r")
    shutil.copytree(pretrained.folder(), tmp_path / "mine")
    check_own(tmp_path / "mine")
