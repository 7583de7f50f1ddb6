"""Leave-one-domain-out on made-up residuals: separable worlds, clones, thresholds, the choice."""

import numpy as np
import pytest

from cr_jax.errors import UserError
from cr_jax.studies.unknown import ood
from cr_jax.studies.unknown.ood import Protocol
from cr_jax.studies.unknown.scores import Signals

NAMES = ("a", "b", "c", "d")


def world(seed, count=300, away=3.0):
    """Each expert has 1.0 +- 0.1 nats/token at home and `away` +- 0.1 elsewhere."""
    rng = np.random.default_rng(seed)
    found = {}
    for home, name in enumerate(NAMES):
        mean = np.full((4, 1), away)
        mean[home] = 1.0
        found[name] = Signals(mean + rng.normal(0, 0.1, (4, count)))
    return found


def level(mean, count=100, seed=9):
    return Signals(mean + np.random.default_rng(seed).normal(0, 0.1, (4, count)))


@pytest.fixture(scope="module")
def easy():
    test = world(1) | {
        "martian": level(3.0),
        "attack/zeros": level(0.0),
        "attack/noise": level(9.0),
    }
    return ood.run(NAMES, world(0), test)


def test_a_world_with_gaps_is_told_apart_perfectly(easy):
    found = easy["scores"]["novelty_score"]
    assert found["auroc"] == found["aupr"] == 1.0
    assert found["fpr95"] == 0.0
    assert found["reject_at_1pct"] == 1.0
    cells = easy["per_domain"]
    assert {n: c["kind"] for n, c in cells.items()} == {
        **dict.fromkeys(NAMES, "held_out"),
        "martian": "unseen",
        "attack/zeros": "attack",
        "attack/noise": "attack",
    }
    assert easy["domains"] == list(NAMES) and easy["rule_chosen_on"] == "valid"


def test_a_one_sided_rule_accepts_what_is_too_easy(easy):
    for rule, accepted in (
        ("novelty_score", 0.5),
        ("p", 0.5),
        ("two_sided", 0.0),
        ("fingerprint", 0.0),
    ):
        assert easy["scores"][rule]["attack_accept"] == accepted, rule
    assert easy["scores"]["p"]["attack_accept_worst"] == 1.0


def test_attacks_do_not_count_as_domains(easy):
    """The means are over left-out and unseen domains only."""
    for found in easy["scores"].values():
        five = [c["auroc"] for c in found["per_domain"].values() if c["kind"] != "attack"]
        assert len(five) == 5 and found["auroc"] == pytest.approx(np.mean(five))
        assert found["auroc_worst"] == min(five)


def test_clones_are_at_chance():
    """Experts that are alike on everything cannot tell a left-out domain."""
    rng = np.random.default_rng(3)
    alike = lambda: {
        n: Signals(np.repeat(rng.normal(1, 0.1, (1, 300)), 4, 0) + rng.normal(0, 1e-3, (4, 300)))
        for n in NAMES
    }
    found = ood.run(NAMES, alike(), alike())
    for rule, figures in found["scores"].items():
        assert 0.44 < figures["auroc"] < 0.56, rule
        assert 0.4 < figures["aupr"] < 0.6 and figures["reject_at_1pct"] < 0.05, rule


def test_the_threshold_keeps_its_false_alarm_rate_on_new_windows():
    """Overlapping domains, all rules: a rule fitted and set on the same windows would not."""
    found = ood.run(NAMES, world(0, 500, 1.15), world(1, 1200, 1.15), Protocol(false_alarm=0.05))
    for rule, figures in found["scores"].items():
        assert 0.03 < figures["false_alarm"] < 0.07, rule
    assert found["target_false_alarm"] == 0.05


def test_the_held_out_expert_has_no_say():
    """Whatever row d holds, d left out gets the same figures."""
    valid, test = world(0, 100), world(1, 100)
    first = ood.run(NAMES, valid, test)
    noise = np.random.default_rng(5)
    spoil = lambda part: {
        n: Signals(np.concatenate([s.residual[:3], noise.random((1, len(s)))]))
        for n, s in part.items()
    }
    second = ood.run(NAMES, spoil(valid), spoil(test))
    for rule in first["scores"]:
        assert (
            first["scores"][rule]["per_domain"]["d"] == second["scores"][rule]["per_domain"]["d"]
        ), rule


def test_the_generalist_is_a_reference_only():
    found = ood.run(NAMES, world(0), world(1), Protocol(generalist="d"))
    assert set(found["per_domain"]) == {"a", "b", "c"} and "generalist" in found["scores"]
    assert "generalist" not in ood.run(NAMES, world(0), world(1))["scores"]


def test_the_rule_is_chosen_on_valid_not_on_test():
    valid, test = world(0), world(1)
    # Only two-sided rules see the tuning text; nothing in test asks for it.
    tuned = ood.run(NAMES, valid | {"blank": level(0.0)}, test)
    assert tuned["scores"][tuned["rule"]]["valid_auroc"] == 1.0
    assert tuned["scores"]["novelty_score"]["valid_auroc"] == pytest.approx(4 / 5)
    assert tuned["rule"] not in ("p", "novelty_score", "margin")
    assert "blank" not in tuned["per_domain"]
    given = ood.run(NAMES, valid, test, Protocol(rule="margin"))
    assert given["rule"] == "margin" and given["rule_chosen_on"] == "given"
    assert given["auroc"] == given["scores"]["margin"]["auroc"]


def test_aupr_of_hand_made_scores():
    assert ood.aupr(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 1.0
    assert ood.aupr(np.ones(7), np.ones(3)) == 0.5
    # Descending 3u 2k 1u 0k: half the recall at precision 1, the rest at 1 / (1 + 1/2).
    assert ood.aupr(np.array([2.0, 0.0]), np.array([3.0, 1.0])) == pytest.approx(0.5 + 0.5 * 2 / 3)
    # Ten times as many knowns, the same figure: classes have equal mass.
    assert ood.aupr(np.tile([2.0, 0.0], 10), np.array([3.0, 1.0])) == pytest.approx(5 / 6)


def test_bad_input_is_one_clear_line():
    valid, test = world(0), world(1)
    cases = [
        (dict(rule="guess"), valid, test, "novelty_score"),
        (dict(generalist="z"), valid, test, "no expert"),
        ({}, {k: valid[k] for k in "abc"}, test, "validation windows of d"),
        ({}, valid | {"a": valid["a"].take(slice(0, 2))}, test, "at least 5"),
        ({}, valid, test | {"u": Signals(np.ones((3, 5)))}, "all 4 experts"),
        ({}, valid, test | {"u": Signals(np.full((4, 5), np.nan))}, "finite"),
        (dict(false_alarm=1e-4), valid, test, "at least 9999 validation"),
    ]
    for options, v, t, message in cases:
        with pytest.raises(UserError, match=message):
            ood.run(NAMES, v, t, Protocol(**options))
    with pytest.raises(UserError, match="three known"):
        ood.run(NAMES[:2], valid, test)
