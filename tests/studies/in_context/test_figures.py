"""Flips and rules from made answers."""

import numpy as np
import pytest

from cr_jax.studies.in_context.answers import MEANS, REBUILT_ALONE, Answers
from cr_jax.studies.in_context.figures import asked, by_mode, choose, interval, repeated, ruled
from cr_jax.studies.in_context.prompts import Prompt

IDS = np.zeros(4, np.int32)


def made(**winners):
    """Three experts, four prompts; the winner leads by 1 nat/token."""
    means = {m: np.ones((4, 3)) for m in (*MEANS, REBUILT_ALONE)}
    for mode in means:
        means[mode][np.arange(4), winners.get(mode, [0, 0, 0, 0])] = 0.0
    segment = np.array(winners.get("segment", [0, 0, 0, 0]))
    return Answers(means, segment, np.array([True, True, False, False]))


PROMPTS = [Prompt(IDS, 2, 0, 1)] * 4


def test_flips_are_counted_against_the_query_alone():
    found = by_mode(made(whole=[1, 1, 2, 0], rebuild=[2] * 4, rebuild_reset=[2] * 4), PROMPTS)
    assert found["whole"]["flips"] == 0.75 and found["whole"]["right"] == 0.25
    assert found["whole"]["to_other"] == 0.5  # one of three flips is to a third expert
    assert found["whole"]["margin"] == pytest.approx((1 - 1 - 1 - 1) / 4)
    assert found["reset"]["flips"] == 0 == found["rebuild"]["flips"]  # by its own choice alone
    assert found["rebuild"]["right"] == 0 and found["segment"]["begins_at_query"] == 0.5
    low, high = found["whole"]["flips_95"]
    assert low < 0.75 < high and interval([1.0] * 5) == [1.0, 1.0]
    assert "margin" not in found["segment"] and found["count"] == 4
    # Repeats have no other domain: its own text is never the context that won.
    same = [Prompt(IDS, 2, 0, 0)] * 4
    assert repeated(made(), same)["whole"]["to_other"] == 0
    assert repeated(made(), same)["nats"] == {"carried": 0, "rebuild": 0, "alone": 0}
    assert asked(made(before=[0, 1, 1, 1]), PROMPTS)["question_right"] == 0.25


def test_both_follows_the_last_window_where_it_leads():
    answers = made(whole=[1, 1, 1, 1], last=[0, 0, 0, 0])
    answers.means["last"][2:, 1] = 0.1
    assert ruled(answers, "both", 0.5).tolist() == [0, 0, 1, 1]
    assert ruled(answers, "both", 0.05).tolist() == [0, 0, 0, 0]
    assert ruled(answers, "last", 0.5).tolist() == [0] * 4
    assert ruled(answers, "segment", 0.5).tolist() == [0] * 4


def test_the_rule_is_chosen_on_valid_and_reported_on_test():
    good_last = {
        "shots": (made(whole=[1] * 4), PROMPTS),
        "plain": (made(last=[0, 0, 0, 2]), PROMPTS),
    }
    good_whole = {"shots": (made(last=[1] * 4, segment=[1] * 4), PROMPTS)}
    found = choose(good_last, good_whole)
    assert found["valid"]["last"] == 0.875 > found["valid"]["whole"] == 0.5
    assert found["chosen"] == "segment"  # right on both kinds of valid
    assert found["mean"]["segment"] == 0 and found["mean"]["whole"] == 1
    assert found["test"]["last"]["shots"] == {"right": 0, "right_95": [0, 0], "count": 4}
    agreement = choose(good_whole, good_last)["agreement"]
    assert agreement["shots"] == {"share": 0, "right": None, "last_right": 1}
    assert agreement["plain"] == {"share": 0.75, "right": 1, "last_right": 0}
