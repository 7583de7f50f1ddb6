"""Parts of the report that have numbers of their own: colours, ticks, histograms, rounding."""

import math

import pytest

from cr_jax.config import Scoring
from cr_jax.report.charts import quantile, share_beyond, ticks
from cr_jax.report.style import STEPS, scale
from cr_jax.report.text import percent
from cr_jax.scoring.wording import wording


@pytest.mark.parametrize("dark", [False, True])
def test_scale_is_readable_and_monotone(dark):
    def luminance(colour: str) -> float:
        rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        rgb = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2]

    pairs = [(luminance(fill), luminance(ink)) for fill, ink in scale(dark)]
    assert len(pairs) == STEPS
    for fill, ink in pairs:
        assert (max(fill, ink) + 0.05) / (min(fill, ink) + 0.05) >= 4.5
    fills = [fill for fill, _ in pairs]
    assert fills == sorted(fills, reverse=dark)


def test_histogram_arithmetic():
    edges, counts = [0.0, 1.0, 2.0], [3, 1]
    assert quantile(edges, counts, 0.75) == pytest.approx(1.0)
    assert share_beyond(edges, counts, 1.5) == pytest.approx(0.125)
    assert quantile(edges, [0, 0], 0.5) is None and share_beyond(edges, [0, 0], 0.5) == 0.0


def test_ticks_and_percent_round_honestly():
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    for low, high in ((0, 0.003), (-3, 8), (100, 1e7), (0.1, 0.11)):
        found = ticks(low, high)
        assert 2 <= len(found) <= 6 and low - 1e-9 <= found[0] and found[-1] <= high * (1 + 1e-9)
    assert percent(0.99999).startswith(">99.9") and percent(1.0).startswith("100.0")
    assert percent(1e-6).startswith("<0.1") and percent(math.nan) == percent(None) == "–"


@pytest.mark.parametrize(
    "rule",
    [
        Scoring(),
        Scoring(parts=4),
        Scoring(rate=4),
        Scoring(predicted=True),
        Scoring(predicted=True, bigram_weight=0.4),
        Scoring(predicted=True, typicality_weight=2.0),
    ],
)
def test_a_rules_formula_fits_under_its_drawing(rule):
    """Bold letters of about 8 of the drawing's 510 units, centred at 230."""
    assert len(f"residual = {wording(rule).formula}") <= 72
