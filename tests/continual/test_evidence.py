"""The sequential test: false alarms are as rare as they were asked to be, and new text is found."""

import numpy as np
import pytest
from tiny_bank import refuses

from cr_jax.bank import Expert
from cr_jax.continual.evidence import BETS, SequentialTest, bets, calibrated, rank
from cr_jax.scoring.calibration import Calibration
from cr_jax.scoring.own_documents import OwnDocuments

RUN_LENGTH = 40


def run(seed, strange=lambda random, t: False, known=100, most=3000, run_length=RUN_LENGTH):
    """Documents until an alarm.  Scores are uniform, strange ones lie below all known ones but 2 %;
    a p-value is the conformal one by `known` validation scores, as routing gives it."""
    random = np.random.default_rng(seed)
    validation = np.sort(random.random(known))
    test = SequentialTest(run_length)
    for t in range(most):
        score = random.random() * (0.02 if strange(random, t) else 1)
        p = float(1 + np.searchsorted(validation, score, side="right")) / (known + 1)
        if test.add("e", p, known, random.random()):
            return t + 1
    return most


@pytest.mark.parametrize("known", [20, 100])
def test_the_mean_run_length_between_false_alarms_is_at_least_what_was_asked_for(known):
    lengths = [run(seed, known=known) for seed in range(40)]
    error = np.std(lengths) / np.sqrt(len(lengths))
    assert np.mean(lengths) - 3 * error > RUN_LENGTH
    assert np.mean(lengths) < 20 * RUN_LENGTH  # and the test is not deaf


def test_a_run_length_ten_times_as_long_is_at_least_kept():
    lengths = [run(seed, run_length=10 * RUN_LENGTH, most=1500) for seed in range(8)]
    assert np.mean(lengths) > 10 * RUN_LENGTH
    # A count of unknown documents has a run length of its own, whatever was asked for.
    random = np.random.default_rng(0)
    third = [np.flatnonzero(random.random(2000) < 0.05)[2] for _ in range(200)]
    assert np.mean(third) < 2 * RUN_LENGTH and min(third) < 20


@pytest.mark.parametrize(("share", "within"), [(1.0, 10), (0.5, 40)])
def test_new_text_raises_an_alarm_soon(share, within):
    strange = lambda random, t: random.random() < share
    lengths = [run(seed, strange, run_length=1000) for seed in range(30)]
    assert np.mean(lengths) <= within


def test_text_that_is_stranger_only_a_little_is_found_too():
    """None of it would be called unknown at alpha = 0.05, so that no count could notice."""
    random = np.random.default_rng(0)
    test, late = SequentialTest(1000), []
    for t in range(200):
        if test.add("e", 0.055 + 0.1 * random.random(), 1000, random.random()):
            late.append(t)
    assert late and late[0] < 40


def test_ranks_of_exchangeable_scores_are_uniform_and_bets_are_fair():
    random = np.random.default_rng(1)
    ranks = []
    for _ in range(40):
        validation, earlier = np.sort(random.random(30)), []
        for _ in range(40):
            p = float(1 + np.searchsorted(validation, random.random(), side="right")) / 31
            ranks.append(rank(p, 30, sorted(earlier), random.random()))
            earlier.append(p)
    ranks = np.array(ranks)
    assert ranks.min() > 0 and ranks.max() <= 1
    for level in (0.02, 0.1, 0.5, 0.9):
        assert np.mean(ranks <= level) == pytest.approx(level, abs=0.03)
    logs = np.linspace(-60, 0, 6001)  # over u = log q: the steep bets pay at tiny q
    paid = np.array([bets(float(np.exp(u))) * np.exp(u) for u in logs])
    assert np.trapezoid(paid, logs, axis=0) == pytest.approx(np.ones(len(BETS)), abs=1e-3)


def test_an_alarm_begins_anew_and_a_document_can_be_taken_out():
    test = SequentialTest(5)
    assert [test.add("e", 0.001, 100, 0.5) for _ in range(2)] == [True, True]
    assert test.evidence == 0 and test.documents == 0 and test.earlier == {"e": [0.001, 0.001]}
    assert test.reached >= test.run_length  # what raised the alarm is told
    test.forget("e", 0.001)
    test.forget("e", 0.5)  # not there
    test.forget("f", 0.5)
    assert test.earlier["e"] == [0.001]


def test_documents_stand_behind_p_values_where_there_are_any():
    windows = {8: np.arange(1.0, 31), 16: np.arange(1.0, 51)}
    of = lambda *given, own=None: calibrated(
        Expert("e", {}, Calibration(*given), own_documents=own)
    )
    assert of(windows) == 50
    documents = {2: np.linspace(0, 1, 25)}
    assert of(windows, documents) == 25
    margins = {1: np.linspace(1, 2, 22)}
    assert of(windows, documents, own=OwnDocuments(("f",), margins, margins)) == 22


@pytest.mark.parametrize("run_length", [0.0, 0.99, float("inf"), float("nan")])
def test_a_run_length_that_cannot_be_meant_is_one_line(run_length):
    refuses(lambda: SequentialTest(run_length), "run length", "at least 1")
