"""Pictures of the study `continual`: growth, the bank's history, its accuracy matrix, its flips.

Like `sections`: takes the report and returns HTML, or "" when it has no data.
"""

from cr_jax.report.charts import Series, legend, line_chart, thin
from cr_jax.report.layout import figure, panel, panels
from cr_jax.report.style import STEPS
from cr_jax.report.tables import plain_table, ramp
from cr_jax.report.text import (
    DASH,
    breakable,
    count,
    decimal,
    escape,
    label,
    mapping,
    number,
    percent,
    sequence,
)

MOST_ROWS = 32  # of the matrix
WORST = 0.2  # share of windows routed wrong that has the strongest colour


def pictures(report: dict) -> str:
    """Growth, then the history, the matrix and the flips of one order, then the rivals."""
    found = mapping(report.get("continual"))
    return growth(found) + timeline(found) + matrix(found) + pairs(found) + methods(found)


def growth(found: dict) -> str:
    """What is routed wrong, and what flips, against the number of experts."""
    curves = {str(n): mapping(of) for n, of in mapping(found.get("growth")).items()}
    wrong, moved = (
        [
            Series(n, slot, sequence(of.get("experts")), made(of))
            for slot, (n, of) in enumerate(curves.items())
        ]
        for made in (
            lambda of: [_hundred(x, 1.0) for x in sequence(of.get("accuracy"))],
            lambda of: [_hundred(x) for x in sequence(of.get("flips"))],
        )
    )
    body = panels(
        panel("Windows routed wrong", line_chart(wrong, "experts", "%, of all domains so far")),
        panel("Windows that flip", line_chart(moved, "experts", "% of old windows, each mount")),
    )
    if not body:
        return ""
    law = mapping(mapping(curves.get("plain")).get("law"))
    run = ""
    ends = [x for x in map(number, sequence(law.get("b_range"))) if x is not None]
    if number(law.get("b")) is not None and len(ends) == 2 and ends[1] - ends[0] < 1:
        run = (
            "With plain residuals the odds of an error grow as (experts - 1) to the power of "
            f"{decimal(law['b'])} (95 % between {decimal(ends[0])} and {decimal(ends[1])})."
        )
    return figure(
        body + legend([(n, i) for i, n in enumerate(curves)]),
        f"Means over {count(len(mapping(found.get('orders'))))} orders in which the domains came. "
        "Left, the share of windows of all domains so far that go to another expert than their "
        "own; right, of the windows of older domains those that go elsewhere after a mount.",
        "errors grow with the number of experts faster than the number of domains that are alike, "
        "or flips do not fall as the bank grows.",
        run,
    )


def timeline(found: dict) -> str:
    """The bank's history: every mount of one order."""
    stages = [mapping(x) for x in sequence(mapping(found.get("timeline")).get(_chosen(found)))]
    if not stages:
        return ""
    moved = [number(s.get("flips")) or 0.0 for s in stages]
    most = max(moved) or 1.0
    rebuilt = any(number(s.get("tra")) is not None for s in stages)
    rows = [
        [
            f"{i}. {label(s.get('expert'))}",
            percent(s.get("accuracy"), 2),
            percent(s.get("flips"), 2) if i > 1 else DASH,
            percent(s.get("lost"), 2) if i > 1 else DASH,
            decimal(s.get("nats"), 3),
            decimal(s.get("own_nats"), 3),
            *([percent(s.get("tra")), percent(s.get("own_tra"))] if rebuilt else []),
        ]
        for i, s in enumerate(stages, 1)
    ]
    head = ["mount", "routed right", "flips", "away from own", "nats/token", "by the own"]
    head += ["TRA", "by the own"] if rebuilt else []
    worst = max(range(len(stages)), key=moved.__getitem__)
    return figure(
        plain_table(head, rows, bars=[m / most for m in moved]),
        f"The bank's history, order {label(found.get('main_order'))}, ranked by "
        f"{_chosen(found)}: after each mount how many windows of all domains so far are routed "
        "right, how many of the older ones changed their expert (bar) and lost their own, and what "
        "the winner makes of all domains so far beside what the experts of their labels do.",
        "a mount that moves old windows does so without any of them being lost or won.",
        f"The mount of {label(stages[worst].get('expert'))} moved most: "
        f"{percent(moved[worst], 2)} of the windows of older domains."
        if moved[worst]
        else "No mount moved a window.",
    )


def matrix(found: dict) -> str:
    """R[i, j]: windows of domain j routed right after mount i."""
    lines = [sequence(x) for x in sequence(mapping(found.get("matrix")).get(_chosen(found)))]
    order = sequence(mapping(found.get("orders")).get(found.get("main_order")))
    names = [str(n) for n in order][: len(lines)]
    if not names:
        return ""
    head = "".join(f'<th scope="col">{breakable(n)}</th>' for n in names)
    rows = [f'<thead><tr><th scope="col">after \\ text</th>{head}</tr></thead><tbody>']
    for i in thin(len(lines), MOST_ROWS):
        cells = []
        for j, value in enumerate(lines[i][: len(names)]):
            share = number(value)
            if share is None:
                cells.append("<td></td>")
                continue
            step = round(min(1.0, (1 - share) / WORST) * (STEPS - 1))
            kind = f"h{step}" + " own" * (i == j)
            cells.append(f'<td class="{kind}">{percent(share, 0)}</td>')
        rows.append(f'<tr><th scope="row">{i + 1}. {breakable(names[i])}</th>{"".join(cells)}</tr>')
    tight = " tight" if len(names) > 7 else ""
    table = f'<table class="heat{tight}">{"".join(rows)}</tbody></table>'
    return figure(
        f'<div class="scroll">{table}</div>'
        + ramp("all right", f"{percent(WORST, 0)} wrong or more", "(outlined: as it came)"),
        "Each row is the bank after a mount, each column a domain, in the order in which they came "
        f"({label(found.get('main_order'))}, ranked by {_chosen(found)}): the share of the "
        "domain's windows that go to its own expert. What is forgotten is what fades down a "
        "column.",
        "columns fade from top to bottom.",
    )


def pairs(found: dict) -> str:
    """Who takes windows from whom."""
    by_rule = mapping(found.get("pairs"))
    rule = "plain" if sequence(by_rule.get("plain")) else _chosen(found)
    shown = [mapping(x) for x in sequence(by_rule.get(rule))]
    if not shown:
        return ""
    shares = [number(p.get("share")) or 0.0 for p in shown]
    most = max(shares) or 1.0
    return figure(
        plain_table(
            ["text of", "taken by", "share of its windows", "lead, median", "90th percentile"],
            [
                [
                    label(p.get("domain")),
                    label(p.get("expert")),
                    percent(p.get("share"), 2),
                    decimal(p.get("lead"), 3),
                    decimal(p.get("lead_high"), 3),
                ]
                for p in shown
            ],
            names=2,
            bars=[s / most for s in shares],
        ),
        f"Flips by pair, ranked by {rule}: a new expert takes windows of an older domain by a lead "
        "over the expert that had them, in nats/token; means over the orders in which it does.",
        "the pairs are far domains, or leads are as large as those on an expert's own text.",
    )


def methods(found: dict) -> str:
    """The rivals beside the frozen experts."""
    rows = {str(n): mapping(of) for n, of in mapping(found.get("methods")).items()}
    if not rows:
        return ""

    def line(name: str, of: dict) -> list[str]:
        rebuilt = mapping(of.get("tra")) or of
        routed = of if "flip_rate" in of else {}
        return [
            name,
            percent(rebuilt.get("acc")),
            _points(rebuilt.get("bwt")),
            percent(routed.get("acc")) if routed else DASH,
            _points(routed.get("bwt")) if routed else DASH,
            percent(routed.get("flip_rate"), 2) if routed else DASH,
        ]

    head = ["method", "TRA at the end", "BWT, points", "routed right", "BWT, points", "flips"]
    return figure(
        plain_table(head, [line(n, of) for n, of in rows.items()]),
        "Models of one expert's size that learn the domains in the order "
        f"{label(found.get('methods_order'))} with as many tokens (sequential, replay, ewc, joint) "
        "and what chooses among the frozen experts (gates, Gaussians, n-grams, residuals). TRA is "
        "that of whoever reads a window; BWT its change since the domain came.",
        "one compressor in sequence keeps old domains as well as the bank does.",
    )


def _chosen(found: dict) -> str:
    return str(found.get("chosen"))


def _hundred(value: object, whole: float = 0.0) -> float | None:
    share = number(value)
    return None if share is None else 100 * (whole - share if whole else share)


def _points(value: object) -> str:
    share = number(value)
    return DASH if share is None else escape(f"{100 * share:+.2f}")
