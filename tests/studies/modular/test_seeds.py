"""Means over seeds are means of nats/token."""

import copy
import math

import pytest

from cr_jax.errors import UserError
from cr_jax.studies.modular.seeds import combined


def one(ppl, ratio, share):
    row = {
        "ppl": {"a": ppl, "b": 4.0},
        "bits_per_byte": {"a": math.log2(ppl), "b": 1.0},
        "mean_ppl_vs_dense": ratio,
        "mean_ppl_vs_label": None,
        "active_params": 7,
        "seeds": 1,
    }
    part = {
        "after": {"top1": row},
        "mixture_first": {"top1": row},
        "agreement": {"top1": {"label": share, "other_better": None}},
    }
    return {"arms": {"top1_16": row}, "prefix": {"16": part}, "settings": {"every": 64}}


def test_perplexities_are_averaged_as_nats():
    found = combined([one(2.0, 0.8, 0.9), one(8.0, 0.9, 1.0), one(4.0, 0.7, 0.8)])
    row = found["arms"]["top1_16"]
    assert row["ppl"] == pytest.approx({"a": 4.0, "b": 4.0})
    assert row["bits_per_byte"]["a"] == pytest.approx(2.0)
    assert row["mean_ppl_vs_dense"] == pytest.approx((0.8 * 0.9 * 0.7) ** (1 / 3))
    assert row["mean_ppl_vs_label"] is None and row["active_params"] == 7
    assert (row["seeds"], row["spread"]) == (3, [0.7, 0.9])
    part = found["prefix"]["16"]
    assert part["agreement"]["top1"] == {"label": pytest.approx(0.9), "other_better": None}
    assert part["after"]["top1"] == row and found["settings"] == {"every": 64}


def test_a_single_seed_stays_as_it_is():
    table = one(3.0, 0.85, 0.9)
    row = combined([copy.deepcopy(table)])["arms"]["top1_16"]
    assert row["ppl"] == pytest.approx(table["arms"]["top1_16"]["ppl"]) and row["seeds"] == 1


@pytest.mark.parametrize("change", ["arm", "domain", "prefix"])
def test_tables_of_other_runs_are_refused(change):
    other = one(3.0, 0.85, 0.9)
    if change == "arm":
        other["arms"]["more"] = other["arms"]["top1_16"]
    if change == "domain":
        other["arms"]["top1_16"]["ppl"].pop("b")
    if change == "prefix":
        other["prefix"]["32"] = other["prefix"]["16"]
    with pytest.raises(UserError, match="other arms, domains or prefixes"):
        combined([one(3.0, 0.85, 0.9), other])
    with pytest.raises(UserError, match="no table"):
        combined([])
