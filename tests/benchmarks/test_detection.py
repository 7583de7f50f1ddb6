"""Known documents rarely alarm, strange ones soon, and what alarms never counts in full."""

import argparse

import numpy as np

from benchmarks.continual.detection import Judged, false_alarms, measured, until_alarm

BEHIND = {"e0": 100, "e1": 100}


def documents(p):
    return [Judged(f"e{i % 2}", float(x)) for i, x in enumerate(p)]


def uniform(count, seed=0):
    return documents(np.random.default_rng(seed).integers(1, 102, count) / 101)


def test_new_text_is_heard_soon_and_usual_text_is_not():
    known = uniform(400)
    strange = documents(np.full(40, 1 / 101))
    counts = [until_alarm(known, strange, BEHIND, 1000, seed) for seed in range(10)]
    assert max(counts) <= 10
    usual = [until_alarm(known, uniform(40, 1), BEHIND, 1000, seed) for seed in range(10)]
    assert np.mean(usual) > 30  # all 40, where nothing alarms


def test_false_alarms_are_as_rare_as_the_run_length_says():
    known = uniform(400)
    assert false_alarms(known, BEHIND, 50, 3000) <= 3000 / 50
    assert false_alarms(known, BEHIND, 5, 3000) > false_alarms(known, BEHIND, 50, 3000)


def test_a_domain_without_an_alarm_counts_with_all_its_documents():
    a = argparse.Namespace(run_length=1e9, orders=2, most=10)
    found = measured(uniform(60), {"like": uniform(12, 3)}, BEHIND, a)
    assert found["by_domain"]["like"] == {"mean": 12.0, "most": 12} and found["false_alarms"] == 0
    assert found["run_length"] == 10 and found["wanted_run_length"] == 1e9
