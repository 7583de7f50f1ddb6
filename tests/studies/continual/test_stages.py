"""Known answers on made scores: one window that flips, rules that see no more than they may."""

import dataclasses

import numpy as np
import pytest
from made_scores import WINDOWS, drawn, made

from cr_jax.errors import UserError
from cr_jax.studies.continual import flips, growth
from cr_jax.studies.continual.orders import orders
from cr_jax.studies.continual.rules import PLAIN, RULES, Claims, Router, Rule
from cr_jax.studies.continual.scores import Scores
from cr_jax.studies.continual.stages import peeks, walk


def test_exactly_one_window_flips():
    scores = made()
    scores.test["a"][2, 4] = 0.5  # expert c, which comes last, codes a window of a better
    history = walk(scores, PLAIN)
    flipped, lost, cured = flips.rates(history)
    assert flipped.tolist() == [0.0, 1 / WINDOWS / 2] == lost.tolist() and not cured.any()
    assert flips.pairs(history) == [
        {
            "domain": "a",
            "expert": "c",
            "windows": 1,
            "share": 1 / WINDOWS,
            "lead": 0.5,
            "lead_high": 0.5,
        }
    ]
    assert growth.accuracy(history).tolist() == pytest.approx([1, 1, 1 - 1 / WINDOWS / 3])
    assert not flips.rates(walk(made(), PLAIN)).any()


def test_a_window_that_comes_home_is_cured_and_no_loss():
    class Second:  # sends all to the first expert until the third is there
        def mount(self, own, old=()):
            pass

        def route(self, residual, before=None):
            return residual.argmin(0) if len(residual) > 2 else np.zeros(residual.shape[1], int)

        def stored_bytes(self):
            return 0

    assert isinstance(Second(), Router)
    moved = flips.rates(walk(made(), Rule("second", Second, "second")))
    assert moved.tolist() == [[0, 0.5], [0, 0], [0, 0.5]]


def test_before_routing_nothing_changes_and_after_it_something_does():
    scores = drawn()
    history = walk(scores, PLAIN)
    label = history.of_label(history.tra)
    there = np.tri(len(scores.names), dtype=bool)
    assert np.isnan(label[~there]).all()
    assert all((column[~np.isnan(column)] == column[-1]).all() for column in label.T)
    routed = history.of_winner(history.tra)
    assert (np.ptp(routed, axis=0) > 0).any()


@pytest.mark.parametrize("rule", RULES, ids=[r.name for r in RULES])
def test_no_rule_sees_what_has_not_come(rule):
    assert not peeks(drawn(), rule)


def test_a_rule_that_peeks_is_found_out(monkeypatch):
    table = {}

    class Noted(Scores):  # where a careless rule could read what is still to come
        def __post_init__(self):
            super().__post_init__()
            table["last"] = self.valid[self.names[-1]][-1].mean()

    class Peeking(Claims):
        def route(self, residual, before=None):
            first = (np.arange(len(residual)) == 0)[:, None]
            return (residual - table["last"] / 4 * first).argmin(0)

    monkeypatch.setattr("cr_jax.studies.continual.stages.Scores", Noted)
    scores = drawn()
    Noted(scores.names, scores.valid, scores.test)
    assert peeks(scores, Rule("peeking", Peeking, "peeking"))
    assert not peeks(scores, PLAIN)


def test_only_a_rule_that_says_so_gets_text_of_old_domains():
    given = []

    class Noting(Claims):
        def mount(self, own, old=()):
            given.append((own.shape[0], len(old)))
            super().mount(own)

    walk(drawn(), Rule("numbers", Noting, "n"))
    assert given == [(k, 0) for k in range(1, 6)]
    given.clear()
    walk(drawn(), Rule("text", Noting, "t", keeps_text=True))
    assert given == [(k, k - 1) for k in range(1, 6)]


@pytest.mark.parametrize("rule", RULES, ids=[r.name for r in RULES])
def test_asking_the_last_expert_alone_is_asking_all(rule):
    scores = drawn()
    residual = np.concatenate(list(scores.test.values()), 1)
    router, before = rule.make(), None
    for k, name in enumerate(scores.names):
        old = [scores.valid[n][k] for n in scores.names[:k]] if rule.keeps_text else ()
        router.mount(scores.valid[name][: k + 1], old)
        before = router.route(residual[: k + 1], before)
        np.testing.assert_array_equal(before, router.route(residual[: k + 1]))


def test_without_conditions_the_lowest_residual_wins():
    scores = drawn()
    residual = np.concatenate(list(scores.test.values()), 1)
    found = walk(scores, PLAIN).winners
    for k in range(len(scores.names)):
        np.testing.assert_array_equal(found[k], residual[: k + 1].argmin(0))


def test_a_typical_window_cannot_be_claimed():
    scores = made()
    scores.valid["a"][0] = np.linspace(0.5, 1.5, WINDOWS)
    scores.test["a"][2, 4] = 0.5
    rule = Rule("untypical", lambda: Claims(quantile=0.9), "untypical")
    assert not flips.rates(walk(scores, rule)).any()
    scores.test["a"][0, 4] = 2.0  # as no text of a: now it may be claimed
    assert flips.rates(walk(scores, rule))[0].tolist() == [0, 0.05]


def test_a_lead_is_required_as_large_as_the_new_text_gives():
    scores = made()
    rule = Rule("lead", lambda: Claims(lead=0.5), "lead")  # b leads a by 2 on its own text
    scores.test["a"][1, 4] = 0.5
    assert not flips.rates(walk(scores, rule)).any()
    scores.test["a"][0, 4] = 1.6
    assert flips.rates(walk(scores, rule))[0].tolist() == [0.1, 0]
    assert walk(scores, rule).routed[-1].tolist() == [0.9, 1, 1]


def test_rules_by_winner_never_take_from_whom_their_text_never_came():
    scores = made(("a", "b", "c"))
    scores.valid["c"][0] = 2.0  # before c came, its text went to a
    scores.test["c"][0] = 2.0
    scores.test["b"][2, 4] = -9.0
    rule = Rule("by", lambda: Claims(lead=0.5, by_winner=True), "by")
    history = walk(scores, rule)
    assert not flips.rates(history).any() and history.routed[-1].tolist() == [1, 1, 1]


def test_what_rules_keep_is_counted():
    scores = drawn()
    kept = {r.name: walk(scores, r).stored for r in RULES}
    assert kept["plain"] == 0 and kept["typicality_2"] == 5 * 4 and kept["offsets_0.9"] == 5 * 4
    assert kept["typicality_lead_0.5"] == 2 * 5 * 4 and kept["lead_by_winner_1"] == 10 * 4
    assert kept["offsets_text"] == (5 + 5 * 5 * 40) * 4


def test_orders_put_near_domains_after_each_other():
    names = ("a", "x", "b", "y")
    scores = made(names)
    for one, two in (("a", "b"), ("x", "y")):
        scores.valid[one][names.index(two)] = scores.valid[two][names.index(one)] = 1.1
    found = orders(scores)
    assert found["near"] in [("a", "b", "x", "y"), ("x", "y", "a", "b")]
    assert {frozenset(found["far"][i : i + 2]) for i in (0, 2)} != {
        frozenset("ab"),
        frozenset("xy"),
    }
    assert list(found) == ["near", "far", "random_0", "random_1", "random_2"]
    assert all(sorted(order) == sorted(names) for order in found.values())


def test_a_law_is_found_again_and_predicts():
    experts = np.arange(2, 65)
    odds = 0.002 * (experts - 1.0) ** 0.7
    truth = odds / (1 + odds)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.05, (6, experts.size)))
    found = growth.law(experts, truth * noise)
    assert found["b_range"][0] < 0.7 < found["b_range"][1] and abs(found["b"] - 0.7) < 0.02
    wanted = 0.002 * 999**0.7 / (1 + 0.002 * 999**0.7)
    assert growth.predicted(found, 1000) == pytest.approx(wanted, rel=0.1)
    assert growth.predicted(found, 10**12) <= 1
    assert growth.law(experts, np.zeros((2, experts.size)))["c"] is None


def test_bad_scores_are_refused_in_one_line():
    scores = drawn()
    with pytest.raises(UserError, match="two experts or more"):
        Scores(("a",), {}, {})
    for change in ("nan", "missing"):
        test = {n: x.copy() for n, x in scores.test.items()}
        if change == "nan":
            test["b"][0, 0] = np.nan
        else:
            test.pop("b")
        with pytest.raises(UserError, match="b: "):
            dataclasses.replace(scores, test=test)
    with pytest.raises(UserError, match="each of"):
        scores.ordered("abc")
