"""A bank in the names of version 0.1 is read, verified and routed as it is."""

import dataclasses
import os

import pytest
import tiny_bank

from cr_jax.bank import ExpertBank, cascade_file, import_expert
from cr_jax.bank.cascade_file import CandidateFit
from cr_jax.bank.files import BankFolder, read_json, read_sealed, sha256, write_sealed
from cr_jax.config import Scoring, scoring_rule, to_dict
from cr_jax.errors import UserError
from cr_jax.router import route
from cr_jax.routing.cascade import Cascade

MODEL = dataclasses.replace(tiny_bank.TINY, predictive=True)
RULE = Scoring(predicted=True, bigram_weight=0.4, typicality_weight=2.0)
OLD = {
    "typicality_weight": "excess",
    "bigram_weight": "pairs",
    "min_candidates": "keep",
    "candidate_margin": "margin",
    "mean_candidates": "kept",
    "max_windows": "head",
}
FIT = CandidateFit(1, 0.5, 0.25, {"e0": 0.0, "e1": 0.5, "e2": 0.0}, 0.9, 1.5, 12)


def renamed(value):
    return {OLD.get(k, k): v for k, v in value.items()}


@pytest.fixture
def banks(tmp_path):
    """(the bank by its present names, the folder of the same by the old ones)"""
    for name in ("new", "old"):
        bank = tiny_bank.stored(tmp_path / name, tiny_bank.in_memory(3, MODEL, rule=RULE))
        cascade_file.write(bank.folder, FIT, 5, bank.names, 2.0)
    folder = tmp_path / "old"
    index, experts = BankFolder(folder).index, {}
    for name in bank.names:
        expert = folder / "experts" / name
        os.rename(expert / "bigram.safetensors", expert / "scout.safetensors")
        config = read_json(expert / "config.json")
        # An expert's config is not sealed by itself, but any sealed JSON is JSON.
        write_sealed(expert / "config.json", config | {"scoring": renamed(config["scoring"])})
        manifest = read_sealed(expert / "manifest.json")
        files = {f: sha256(expert / f.replace("bigram.", "scout.")) for f in manifest["files"]}
        files["scout.safetensors"] = files.pop("bigram.safetensors")
        write_sealed(expert / "manifest.json", manifest | {"files": files})
        experts[name] = {"sha256": sha256(expert / "manifest.json")}
    write_sealed(
        folder / "bank.json", index | {"scoring": renamed(index["scoring"]), "experts": experts}
    )
    cascade = read_sealed(folder / "cascade.json")
    write_sealed(folder / "cascade.json", renamed(cascade) | {"experts": experts_of(experts)})
    return ExpertBank.load(tmp_path / "new"), folder


def experts_of(entries):
    return {name: entry["sha256"] for name, entry in entries.items()}


def test_a_bank_of_the_old_names_routes_alike(banks):
    new, folder = banks
    assert not list(folder.rglob("bigram.safetensors")) and len(list(folder.rglob("scout.*"))) == 3
    old = ExpertBank.load(folder)
    assert old.verify() == [] and old.scoring == new.scoring == RULE
    assert route(old, tiny_bank.TEXT) == route(new, tiny_bank.TEXT)
    a, b = Cascade.load(folder), Cascade.load(new.folder)
    assert (a.fitted, a.max_windows) == (b.fitted, b.max_windows) == (FIT, 5)
    assert a.route(tiny_bank.TEXT) == b.route(tiny_bank.TEXT)


def test_an_expert_of_the_old_names_joins_a_bank_of_the_new_ones(banks):
    new, folder = banks
    assert import_expert(new.folder, folder / "experts" / "e1", "again") == "again"
    both = ExpertBank.load(new.folder)
    assert both.verify() == []
    for a, b in zip(both.bigrams["again"], both.bigrams["e1"], strict=True):
        assert a.tobytes() == b.tobytes()


def test_an_old_bank_is_still_checked(banks):
    _, folder = banks
    file = folder / "experts" / "e0" / "scout.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="changed or cut short"):
        ExpertBank.load(folder)


def test_a_rule_of_version_0_1_says_that_no_position_is_left_out(banks):
    new, folder = banks
    for file in (folder / "bank.json", folder / "experts/e0/config.json"):
        raw = read_sealed(file)
        write_sealed(file, raw | {"scoring": raw["scoring"] | {"passes": 0}})
    old = ExpertBank.load(folder, verify=False)
    assert old.scoring == new.scoring and "passes" not in to_dict(old.scoring)
    assert scoring_rule({"passes": 0}, MODEL) == Scoring()
    for sampled in ({"parts": 4, "passes": 1}, {"passes": "all"}, {"passes": None}):
        tiny_bank.refuses(lambda raw=sampled: scoring_rule(raw, MODEL), "scoring.passes=", "sample")


def test_a_rule_with_a_field_that_never_was_is_refused():
    assert scoring_rule({"pairs": 0.4, "predicted": True, "excess": 2.0}, MODEL) == RULE
    with pytest.raises(UserError, match="no field 'surplus'"):
        scoring_rule({"surplus": 2.0}, MODEL)
