"""What is scheduled, as bars and as coloured text: the numbers that are given, and no others."""

import html
import math
import re

import pytest

from cr_jax.report import render
from cr_jax.report.bars import Bar, bar_chart, change
from cr_jax.report.modular import bars, documents, pictures


def drawn(svg):
    """(name, from, to) of each bar, in the order of the page."""
    shape = r'<title>([^:]*):[^<]*</title><path class="(?:bar|outline)" d="M([\d.]+) \d+H([\d.]+)'
    return [(n, float(a), float(b)) for n, a, b in re.findall(shape, svg)]


def test_bars_are_sorted_and_as_long_as_their_values():
    values = {"worse": 1.2, "level": 1.0, "better": 0.9, "best": 0.7}
    found = drawn(bar_chart([Bar(n, x) for n, x in values.items()], "axis", "label"))
    assert [n for n, *_ in found] == ["best", "better", "level", "worse"]
    lengths = {n: b - a for n, a, b in found}
    assert lengths["best"] == pytest.approx(3 * lengths["better"], rel=0.01)
    assert lengths["worse"] == pytest.approx(2 * lengths["better"], rel=0.01)
    assert lengths["level"] == 0
    zero = found[-1][1]
    assert found[0][2] == found[1][2] == zero  # those that are less end at the line


def test_a_bar_that_would_hide_the_others_is_cut_and_says_its_value():
    chart = bar_chart([Bar("top1", 0.8), Bar("dense", 1.0), Bar("odd", 9.0)], "a", "l")
    odd = next(b - a for n, a, b in drawn(chart) if n == "odd")
    top = next(b - a for n, a, b in drawn(chart) if n == "top1")
    assert odd == pytest.approx(top, rel=0.01)  # and not forty times as long
    assert "+800.0" in chart and chart.count("l6 ") == 1
    assert bar_chart([], "a", "l") == bar_chart([Bar("x", math.nan)], "a", "l") == ""
    assert change(0.86) == "−14.0\u202f%" and change(1.0) == "0.0\u202f%"


def test_arms_are_compared_domain_by_domain(make_report):
    report = make_report()
    after = report["modular"]["prefix"]["64"]["after"]
    after["top1"]["ppl"] = {n: 0.5 * x for n, x in after["dense"]["ppl"].items()}
    after["top1"]["ppl"]["german"] *= 3
    page = bars(report)
    mean = 0.5 * 3**0.25
    assert f"<title>top1: {change(mean)}; " in page
    assert f"<title>german: {change(1.5)}</title>" in page
    assert f"<title>python: {change(0.5)}</title>" in page
    assert "top1 has a lower perplexity than dense in 3 of 4 domains" in page
    assert page.count('class="outline"') == 2  # a bound and its key
    del after["dense"]
    assert "perplexity beside seed" in bars(report)  # the next that there is
    del after["seed"]
    assert bars(report) == ""


def test_tokens_have_the_colour_of_who_speaks_them(make_report):
    report = make_report()
    page = documents(report)
    for window in report["modular_document"]["windows"]:
        for token in window:
            hover = f"{token['expert']}, {token['nats']:.2f} nats; text of {token['label']}"
            assert f'title="{hover}"' in page
    tokens = [t for w in report["modular_document"]["windows"] for t in w]
    colour = {"seed": "", "python": ' class="s0"', "english": ' class="s1"'}
    for name, kind in colour.items():
        count = sum(t["expert"] == name for t in tokens)
        assert page.count(f'<i{kind} title="{name},') == count > 0
        assert f"<i{kind}>{name}</i> {count} tokens" in page  # the key
    assert page.count('<b class="cut">english</b>') == 2  # where each window goes over
    text = re.sub(r"<b.*?</b>|<[^>]+>", "", "".join(re.findall(r"<pre.*?</pre>", page, re.S)))
    assert html.unescape(text).replace("\n", "") == "".join(t["piece"] for t in tokens).replace(
        "\n", ""
    )


def test_the_ninth_expert_is_told_from_the_first(make_report):
    names = tuple(f"e{i}" for i in range(9))
    report = make_report(names, names)
    report["modular_document"]["windows"] = [
        [{"piece": "x", "expert": n, "label": n, "nats": 1.0} for n in ("e0", "e8")]
    ]
    page = documents(report)
    assert '<i class="s0" title' in page and '<i class="s0 again" title' in page


def test_colours_are_there_without_the_other_studies(make_report):
    report = {k: make_report()[k] for k in ("modular", "modular_document")}
    assert '<i class="s1" title="english,' in documents(report)
    assert re.search(r'<g class="s1"><title>english: ', bars(report))
    report = make_report()
    del report["modular"], report["fingerprint"], report["residuals"], report["curves"]
    del report["geometry"]
    assert '<i class="s1" title="english,' in documents(report)


def test_a_report_without_the_study_has_no_pictures(make_report):
    report = make_report()
    assert "Who speaks, mean over domains" in render(report)
    for key in ("modular", "modular_document"):
        del report[key]
    assert pictures(report) == pictures({}) == ""
    page = render(report)
    assert "Who speaks, mean over domains" not in page and "Each row is who predicts." in page
