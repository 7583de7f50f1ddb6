"""Accuracy, confusion and detection from made-up scores of two made-up experts."""

import dataclasses

import numpy as np
import pytest
import tiny_bank

from cr_jax.bank import Expert
from cr_jax.config import Scoring
from cr_jax.scoring.calibration import Calibration
from cr_jax.studies import routing
from cr_jax.studies.evaluation import DomainScores

TOKENS = 10


def scores(residual, correct=None):
    """DomainScores of windows of ten tokens; residual [E][N] in nats/token."""
    nll = np.asarray(residual, float) * TOKENS
    correct = np.zeros(nll.shape, int) if correct is None else np.asarray(correct)
    count = np.full(nll.shape[1], TOKENS)
    return DomainScores(nll, nll, correct, count, count, 0.1)


@pytest.fixture(scope="module")
def bank():
    """Both experts are used to residuals of 1.00 to 1.99 on their own text."""
    bank = tiny_bank.in_memory(0)
    calm = Calibration({TOKENS: 1 + np.arange(100) / 100})
    for i, name in enumerate(("x", "y")):
        bank = bank.mount(Expert(name, tiny_bank.one(tiny_bank.fresh(2), i), calm))
    return bank


CASE = {
    "x": scores(
        [[1.2, 1.3, 1.4, 3.0], [2.0, 3.0, 4.0, 1.5]], [[9, 9, 1, 9], [1, 1, 9, 1]]
    ),  # by residual 3 of 4, by TRA 3 of 4 others
    "y": scores([[5.0, 5.0], [1.1, 1.2]]),
    "strange": scores([[5.0, 6.0], [7.0, 4.0]]),
    "random_tokens": scores([[1.2, 9.0], [9.0, 9.0]]),
}


def test_accuracy_is_the_mean_over_domains_and_confusion_counts_windows(bank):
    found = routing.run(bank, CASE, ("strange",), 0.05)["routing"]
    assert found["confusion"] == {"x": {"x": 3, "y": 1}, "y": {"x": 0, "y": 2}}
    assert found["per_domain"] == {"x": 0.75, "y": 1.0}
    assert found["accuracy"] == 0.875 and found["chance"] == 0.5 and found["windows"] == 6
    assert found["rule"] == "argmin nats/token to rebuild the text"
    # All of y's windows tie by TRA: the first expert wins ties.
    assert found["accuracy_tra"] == pytest.approx((0.75 + 0.0) / 2)
    # By the paper's rule, whatever the bank compares: here both are the same.
    assert found["accuracy_rebuild"] == found["accuracy"]


def test_the_papers_rule_reads_what_rebuilding_costs_and_not_the_banks_residual(bank):
    def other(domain, nll):
        nll = np.asarray(nll, float) * TOKENS
        return dataclasses.replace(CASE[domain], nll=nll)

    case = {
        **CASE,
        "y": other("y", [[5.0, 1.0], [1.1, 1.2]]),
        "strange": other("strange", [[0.9, 6.0], [7.0, 4.0]]),
    }
    found = routing.run(bank, case, ("strange",), 0.05)
    assert found["routing"]["per_domain"]["y"] == 1.0  # by the bank's rule, as before
    assert found["routing"]["accuracy_rebuild"] == (0.75 + 0.5) / 2
    cell = found["ood"]["per_domain"]["strange"]
    # Of the two strange windows one is cheaper to rebuild than all six known ones.
    assert (cell["auroc"], cell["auroc_rebuild"]) == (1.0, 0.5)


def test_unknown_text_is_told_by_the_lowest_novelty_score(bank):
    ood = routing.run(bank, CASE, ("strange",), 0.05)["ood"]
    assert ood["auroc_unseen_domain"] == ood["auroc_unseen_worst"] == 1.0
    # One of the two random windows looks like home: 1.2 is above 2 and ties with 2 of 6.
    assert ood["auroc_random"] == pytest.approx((1 + (1 + 2 / 2) / 6) / 2)
    assert ood["per_domain"]["strange"]["rejected_at_alpha"] == 1.0
    assert ood["per_domain"]["random_tokens"]["rejected_at_alpha"] == 0.5
    assert ood["false_alarm"] == 0.0 and ood["accepted_own"] == {"x": 1.0, "y": 1.0}


def test_the_novelty_score_is_in_units_of_the_experts_own_spread(bank):
    # Median 1.495, 95th percentile 1.9405.
    found = routing.novelty_score(bank, scores([[1.495, 1.9405], [1.495, 2.386]]))
    np.testing.assert_allclose(found, [[0, 1], [0, 2]], atol=1e-6)


def test_without_unknown_text_there_is_no_figure_of_it(bank):
    ood = routing.run(bank, {k: CASE[k] for k in "xy"}, (), 0.05)["ood"]
    assert "auroc_unseen_domain" not in ood and "auroc_random" not in ood


def test_alpha_moves_the_refusals(bank):
    at = lambda alpha: routing.run(bank, CASE, ("strange",), alpha)["ood"]["false_alarm"]
    assert at(0.0) == 0.0 and at(0.9) > at(0.6) > 0 and at(1.0) == 1.0


def test_windows_are_won_as_the_bank_compares_and_its_p_value_decides():
    """x's own residuals end at 2, y's at 4: windows of 3 and 3.2 are y's own kind of text."""
    bank = tiny_bank.in_memory(0, rule=Scoring(typicality_weight=2.0))
    for i, (name, low) in enumerate((("x", 1), ("y", 3))):
        own = Calibration({TOKENS: low + np.arange(100) / 100})
        bank = bank.mount(Expert(name, tiny_bank.one(tiny_bank.fresh(2), i), own))
    case = {"x": scores([[1.5, 1.2], [3.0, 3.0]]), "y": scores([[3.0, 1.9], [3.2, 3.1]])}
    found = routing.run(bank, case, (), 0.05)
    assert found["routing"]["confusion"] == {"x": {"x": 2, "y": 0}, "y": {"x": 1, "y": 1}}
    assert found["ood"]["accepted_own"] == {"x": 1.0, "y": 1.0}
    assert found["routing"]["rule"] == (
        "argmin nats/token to rebuild the text + 2 x what exceeds the 95th percentile of the "
        "expert's own text"
    )
    plain = routing.run(bank.changed(scoring=Scoring()), case, (), 0.05)
    assert plain["routing"]["per_domain"]["y"] == 0.0  # negative control
    assert plain["ood"]["accepted_own"]["y"] == 0.5  # x has no such text: refused
