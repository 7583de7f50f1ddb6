"""The section on text that no expert knows: detection rates and the residuals behind them.

Like `sections`: takes the report and returns HTML, or "" when it has no data.
"""

from cr_jax.config.names import RANDOM
from cr_jax.report.charts import quantile, ridge_chart
from cr_jax.report.layout import domain_order, figure, panel, panels, rule_of, slots
from cr_jax.report.tables import plain_table
from cr_jax.report.text import THIN, escape, mapping, number, percent, score, sequence


def hardest_unknown(data: dict) -> tuple[str, float] | None:
    """(name, AUROC) of the unknown text with the lowest AUROC, random tokens left out; None where
    the run had no other."""
    aurocs = [
        (auroc, domain)
        for domain, row in mapping(data.get("per_domain")).items()
        if domain != RANDOM and (auroc := number(mapping(row).get("auroc"))) is not None
    ]
    return (min(aurocs)[1], min(aurocs)[0]) if aurocs else None


def unknown(report: dict) -> str:
    """Out-of-distribution detection: AUROC table and the histograms of residuals."""
    data = mapping(report.get("ood"))
    out = []
    if data:
        rows, alpha = mapping(data.get("per_domain")), percent(data.get("alpha"), 0)
        body = [
            [domain, score(row.get("auroc")), percent(row.get("fpr95")), percent(rejected)]
            for domain, row in ((d, mapping(r)) for d, r in rows.items())
            for rejected in [row.get("rejected_at_alpha")]
        ]
        bars = [number(mapping(r).get("rejected_at_alpha")) or 0.0 for r in rows.values()]
        head = ["text no expert knows", "AUROC", f"FPR at 95{THIN}% TPR", "called unknown"]
        hardest = hardest_unknown(data)
        run = (
            (f"The hardest is {escape(hardest[0])}, AUROC {score(hardest[1])}. " if hardest else "")
            + f"AUROC {score(data.get('auroc_unseen_domain'))} in the mean of unseen domains and "
            f"{score(data.get('auroc_random'))} for random tokens; with the threshold set for "
            f"{alpha} false alarms, {percent(data.get('false_alarm'))} of known windows were "
            "called unknown."
        )
        out.append(
            figure(
                plain_table(head, body, bars=bars) if body else "",
                "AUROC is the chance that a foreign window has a larger best residual than a known "
                "one (0.5 is a coin); the bar is the share of foreign windows called unknown.",
                "the unseen domain's AUROC is near 0.5, or if no more of it is called unknown than "
                "of the known domains.",
                run,
            )
        )
    ridges = residuals(report)
    if ridges:
        alpha = number(data.get("alpha")) or 0.05
        out.append(
            figure(
                panels(*ridges),
                "One panel per expert, one row per kind of text, residual "
                f"({rule_of(report).cost}) from left (low) to right (high) on a square-root axis, "
                "every row scaled to its own peak; the dashed "
                f"line leaves {percent(alpha, 0)} of the expert's own windows to its right, and "
                "the column at the right gives each row's share beyond it.",
                "the rows of other texts lie over the expert's own row, so no line parts them.",
            )
        )
    return "".join(out)


def residuals(report: dict) -> list[str]:
    """One ridge panel per expert, on a common axis."""
    order, place = domain_order(report), slots(report)
    alpha = number(mapping(report.get("ood")).get("alpha")) or 0.05
    by_expert: dict[str, list] = {}
    for expert, row in mapping(report.get("residuals")).items():
        row = mapping(row)
        for domain in sorted(row, key=lambda d: (d != expert, order.index(d))):
            edges = [number(x) for x in sequence(mapping(row[domain]).get("edges"))]
            counts = [number(x) or 0.0 for x in sequence(mapping(row[domain]).get("counts"))]
            if None not in edges and len(edges) == len(counts) + 1 > 1 and max(edges) > 0:
                by_expert.setdefault(expert, []).append((domain, place[domain], edges, counts))
    tops = [
        max([e for e, c in zip(edges[1:], counts, strict=True) if c], default=0.0)
        for rows in by_expert.values()
        for _, _, edges, counts in rows
    ]
    high = max(tops, default=0.0) or 1.0
    out = []
    for expert, rows in by_expert.items():
        own = [quantile(edges, counts, 1 - alpha) for d, _, edges, counts in rows if d == expert]
        chart = ridge_chart(rows, high, own[0] if own else None, expert)
        out.append(panel(f"expert {expert}", chart))
    return out
