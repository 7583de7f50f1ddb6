"""The pictures of the study `continual`: drawn from its figures, and left out without them."""

import re

import pytest
from made_scores import drawn

from cr_jax.report import continual, render
from cr_jax.studies.continual import entry
from cr_jax.studies.continual.rules import PLAIN, Claims, Rule
from cr_jax.studies.continual.table import study


@pytest.fixture(scope="module")
def found():
    lead = Rule("lead_0.5", lambda: Claims(lead=0.5), "lead", 0.5)
    return study(drawn(), (PLAIN, lead))


def test_a_page_has_the_history_the_matrix_and_the_pairs(found):
    page = continual.pictures({"continual": found})
    assert page.count("<figure>") == 4 and page.count("<svg") >= 2
    assert "The bank&#x27;s history" in page or "The bank's history" in page
    cells = re.findall(r'<td class="h\d+( own)?">', page)
    assert len(cells) == 15 and cells.count(" own") == 5  # a triangle of five mounts


def test_rivals_are_shown_where_the_run_has_them(found):
    routed = {"acc": 0.9, "bwt": -0.01, "flip_rate": 0.002, "tra": {"acc": 0.95, "bwt": 0.001}}
    methods = {"sequential": {"acc": 0.4, "bwt": -0.3}, "joint": {"acc": 0.8}, "ngrams": routed}
    page = continual.methods({**found, "methods": methods, "methods_order": "near"})
    assert "-30.00" in page and "+0.10" in page and "0.20" in page
    assert continual.methods(found) == ""


def test_a_script_in_a_name_is_text(found):
    bad = "<script>x</script>"
    pairs = {"plain": [{"domain": bad, "expert": bad, "share": 0.1, "lead": 1, "lead_high": None}]}
    stages = {"plain": [{"expert": bad, "accuracy": 1, "flips": 0, "lost": 0}]}
    page = continual.pictures(
        {"continual": {"pairs": pairs, "timeline": stages, "chosen": "plain", "matrix": "x"}}
    )
    assert "<script" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize("report", [{}, {"continual": None}, {"continual": {"growth": 3}}])
def test_nothing_is_drawn_of_nothing(report):
    assert continual.pictures(report) == ""


def test_the_page_of_a_run_shows_it(found):
    section = vars(entry.section({"continual": found}))
    page = render({"name": "x", "continual": found, "sections": {"continual": section}})
    assert 'id="study-continual"' in page and "taken by" in page
