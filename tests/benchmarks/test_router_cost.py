"""The cost of routing: rows that hold together, a choice on file."""

import json

import jax
import numpy as np
import tiny_bank
from tiny_bank import SMALL, in_memory, stored

from benchmarks import choose_keep, router_cost
from benchmarks.routing_plan import GIB
from cr_jax import models
from cr_jax.cascade import Cascade
from cr_jax.cascade_record import Choice
from cr_jax.config import Scoring


def test_copies_of_experts_are_the_experts_with_noise():
    bank = in_memory(2)
    five = router_cost.replicate(bank, 5)
    assert five.names == ("e0", "e1", "e0_2", "e1_3", "e0_4")
    assert tiny_bank.leaves(five.expert_params("e1")) == tiny_bank.leaves(bank.expert_params("e1"))
    for was, is_ in zip(jax.tree.leaves(bank.expert_params("e0")),
                        jax.tree.leaves(five.expert_params("e0_4"))):
        assert 0 < np.abs(is_ - was).std() < 0.02 * np.std(was)
    assert router_cost.replicate(bank, 1).names == ("e0",)


def test_rows_of_a_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(router_cost, "_drawn", lambda quick: (
        in_memory(1), in_memory(1, SMALL, rule=Scoring(parts=4, passes=1))))
    out = tmp_path / "cost.json"
    assert router_cost.main(["--quick", "--experts", "1,3", "--keep", "2", "--batch", "4",
                             "--windows", "8", "--seconds", "0.01", f"--out={out}"]) == 0
    found = json.loads(out.read_text())
    rows = {(r["experts"], r["mode"]): r for r in found["rows"]}
    assert set(rows) == {(1, "exact"), (1, "ngram"), (3, "exact"), (3, "cascade"), (3, "ngram")}
    assert rows[1, "exact"]["relative_cost"] == rows[1, "exact"]["flops_relative"] == 1
    assert all(r["agreement"] is None and r["tokens_per_s"] > 0 for r in found["rows"])
    parameters = 4 * models.count_parameters(in_memory(1).model) / GIB
    grown = rows[3, "exact"]["memory_gib"] - rows[1, "exact"]["memory_gib"]
    assert grown > 1.9 * parameters
    assert not found["trained"] and found["keep"] == 2 and "--quick" in found["command"]
    assert (rows[3, "cascade"]["keep"], rows[3, "cascade"]["kept"], found["margin"]) == (2, 2, 0)
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert router_cost.main(["--quick", "--keep", "0"]) == 2
    assert "--keep 0" in capsys.readouterr().err


def test_the_choice_and_the_agreement_of_trained_banks(tmp_path, capsys, monkeypatch):
    bank = in_memory(2)
    stored(tmp_path / "bank", bank)
    stored(tmp_path / "scouts", bank)  # scouts that are the experts: one is enough
    for name in bank.names:
        (tmp_path / f"{name}.txt").write_text(f"{name} says what it says\n" * 50)
    (tmp_path / "my.py").write_text(f"""
from cr_jax.config import default, domain
def get_config():
    config = default()
    config.train.steps = 1
    config.data.domains = {{n: domain(*3 * (f"files:{tmp_path}/{{n}}.txt",)) for n in ("e0", "e1")}}
    return config
""")
    pair = ["--bank", str(tmp_path / "bank"), "--scouts", str(tmp_path / "scouts")]
    words = ["--config", str(tmp_path / "my.py"), *pair, "--batch", "4"]
    assert choose_keep.main([*words, "--keep", "1"]) == 0
    said = capsys.readouterr().out
    assert "100.0000% with" in said and "1.00 experts on average" in said and "offsets" not in said
    made = Cascade.load(tmp_path / "bank", tmp_path / "scouts")
    assert (made.keep, made.margin, made.offsets) == (1, 0, None) and made.choice.windows > 50
    out = tmp_path / "cost.json"
    assert router_cost.main([*pair, "--text", str(tmp_path / "e0.txt"), "--experts", "2",
                             "--batch", "4", "--windows", "8", "--seconds", "0.01", "--chunk",
                             "64", f"--out={out}"]) == 0
    rows = {r["mode"]: r for r in json.loads(out.read_text())["rows"]}
    row = rows["cascade"]
    assert (row["agreement"], row["keep"], row["kept"]) == (1, 1, 1)
    assert router_cost.main(["--quick", "--margin", "0.5"]) == 2
    assert "--margin" in capsys.readouterr().err


def test_a_margin_costs_what_it_keeps(tmp_path):
    bank, scouts = in_memory(2), in_memory(2, SMALL, seed=7)
    pair = stored(tmp_path / "bank", bank), stored(tmp_path / "scouts", scouts)
    offsets = {"e0": 0.25, "e1": 0.0}
    wide = Choice(1, 0.5, 1000.0, offsets, 1.0, 2.0, 9)
    said = choose_keep.said(wide)
    assert "1000.000" in said and "0.250 e0" in said and "e1" not in said
    Cascade(*pair[::-1], 1, choice=wide).save()
    out = tmp_path / "cost.json"
    words = ["--bank", str(tmp_path / "bank"), "--scouts", str(tmp_path / "scouts"), "--experts",
             "3", "--batch", "4", "--windows", "4", "--seconds", "0.01", f"--out={out}"]

    def row(*more):
        assert router_cost.main([*words, *more]) == 0
        return next(r for r in json.loads(out.read_text())["rows"] if r["mode"] == "cascade")

    on_file, given, fixed = row(), row("--margin", "1000", "--keep", "2"), row("--keep", "2")
    assert (on_file["keep"], on_file["margin"], on_file["kept"]) == (1, 1000, 3)
    assert on_file["offsets"] == offsets | {"e0_2": 0.25}  # a copy has its origin's
    assert (given["keep"], given["kept"], given["offsets"]) == (2, 3, None)
    assert (fixed["keep"], fixed["kept"], fixed["margin"]) == (2, 2, 0)
    assert given["flops_relative"] == on_file["flops_relative"] == fixed["flops_relative"] + 1


def test_configs_that_are_none(tmp_path, capsys):
    pair = ["--bank", str(tmp_path / "bank"), "--scouts", str(tmp_path / "scouts")]
    for folder in pair[1::2]:
        stored(folder, in_memory(1))
    assert choose_keep.main(["--config", "no.py", *pair]) == 2
    assert choose_keep.main(["--config", __file__, *pair]) == 2
    assert capsys.readouterr().err.count("error: ") == 2
