"""The figures are what plain arithmetic says, all over the same tokens."""

import dataclasses
import math

import numpy as np
import pytest

from cr_jax.config import LmConfig
from cr_jax.errors import UserError
from cr_jax.studies.modular.arms import Plan, all_arms
from cr_jax.studies.modular.nats import DomainNats, Facts
from cr_jax.studies.modular.table import margins, scheduling, table

E, N, L, PREFIXES = 3, 40, 32, (4, 8)
LM = LmConfig(vocab_size=512, d_model=64, heads=2, d_ff=128, blocks=2)
PLAN = Plan(0, every=8, most=2, margins=dict.fromkeys(PREFIXES, 0.5))
FACTS = {
    "experts": Facts(10, E, 3000, 9e6),
    "dense": Facts(10, 1, 3000, 9e6),
    "dense_large": Facts(40, 1, 1500, 9e6),
    "seed": Facts(10, 1, 1000, 3e6),
}


def domain(own, seed=0, ahead=1.0, count=N):
    """Text of a domain whose expert needs `ahead` nats/token less than the others."""
    rng = np.random.default_rng([seed, own])
    text = rng.gamma(2, 1.5, (count, L))
    spread = lambda *shape: rng.normal(0, 0.3, (*shape, count, L))
    experts = text + 1 + spread(E) - ahead * np.eye(E)[own][:, None, None]
    mask = np.ones((count, L), bool)
    mask[0, 20:] = False
    return DomainNats(
        mask=mask,
        bytes=rng.integers(1, 6, (count, L)),
        experts=experts.astype(np.float32),
        seed=(text + 0.8 + spread()).astype(np.float32),
        singles={"dense": (text + 0.5 + spread()).astype(np.float32)},
        bigrams=(experts + 1 + spread(E)).astype(np.float32),
        choices={"gate": {n: rng.normal(0, 1, (E, count)) for n in PREFIXES}},
        label=np.full((count, L), own),
    )


DOMAINS = {f"d{i}": domain(i) for i in range(E)}


@pytest.fixture(scope="module")
def found():
    return table(DOMAINS, PLAN, FACTS, PREFIXES)


def nll(nats, mask):
    return float(nats[mask].astype(np.float64).mean())


def test_perplexity_beside_dense_weighs_domains_alike(found):
    row, gaps = found["arms"]["label"], []
    for i, (name, d) in enumerate(DOMAINS.items()):
        own = nll(d.experts[i], d.mask)
        assert row["ppl"][name] == pytest.approx(math.exp(own), rel=1e-4)
        bits = d.experts[i][d.mask].sum() / math.log(2) / d.bytes[d.mask].sum()
        assert row["bits_per_byte"][name] == pytest.approx(bits, rel=1e-4)
        gaps.append(own - nll(d.singles["dense"], d.mask))
    assert row["mean_ppl_vs_dense"] == pytest.approx(math.exp(np.mean(gaps)), rel=1e-4)
    assert row["mean_ppl_vs_dense"] < 0.7
    assert found["arms"]["dense"]["mean_ppl_vs_dense"] == 1
    assert found["arms"]["label"]["mean_ppl_vs_label"] == 1
    # A domain of twice the windows weighs no more.
    more = {**DOMAINS, "d0": domain(0, count=2 * N)}
    other = table(more, PLAN, FACTS, (4,))["arms"]["label"]["mean_ppl_vs_dense"]
    assert other == pytest.approx(row["mean_ppl_vs_dense"], rel=0.03)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_after_the_prefix_all_arms_are_over_the_same_tokens(found, prefix):
    after = found["prefix"][str(prefix)]["after"]
    for i, (name, d) in enumerate(DOMAINS.items()):
        late = d.mask & (np.arange(L) >= prefix)
        winner = d.experts[:, :, :prefix].astype(np.float64).sum(-1).argmin(0)
        for arm, nats in (
            ("dense", d.singles["dense"]),
            ("label", d.experts[i]),
            ("seed", d.seed),
            ("top1", d.experts[winner, np.arange(N)]),
            ("oracle_token", d.experts.min(0)),
        ):
            assert after[arm]["ppl"][name] == pytest.approx(math.exp(nll(nats, late)), rel=1e-4)
    # Before it the seed speaks, or the mixture of all: the better one here.
    whole = found["arms"][f"top1_{prefix}"]["mean_ppl_vs_dense"]
    first = found["prefix"][str(prefix)]["mixture_first"]
    assert after["top1"]["mean_ppl_vs_dense"] < first["top1"]["mean_ppl_vs_dense"] < whole
    assert first["dense"] == found["arms"]["dense"]
    assert "top1" not in found["arms"] and "past" in found["arms"]


def test_more_text_chooses_better_and_a_gate_that_guesses_does_not(found):
    few, many = (found["prefix"][str(n)]["agreement"] for n in PREFIXES)
    assert 0.9 < few["top1"]["label"] <= many["top1"]["label"]
    assert many["gate"]["label"] < 0.5 and many["top1_bigrams"]["label"] > 0.9
    assert many["gate"]["other_better"] < 0.1 and many["gate"]["other_nats"] > 0.5
    late = found["prefix"]["8"]["after"]
    assert late["gate"]["mean_ppl_vs_label"] > 1.3 > 1.05 > late["top1"]["mean_ppl_vs_label"]


def test_agreement_is_counted_by_hand():
    same = {n: dataclasses.replace(d, experts=d.experts[:, :, ::-1]) for n, d in DOMAINS.items()}
    found = table(same, PLAN, FACTS, (4,))["prefix"]["4"]["agreement"]["top1"]
    right, better, others = [], 0, 0
    for i, d in enumerate(same.values()):
        winner = d.experts[:, :, :4].astype(np.float64).sum(-1).argmin(0)
        right.append(np.mean(winner == i))
        for n in np.flatnonzero(winner != i):
            late = d.mask[n] & (np.arange(L) >= 4)
            gap = d.experts[winner[n], n][late].sum() - d.experts[i, n][late].sum()
            better, others = better + (gap < 0), others + 1
    assert found["label"] == pytest.approx(np.mean(right)) and found["others"] == others
    assert found["other_better"] == (better / others if others else None)


def test_costs_are_those_of_the_models_that_speak(found):
    arms = found["arms"]
    assert arms["dense"]["active_params"] == arms["dense"]["total_params"] == 10
    assert (arms["top1_4"]["active_params"], arms["top1_4"]["total_params"]) == (10, 30)
    assert arms["mixture"]["active_params"] == 30 and arms["mixture_2_4"]["active_params"] == 20
    assert arms["mixture_4_4"]["active_params"] == 30  # there are three
    assert arms["label"]["train_tokens"] == 3000 and arms["seed"]["train_flops"] == 3e6
    assert arms["oracle_token"]["active_params"] is None and arms["oracle_token"]["bound"]
    assert not any("dense_large" in name for name in arms)  # it was not trained


def test_sets_of_parts_have_a_row_and_without_dense_nothing_is_compared():
    rng = np.random.default_rng(0)
    domains = {
        n: dataclasses.replace(
            d, singles={}, sets={"partition_5": rng.gamma(2, 2, (5, N, L)).astype(np.float32)}
        )
        for n, d in DOMAINS.items()
    }
    found = table(domains, PLAN, FACTS, (4,), all_arms(["partition_5"]))
    assert found["arms"]["partition_5_4"]["ppl"].keys() == DOMAINS.keys()
    assert found["arms"]["label"]["mean_ppl_vs_dense"] is None


def test_deciding_by_bigram_models_is_cheap_and_agrees():
    fitted = margins({n: domain(i, seed=9) for i, n in enumerate(DOMAINS)}, PREFIXES, 2, LM)
    plan = dataclasses.replace(PLAN, margins=fitted)
    found = scheduling(DOMAINS, plan, LM, PREFIXES)
    for prefix in PREFIXES:
        row = found[str(prefix)]
        assert row["margin"] == fitted[prefix] and 1 <= row["mean_candidates"] <= 2
        assert row["agreement"] > 0.95
        assert row["flops_share"] < (row["mean_candidates"] - 1) * prefix / L + 1e-3
    assert found["8"]["margin"] <= found["4"]["margin"]
    assert found["4"]["flops_share"] < 0.04  # fitted to 0.02 of other windows
    noise = {
        n: dataclasses.replace(d, bigrams=np.random.default_rng(i).gamma(2, 2, (E, N, L)))
        for i, (n, d) in enumerate(DOMAINS.items())
    }
    dear = margins(noise, (4,), 2, LM)  # no margin holds 99 % of winners among two
    spent = scheduling(noise, dataclasses.replace(PLAN, margins=dear), LM, (4,))["4"]
    assert 0 < spent["flops_share"] <= 0.02 and spent["agreement"] < 0.9
    assert (
        scheduling(
            {n: dataclasses.replace(d, bigrams=None) for n, d in noise.items()}, plan, LM, (4,)
        )
        == {}
    )


def test_windows_that_end_within_the_prefix_are_refused():
    with pytest.raises(UserError, match="d0: no window has more than 32 tokens"):
        table(DOMAINS, PLAN, FACTS, (L,))
    with pytest.raises(UserError, match="no domain has windows"):
        table({}, PLAN, FACTS, (4,))
