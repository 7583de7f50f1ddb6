"""Picture of the study `in_context`: margin by the place of a token, and flips by shots.

Like `sections`: takes the report and returns HTML, or "" when it has no data.
"""

from cr_jax.report.charts import Series, legend, line_chart
from cr_jax.report.layout import figure, panel, panels
from cr_jax.report.text import decimal, mapping, number, sequence

MARGINS = {"bank": "by the bank's rule", "rebuild": "by rebuilding"}
READ = {
    "whole": "all of the prompt",
    "last": "the last tokens",
    "segment": "the last span",
    "rebuild": "the query, by rebuilding",
}


def pictures(report: dict) -> str:
    """Both panels, each left out where the report lacks its numbers."""
    found = mapping(report.get("in_context"))
    place, shots = mapping(found.get("by_position")), mapping(found.get("k_shot_flips"))
    margins = []
    for slot, (rule, words) in enumerate(MARGINS.items()):
        values = sequence(mapping(place.get(rule)).get("margin"))
        margins.append(Series(words, slot, list(range(len(values))), values))
    ks = sorted((k for k in shots if str(k).isdecimal()), key=int)
    flips = [
        Series(
            words,
            slot,
            [int(k) for k in ks],
            [number(mapping(mapping(shots[k]).get(mode)).get("flips")) for k in ks],
        )
        for slot, (mode, words) in enumerate(READ.items())
    ]
    left = line_chart(margins, "tokens of the window before it", "margin of a token, nats")
    right = line_chart(flips, "blocks of another domain before the query", "flips", share=True)
    # A legend beside each chart: the same colours stand for other things in the other.
    body = panels(
        panel("Margin", left + legend([(s.name, s.slot) for s in margins])) if left else "",
        panel("Flips", right + legend([(s.name, s.slot) for s in flips])) if right else "",
    )
    if not body:
        return ""
    ratio = mapping(place.get("bank")).get("late_over_early")
    return figure(
        body,
        "Left, by how many nats the domain's own expert leads the next one on a token, by how much "
        "of the window stands before it; right, the share of queries that another expert answers "
        "than answers them alone.",
        "the margin stays as it is while flips of the query's own tokens grow with the blocks "
        "before it, or flips do not grow where all of the prompt is read.",
        f"The last quarter of a window has {decimal(ratio)} times the margin of the first."
        if number(ratio) is not None
        else "",
    )
