"""A run's page draws the curves of cut texts and one text, and leaves out what is not there."""

import json
import math

import numpy as np
import pytest
import tiny_bank

from cr_jax.report import segments as page
from cr_jax.report.segment_study import pictures
from cr_jax.routing.options import SegmentOptions
from cr_jax.routing.segment import segments
from cr_jax.routing.segment_view import SegmentView, StoredView
from cr_jax.scoring.batching import BatchSizes

CURVES = {
    "f1": {"tokens": [48, 96, 192], "experts": [0.7, 0.9, 1.0], "fixed windows": [0.1, 0.2, 0.3]},
    "at_switch": {"token": [-1, 0, 1], "fixed windows": [1.0, 3.0, 2.0], "spans": [1.0, 1.1, 1.0]},
}


@pytest.fixture(scope="module")
def view():
    bank = tiny_bank.trained_bank()
    shown = SegmentView(bank.tokenizer)
    text = "abcdefghij" * 9 + "zyxwvutsrq" * 6 + "<script>#!&%" * 4
    options, sizes = SegmentOptions(switch=4.0, minimum=8, delay=64), BatchSizes(2, 4)
    assert list(shown.watch(segments(bank, text, options, sizes, shown.read)))
    return shown


def test_a_stored_text_gives_the_page_that_it_gave(view):
    again = StoredView.of_record(json.loads(json.dumps(view.stored(), allow_nan=False)))
    assert (again.text, again.of, again.tokens) == (view.text, view.of, view.tokens)
    np.testing.assert_allclose(again.nats, view.nats, atol=1e-3)
    one, two = page.shown(view), page.shown(again)
    # nats are rounded to 0.001, so points of the track may move by a tenth of a pixel.
    coloured = lambda html: html.split("<h3>The text</h3>")[1]
    assert coloured(one) == coloured(two)
    assert one.count('class="band"') == two.count('class="band"') == view.count > 1


def test_both_pictures_and_the_text_are_shown_and_escaped(view):
    body = pictures({"segments": {"curves": CURVES, "document": view.stored()}})
    assert "Switches found" in body and "Around a switch" in body
    assert body.count('class="band"') == view.count and "<script" not in body


def test_what_a_report_lacks_is_left_out(view):
    stored = view.stored()
    assert pictures({}) == pictures({"segments": {}}) == pictures({"segments": []}) == ""
    half = pictures({"segments": {"curves": {"f1": CURVES["f1"]}}})
    assert "Switches found" in half and "Around a switch" not in half
    nowhere = {**stored, "spans": stored["spans"][1:]}  # the first tokens belong to none
    endless = {**stored, "nats": [*stored["nats"], 1.0]}
    for wrong in ({}, {"text": 1}, nowhere, endless, {**stored, "spans": [3]}):
        assert pictures({"segments": {"document": wrong}}) == ""


def test_what_is_not_finite_is_stored_as_nothing(view):
    stored = view.stored()
    assert stored["spans"][0]["saved"] is None
    stored["spans"][0] |= {"margin": None, "p_value": None}
    span = StoredView.of_record(stored).spans[0]
    assert math.isinf(span.margin) and math.isnan(span.route.p_values[span.nearest])
    assert span.saved is None
