"""Who speaks in each arm, computed by hand; no arm but a bound reads what it is scored by."""

import dataclasses
import functools

import numpy as np
import pytest

from cr_jax.modular.expected import Expectation
from cr_jax.studies.modular.arms import ARMS, Plan, all_arms
from cr_jax.studies.modular.careful import Rule
from cr_jax.studies.modular.nats import DomainNats

E, N, L, PREFIX = 4, 5, 24, 6
COSTS = np.random.default_rng(9).uniform(1, 6, (E, E)).astype(np.float32)
RULES = {
    "experts": {PREFIX: Rule(Expectation(COSTS, 0.2), 0.0, 0.0, 1.0)},
    "joint": {PREFIX: Rule(Expectation(COSTS, 0.2), 0.5, 1.0, 1.0)},
}
PLAN = Plan(PREFIX, every=4, switch=0.05, most=2, margins={PREFIX: 0.3}, rules=RULES)
BY_NAME = {arm.name: arm for arm in all_arms(["partition_3"])}


def values(seed, *shape):
    return np.random.default_rng(seed).uniform(1, 6, shape).astype(np.float32)


@functools.cache
def domain(seed=0):
    mask = np.ones((N, L), bool)
    mask[1, 20:] = False
    label = np.full((N, L), 2)
    label[:, L // 2 :] = 1
    return DomainNats(
        mask=mask,
        bytes=np.full((N, L), 3),
        experts=values(seed, E, N, L),
        seed=values(seed + 1, N, L),
        singles={"dense": values(seed + 2, N, L), "dense_large": values(seed + 3, N, L)},
        sets={"partition_3": values(seed + 4, 3, N, L), "noise": values(seed + 5, E, N, L)},
        code_length=values(seed + 6, E, N, L),
        bigrams=values(seed + 7, E, N, L),
        choices={n: {PREFIX: values(seed + i, E, N)} for i, n in enumerate(("gate", "rebuilding"))},
        merged={PREFIX: values(seed + 8, N, L)},
        label=label,
        segment=(label == 1).astype(int),
    )


def said(name, d=None, plan=PLAN):
    return BY_NAME[name].speak(d or domain(), plan)


def by_hand(winner, speakers=None):
    """The seed, and after the prefix each window's winner."""
    d = domain()
    speakers = d.experts if speakers is None else speakers
    wanted = d.seed.copy()
    for n in range(N):
        wanted[n, PREFIX:] = speakers[winner[n], n, PREFIX:]
    return wanted


def fewest(nats):
    return nats[:, :, :PREFIX].astype(np.float64).sum(-1).argmin(0)


def test_one_model_decides_and_another_may_speak():
    d = domain()
    assert np.array_equal(said("top1"), by_hand(fewest(d.experts)))
    assert np.array_equal(said("top1_code_length"), by_hand(fewest(d.code_length)))
    assert np.array_equal(said("top1_bigrams"), by_hand(fewest(d.bigrams)))
    for name in ("gate", "rebuilding"):
        arm = name if name == "gate" else "top1_rebuilding"
        assert np.array_equal(said(arm), by_hand(d.choices[name][PREFIX].argmin(0)))
    parts = d.sets["partition_3"]
    assert np.array_equal(said("partition_3"), by_hand(fewest(parts), parts))
    assert len({said(n).tobytes() for n in ("top1", "top1_code_length", "top1_bigrams")}) == 3


def test_a_merged_model_speaks_after_the_prefix_that_chose_it():
    d = domain()
    assert np.array_equal(said("merged"), by_hand([0] * N, d.merged[PREFIX][None]))
    assert said("merged", plan=dataclasses.replace(PLAN, prefix=PREFIX + 1)) is None


def test_only_candidates_are_asked():
    d = domain()
    means = d.bigrams[:, :, :PREFIX].astype(np.float64).mean(-1)
    near = means - means.min(0) <= 0.3
    order = means.argsort(0).argsort(0)
    kept = near & (order < 2)
    sums = np.where(kept, d.experts[:, :, :PREFIX].sum(-1), np.inf)
    assert np.array_equal(said("top1_candidates"), by_hand(sums.argmin(0)))
    all_of_them = dataclasses.replace(PLAN, most=E, margins={PREFIX: 100.0})
    assert np.array_equal(said("top1_candidates", plan=all_of_them), said("top1"))
    none = dataclasses.replace(PLAN, margins={PREFIX: 0.0})
    assert np.array_equal(said("top1_candidates", plan=none), said("top1_bigrams"))


def test_plain_arms_are_their_models():
    d = domain()
    for name in ("dense", "dense_large"):
        assert np.array_equal(said(name), d.singles[name])
    assert np.array_equal(said("seed"), d.seed)
    for name, models in (("label", d.experts), ("label_noise", d.sets["noise"])):
        wanted = np.where(np.arange(L)[None] < L // 2, models[2], models[1])
        assert np.array_equal(said(name), wanted)


def test_bounds_are_below_what_they_bound():
    d = domain()
    total = lambda name: np.where(d.mask, said(name), 0).sum()
    assert total("oracle_token") < total("oracle_segment") <= total("oracle_window")
    assert total("oracle_window") <= np.where(d.mask, d.experts, 0).sum(-1).min(0).sum() + 1e-3
    assert total("oracle_segment") <= total("label")


@pytest.mark.parametrize("name", BY_NAME)
def test_no_arm_but_a_bound_reads_what_it_is_scored_by(name):
    at = 13  # tokens from here on are others, in all models alike
    d, other, bound = domain(), domain(50), BY_NAME[name].bound
    swapped = {}
    for field in ("experts", "seed", "code_length", "bigrams"):
        swapped[field] = getattr(d, field).copy()
        swapped[field][..., at:] = getattr(other, field)[..., at:]
    for field in ("singles", "sets", "merged"):
        swapped[field] = {k: v.copy() for k, v in getattr(d, field).items()}
        for k, v in swapped[field].items():
            v[..., at:] = getattr(other, field)[k][..., at:]
    before, after = (said(name, x) for x in (d, dataclasses.replace(d, **swapped)))
    same = np.array_equal(before[:, :at], after[:, :at])
    assert same or bound
    if name in ("oracle_window", "oracle_segment"):
        assert not same
    assert not np.array_equal(before[:, at:], after[:, at:])


def test_what_was_not_measured_has_no_row():
    d = dataclasses.replace(
        domain(), code_length=None, bigrams=None, choices={}, label=None, segment=None, sets={}
    )
    d = dataclasses.replace(d, merged={})
    missing = {name for name in BY_NAME if said(name, d) is None}
    assert missing == {
        *("label", "label_noise", "label_encoder", "top1_code_length", "top1_bigrams", "gate"),
        *(
            "merged",
            "top1_candidates",
            "top1_rebuilding",
            "top1_joint",
            "oracle_segment",
            "partition_3",
            "following_bigrams",
        ),
    }
    assert said("top1_candidates", plan=Plan(PREFIX)) is None  # no margin was fitted


def test_code_length_of_a_sample_of_tokens_decides_by_these():
    d = domain()
    sample = d.code_length.copy()
    sample[:, :, ::2] = np.nan
    nats = np.where(np.arange(PREFIX) % 2 == 1, d.code_length[:, :, :PREFIX], 0).sum(-1)
    found = said("top1_code_length", dataclasses.replace(d, code_length=sample))
    assert np.array_equal(found, by_hand(nats.argmin(0)))


def test_the_names_of_arms_are_all_different():
    assert len(BY_NAME) == len(ARMS) + 1
