"""The study of a table of scores: what it chooses by, and what it says of each rule."""

import json

import numpy as np
import pytest
from made_scores import drawn, made

from cr_jax.studies.continual import table
from cr_jax.studies.continual.rules import PLAIN, RULES, Claims, LeadOfText, Rule
from cr_jax.studies.continual.scores import Scores


@pytest.fixture(scope="module")
def found():
    return table.study(drawn())


def test_every_rule_has_its_figures(found):
    assert list(found["rules"]) == [r.name for r in RULES]
    plain = found["rules"]["plain"]
    assert plain["fwt"] == 0 and plain["bwt"] < 0 < plain["flip_rate"]
    assert plain["by_order"].keys() == found["orders"].keys() and len(found["orders"]) == 5
    assert plain["lost_rate"] <= plain["flip_rate"] and plain["cured_rate"] == 0
    assert set(found["chosen_by_family"]) == {r.family for r in RULES}
    json.dumps(found, allow_nan=False)


def test_before_routing_nothing_is_lost(found):
    before = found["before_routing"]
    assert before["constant"] is True and before["bwt"] == 0 and 0 < before["acc"] < 1


def test_growth_and_the_stages_of_one_order_agree(found):
    assert found["growth"]["plain"]["experts"] == [2, 3, 4, 5]
    stages = found["timeline"]["plain"]
    assert [s["expert"] for s in stages] == found["orders"][found["main_order"]]
    matrix = np.array(found["matrix"]["plain"], float)
    assert np.isnan(matrix[np.triu_indices(5, 1)]).all()
    assert stages[-1]["accuracy"] == pytest.approx(np.nanmean(matrix[-1]), abs=1e-5)
    first = stages[0]
    assert (first["accuracy"], first["flips"], first["lost"]) == (1, 0, 0)
    assert first["nats"] == first["own_nats"] and first["tra"] == first["own_tra"]
    assert all(s["nats"] <= s["own_nats"] for s in stages)  # whoever wins has the lowest


def test_pairs_are_of_all_orders():
    scores = made()
    scores.test["a"][2, 4] = 0.5
    orders = {"one": ("a", "b", "c"), "two": ("c", "b", "a"), "three": ("b", "a", "c")}
    pairs = table.study(scores, (PLAIN,), orders)["pairs"]["plain"]
    assert pairs == [
        {"domain": "a", "expert": "c", "orders": 2, "share": 0.1, "lead": 0.5, "lead_high": 0.5}
    ]  # where c comes first, its window is lost from the start and never flips


def test_the_choice_is_made_on_valid_and_needs_no_text():
    rows = {
        name: {"valid": {"acc": acc, "flip_rate": flips}}
        for name, (acc, flips) in {
            "best": (0.99, 0.02),
            "near": (0.9895, 0.01),
            "calm": (0.9, 0.0),
        }.items()
    }
    assert table.choice(rows, list(rows)) == "near"
    rules = (PLAIN, Rule("text", LeadOfText, "text", keeps_text=True))
    assert table.study(drawn(), rules)["chosen"] == "plain"


def test_valid_windows_that_a_rule_was_fitted_on_do_not_choose_it():
    scores = drawn(windows=6)
    told = scores.on_valid()
    for n in scores.names:
        assert told.valid[n].shape[1] == told.test[n].shape[1] == 3
        np.testing.assert_array_equal(told.test[n], scores.valid[n][:, 1::2])
        np.testing.assert_array_equal(told.valid[n], scores.valid[n][:, ::2])
    one = Scores(*[scores.names, *({n: x[:, :1] for n, x in scores.valid.items()},) * 2])
    assert one.on_valid().test["a"].shape[1] == 1  # of a single window both


def test_another_valid_text_changes_no_figure_of_test_but_by_what_is_fitted():
    scores, other = drawn(), drawn(seed=1)
    mixed = Scores(scores.names, other.valid, scores.test, scores.tra)
    orders = {"one": scores.names}
    rules = (PLAIN, Rule("lead", lambda: Claims(lead=1.0, spent=0.5), "lead"))
    first, second = (table.study(s, rules, orders)["rules"] for s in (scores, mixed))
    assert first["plain"]["acc"] == second["plain"]["acc"]
    assert first["plain"]["valid"] != second["plain"]["valid"]
    assert first["lead"]["flip_rate"] != second["lead"]["flip_rate"]
