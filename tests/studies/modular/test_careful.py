"""Rules that are fitted to validation windows, and what they choose on others."""

import dataclasses

import numpy as np

from cr_jax.studies.modular import careful
from cr_jax.studies.modular.arms import ARMS, Plan
from cr_jax.studies.modular.nats import DomainNats

E, N, L, PREFIX = 3, 60, 16, 4


def domain(own, seed, told=0.0, by_bigrams=0.0):
    """Its expert needs 2 nats/token less after the prefix; told: how much less on it."""
    random = np.random.default_rng(seed)
    experts = random.normal(5, 0.3, (E, N, L)).astype(np.float32)
    experts[own, :, PREFIX:] -= 2
    experts[own, :, :PREFIX] -= told
    bigrams = random.normal(5, 0.3, (E, N, L)).astype(np.float32)
    bigrams[own] -= by_bigrams
    code_length = random.normal(5, 3, (E, N, L)).astype(np.float32)
    code_length[:, :, 0] = np.nan  # never scored
    mask = np.ones((N, L), bool)
    label = np.full((N, L), own)
    sizes = np.full((N, L), 3)
    seed_nats = np.full((N, L), 5, np.float32)
    return DomainNats(
        mask, sizes, experts, seed_nats, code_length=code_length, bigrams=bigrams, label=label
    )


def agreement(rule, seed, **how):
    return np.mean(
        [careful.chosen(domain(d, seed + d, **how), PREFIX, rule) == d for d in range(E)]
    )


def test_other_evidence_counts_where_the_language_models_cannot_tell():
    valid = [domain(d, d, by_bigrams=2.0) for d in range(E)]
    rules = careful.fit(valid, (PREFIX,))
    assert rules["joint"][PREFIX].bigrams > 0
    assert agreement(rules["joint"][PREFIX], 10, by_bigrams=2.0) > 0.95
    assert agreement(rules["experts"][PREFIX], 10, by_bigrams=2.0) < 0.6
    assert rules["joint"][PREFIX].valid_nll < rules["experts"][PREFIX].valid_nll
    told = careful.described(rules)["joint"][str(PREFIX)]
    assert told["bigrams"] == rules["joint"][PREFIX].bigrams


def test_where_the_language_models_can_tell_they_do():
    valid = [domain(d, d, told=2.0) for d in range(E)]
    rules = careful.fit(valid, (PREFIX,))
    assert agreement(rules["experts"][PREFIX], 10, told=2.0) == 1.0


def test_without_other_evidence_there_is_no_joint_rule():
    bare = [dataclasses.replace(domain(d, d), bigrams=None) for d in range(E)]
    rules = careful.fit(bare, (PREFIX,))
    assert set(rules) == {"experts"}
    joint = careful.fit([domain(d, d, by_bigrams=2.0) for d in range(E)], (PREFIX,))["joint"]
    assert careful.chosen(bare[0], PREFIX, joint[PREFIX]) is None


def test_an_expert_with_broken_weights_is_not_chosen():
    rule = careful.fit([domain(d, d, told=2.0) for d in range(E)], (PREFIX,))["experts"][PREFIX]
    broken = domain(0, 5, told=2.0)
    broken.experts[0] = np.nan
    assert (careful.chosen(broken, PREFIX, rule) != 0).all()


def test_the_arm_speaks_by_its_rule_and_is_silent_without_one():
    arm = {a.name: a for a in ARMS}["top1_expected"]
    d = domain(1, 7, told=2.0)
    rules = careful.fit([domain(k, k, told=2.0) for k in range(E)], (PREFIX,))
    said = arm.speak(d, Plan(PREFIX, rules=rules))
    assert np.array_equal(said[:, PREFIX:], d.experts[1][:, PREFIX:])
    assert arm.speak(d, Plan(PREFIX)) is None
