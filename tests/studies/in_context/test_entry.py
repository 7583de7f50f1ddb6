"""The whole study by made experts, its section and its picture."""

from types import SimpleNamespace

import made_experts
import pytest
import tiny_bank

from cr_jax.report import in_context, render
from cr_jax.routing.options import SegmentOptions
from cr_jax.studies import registry
from cr_jax.studies.in_context import entry

PLAN = entry.Plan(12, 8, (10, 10), (8, 8), (6, 30), SegmentOptions(switch=3.0, minimum=4))


@pytest.fixture(scope="module")
def found():
    with pytest.MonkeyPatch.context() as patch:
        made_experts.use(patch, made_experts.steady)
        own = made_experts.own()
        return entry.measure(made_experts.bank(), own, made_experts.own(seed=1), PLAN)


def test_reading_the_end_of_a_prompt_wins_where_others_stand_before_it(found):
    flips = [of["whole"]["flips"] for of in found["k_shot_flips"].values()]
    assert list(found["k_shot_flips"]) == ["0", "1", "2", "4"] and flips == [0, 0, 1, 1]
    assert all(of["carried"]["flips"] == 0 for of in found["k_shot_inside"].values())
    assert all(of["whole"]["right"] == 1 for of in found["repeats"].values())
    assert found["quotes"]["whole"]["right"] > 0.7 and found["instructions"] == {}
    rule = found["rule"]
    assert rule["test"].keys() == {"whole", "last", "segment", "both"}
    assert rule["mean"]["segment"] > rule["mean"]["whole"] and rule["chosen"] != "whole"
    assert all(of["plain"]["right"] == 1 for of in rule["test"].values())


def test_the_page_shows_the_table_and_two_curves(found):
    section = entry.section({"in_context": found})
    assert len(section.rows) == 6 and {len(r) for r in section.rows} == {len(section.head)}
    assert "1.00 times" in section.finding
    page = in_context.pictures({"in_context": found})
    assert page.count("<svg") >= 2 and "1.00 times the margin" in page
    assert in_context.pictures({}) == "" == in_context.pictures({"in_context": {"by_position": 3}})
    bad = {"in_context": {"k_shot_flips": {"<script>": 1, "0": None, "1": {"whole": "x"}}}}
    assert "<script>" not in in_context.pictures(bad)
    report = {"sections": {"in_context": vars(section)}, "in_context": found}
    assert '<section id="study-in_context">' in render(report)


def test_a_run_of_one_domain_is_refused():
    one = SimpleNamespace(data=SimpleNamespace(domains={"a": None}))
    assert registry.STUDIES["in_context"] is entry.STUDY
    tiny_bank.refuses(lambda: entry.check(one), "two or more")
