"""The cost of routing: rows that hold together, a choice on file."""

import dataclasses
import json

import jax
import numpy as np
import tiny_bank
from tiny_bank import in_memory, stored, trained_bank

from benchmarks import router_cost
from benchmarks.routing_plan import GIB
from cr_jax import models
from cr_jax.bank import ExpertBank
from cr_jax.bank.cascade_file import CandidateFit
from cr_jax.routing.cascade import Cascade


def test_copies_of_experts_are_the_experts_with_noise():
    bank = in_memory(2)
    five = router_cost.replicate(bank, 5)
    assert five.names == ("e0", "e1", "e0_2", "e1_3", "e0_4")
    assert tiny_bank.leaves(five.expert_params("e1")) == tiny_bank.leaves(bank.expert_params("e1"))
    for was, is_ in zip(
        jax.tree.leaves(bank.expert_params("e0")), jax.tree.leaves(five.expert_params("e0_4"))
    ):
        assert 0 < np.abs(is_ - was).std() < 0.02 * np.std(was)
    assert router_cost.replicate(bank, 1).names == ("e0",)
    # bigram models too, as what may be stored
    for own, copy in (("e0", "e0_2"), ("e1", "e1_3"), ("e0", "e0_4")):
        was, is_ = bank.bigrams[own], five.bigrams[copy]
        assert five.bigrams[own] is was and (was.keys == is_.keys).all()
        assert (was.high == is_.high).all()
        for field in ("nats", "after", "alone"):
            old, new = getattr(was, field), getattr(is_, field)
            assert old.dtype == new.dtype and (new >= 0).all()
            assert 0 < np.abs(new.astype(float) - old).std() < 0.02 * np.std(old.astype(float))
    assert (five.bigrams["e0_2"].alone != five.bigrams["e0_4"].alone).any()


def test_rows_of_a_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(router_cost, "_drawn", lambda quick: in_memory(1))
    out = tmp_path / "cost.json"
    assert (
        router_cost.main(
            [
                "--quick",
                "--experts",
                "1,3",
                "--min-candidates",
                "2",
                "--batch",
                "4",
                "--windows",
                "8",
                "--seconds",
                "0.01",
                f"--out={out}",
            ]
        )
        == 0
    )
    found = json.loads(out.read_text())
    rows = {(r["experts"], r["mode"]): r for r in found["rows"]}
    assert set(rows) == {(1, "exact"), (1, "ngram"), (3, "exact"), (3, "cascade"), (3, "ngram")}
    assert rows[1, "exact"]["relative_cost"] == rows[1, "exact"]["flops_relative"] == 1
    assert rows[3, "exact"]["flops_relative"] == 3 and rows[3, "cascade"]["flops_relative"] == 2
    assert rows[3, "ngram"]["flops_relative"] is None
    assert rows[3, "cascade"]["bigrams_tokens_per_s"] > 0
    assert "bigrams_tokens_per_s" not in rows[3, "exact"]
    assert all(r["agreement"] is None and r["tokens_per_s"] > 0 for r in found["rows"])
    parameters = 4 * models.count_parameters(in_memory(1).model) / GIB
    grown = rows[3, "exact"]["memory_gib"] - rows[1, "exact"]["memory_gib"]
    assert grown > 1.9 * parameters
    assert not found["trained"] and found["min_candidates"] == 2 and "--quick" in found["command"]
    assert [
        *(rows[3, "cascade"][k] for k in ("min_candidates", "mean_candidates")),
        found["candidate_margin"],
    ] == [2, 2, 0]
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert router_cost.main(["--quick", "--min-candidates", "0"]) == 2
    assert "--min-candidates 0" in capsys.readouterr().err


def test_the_agreement_of_trained_banks(tmp_path, capsys):
    bank = trained_bank()  # on letters a-j, on letters q-z
    bank = stored(tmp_path / "bank", bank)
    for name, letters in (("e0", "abcdefghij"), ("e1", "qrstuvwxyz")):
        (tmp_path / f"{name}.txt").write_text(
            "".join(np.random.default_rng(0).choice([*letters], 1200))
        )
    Cascade(bank, 1, fitted=CandidateFit(1, 0.999, 0.0, None, 1.0, 1.0, 150)).save()
    out = tmp_path / "cost.json"

    def agreement(folder, *more):
        assert (
            router_cost.main(
                [
                    "--bank",
                    str(folder),
                    "--text",
                    *(str(tmp_path / f"{n}.txt") for n in bank.names),
                    "--experts",
                    "2",
                    "--batch",
                    "4",
                    "--windows",
                    "40",
                    "--seconds",
                    "0.01",
                    "--chunk",
                    "64",
                    f"--out={out}",
                    *more,
                ]
            )
            == 0
        )
        rows = {r["mode"]: r for r in json.loads(out.read_text())["rows"]}
        assert (rows["cascade"]["min_candidates"], rows["cascade"]["mean_candidates"]) == (1, 1)
        return rows["cascade"]["agreement"]

    assert agreement(tmp_path / "bank") == 1
    # Negative control: with the other's bigram model all windows go where exact routing does not.
    turned = ExpertBank(bank.model, bank.tokenizer)
    for name, other in (("e0", "e1"), ("e1", "e0")):
        turned = turned.mount(dataclasses.replace(bank.expert(name), bigram=bank.bigrams[other]))
    stored(tmp_path / "turned", turned)
    assert agreement(tmp_path / "turned", "--min-candidates", "1") == 0
    assert router_cost.main(["--quick", "--candidate-margin", "0.5"]) == 2
    assert "--candidate-margin" in capsys.readouterr().err


def test_a_margin_costs_what_it_adds(tmp_path):
    bank = stored(tmp_path / "bank", in_memory(2))
    offsets = {"e0": 0.25, "e1": 0.0}
    wide = CandidateFit(1, 0.5, 1000.0, offsets, 1.0, 2.0, 9)
    Cascade(bank, 1, fitted=wide).save()
    out = tmp_path / "cost.json"
    words = [
        "--bank",
        str(tmp_path / "bank"),
        "--experts",
        "3",
        "--batch",
        "4",
        "--windows",
        "4",
        "--seconds",
        "0.01",
        f"--out={out}",
    ]

    def row(*more):
        assert router_cost.main([*words, *more]) == 0
        return next(r for r in json.loads(out.read_text())["rows"] if r["mode"] == "cascade")

    two = "--min-candidates", "2"
    on_file, given, fixed = row(), row("--candidate-margin", "1000", *two), row(*two)
    few, mean, margin = "min_candidates", "mean_candidates", "candidate_margin"
    assert (on_file[few], on_file[margin], on_file[mean]) == (1, 1000, 3)
    assert on_file["offsets"] == offsets | {"e0_2": 0.25}  # a copy has its origin's
    assert (given[few], given[mean], given["offsets"]) == (2, 3, None)
    assert (fixed[few], fixed[mean], fixed[margin]) == (2, 2, 0)
    assert given["flops_relative"] == on_file["flops_relative"] == fixed["flops_relative"] + 1


def test_input_that_cannot_be(tmp_path, capsys):
    bare = tiny_bank.without_bigrams(in_memory(1))
    for name, bank in (("bank", in_memory(1)), ("bare", bare)):
        stored(tmp_path / name, bank)
    at = lambda name: ["--bank", str(tmp_path / name)]
    no_fit = "no more than a cascade scores"
    for word, call in {
        "no bigram model for e0": lambda: router_cost.main([*at("bare"), "--min-candidates", "1"]),
        no_fit: lambda: router_cost.main([*at("bank"), "--experts", "1"]),
    }.items():
        assert call() == 2
        said = capsys.readouterr().err
        assert word in said and said.startswith("error: ") and said.count("\n") == 1
