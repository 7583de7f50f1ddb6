"""Tables: coloured matrices, and plain ones with an optional bar column."""

import math

from cr_jax.report.style import STEPS
from cr_jax.report.text import DASH, breakable, count, decimal, escape, mapping, number, percent
from cr_jax.scoring.wording import Wording


def log_steps(values: list[float]):
    """A function value -> colour step 0..STEPS-1, even in log(value) over the given range."""
    floor = 1e-3
    logs = [math.log(max(v, floor)) for v in values] or [0.0]
    low, span = min(logs), max(logs) - min(logs) or 1.0
    return lambda v: round((math.log(max(v, floor)) - low) / span * (STEPS - 1))


def _tight(columns: list[str]) -> str:
    """The class that narrows the cells of a table with many columns."""
    return " tight" if len(columns) > 7 else ""


def ramp(low: str, high: str, note: str) -> str:
    """The colour scale with its two ends named."""
    strip = "".join(f'<i class="h{i}"></i>' for i in range(STEPS))
    return (
        f'<div class="ramp"><span>{escape(low)}</span><span class="strip">{strip}</span>'
        f"<span>{escape(high)}</span><span>{escape(note)}</span></div>"
    )


def fingerprint_table(fingerprint: dict, domains: list[str]) -> str:
    """Experts x domains: TRA and NLL, coloured by NLL (log scale), own domain outlined."""
    values = [
        nll
        for row in fingerprint.values()
        for cell in mapping(row).values()
        if (nll := number(mapping(cell).get("nll"))) is not None
    ]
    step, tight = log_steps(values), _tight(domains)
    unit = "" if tight else " nats"
    head = "".join(f'<th scope="col">{breakable(d)}</th>' for d in domains)
    rows = [f'<thead><tr><th scope="col">expert \\ text</th>{head}</tr></thead><tbody>']
    for expert, row in fingerprint.items():
        cells = []
        for domain in domains:
            cell = mapping(mapping(row).get(domain))
            nll = number(cell.get("nll"))
            kind = ([] if nll is None else [f"h{step(nll)}"]) + ["own"] * (domain == expert)
            cells.append(
                f'<td class="{" ".join(kind)}">{percent(cell.get("tra"))}'
                f"<small>{decimal(nll)}{unit}</small></td>"
            )
        rows.append(f'<tr><th scope="row">{breakable(expert)}</th>{"".join(cells)}</tr>')
    base = []
    for domain in domains:
        rates = [
            rate
            for row in fingerprint.values()
            if (rate := number(mapping(mapping(row).get(domain)).get("majority_tra"))) is not None
        ]
        # Every expert reads the same windows, so the rates agree; the strictest is kept.
        base.append(f"<td>{percent(max(rates) if rates else None)}</td>")
    rows.append(f'<tr class="base"><th scope="row">majority token</th>{"".join(base)}</tr></tbody>')
    low, high = (min(values), max(values)) if values else (None, None)
    scale = ramp(
        f"nll {decimal(low)} nats/token",
        f"{decimal(high)}",
        "(all tokens seen; log scale; high is worse)",
    )
    return f'<div class="scroll"><table class="heat{tight}">{"".join(rows)}</table></div>{scale}'


def fingerprint_details(fingerprint: dict, rule: Wording) -> str:
    """Every number of the fingerprint, folded away; the residual too where it is not the nll."""
    body = []
    beside = [] if rule.paper else ["residual"]
    for expert, row in fingerprint.items():
        for domain, cell in mapping(row).items():
            cell = mapping(cell)
            body.append(
                [
                    expert,
                    domain,
                    percent(cell.get("tra"), 2),
                    percent(cell.get("majority_tra"), 2),
                    percent(cell.get("window_exact")),
                    decimal(cell.get("nll"), 4),
                    *(decimal(cell.get(key), 4) for key in beside),
                    decimal(cell.get("bits_per_byte"), 3),
                    count(cell.get("windows")),
                    count(cell.get("tokens")),
                ]
            )
    head = ["expert", "text", "TRA", "majority", "exact windows", "nll", *beside, "bits/byte"]
    table = plain_table([*head, "windows", "tokens"], body, names=2)
    units = "nll: nats/token, all tokens seen" + "".join(
        f"; residual: {escape(rule.cost)}" for _ in beside
    )
    return (
        f"<details><summary>All {len(body)} rows, with bits/byte</summary>"
        f'<p class="note">{units}</p>{table}</details>'
    )


def confusion_table(confusion: dict, accuracy: dict) -> str:
    """True domain x routed expert: counts, coloured by their share of the row."""
    routed: list[str] = list(confusion)
    for row in confusion.values():
        routed += [name for name in mapping(row) if name not in routed]
    head = "".join(f'<th scope="col">→ {breakable(r)}</th>' for r in routed)
    tail = '<th scope="col">correct</th>' if accuracy else ""
    rows = [f'<thead><tr><th scope="col">text \\ routed to</th>{head}{tail}</tr></thead><tbody>']
    for true, row in confusion.items():
        counts = {name: number(mapping(row).get(name)) or 0.0 for name in routed}
        total = sum(counts.values())
        cells = []
        for name, n in counts.items():
            share = n / total if total else 0.0
            # The strong end of the scale is "low"; here it stands for the full share.
            kind = f"h{round((1 - share) * (STEPS - 1))}" + " own" * (name == true)
            cells.append(f'<td class="{kind}">{count(n)}<small>{percent(share)}</small></td>')
        last = f"<td>{percent(accuracy.get(true))}</td>" if accuracy else ""
        rows.append(f'<tr><th scope="row">{breakable(true)}</th>{"".join(cells)}{last}</tr>')
    rows.append("</tbody>")
    return f'<div class="scroll"><table class="heat{_tight(routed)}">{"".join(rows)}</table></div>'


def plain_table(
    head: list[str], body: list[list[str]], names: int = 1, bars: list[float] | None = None
) -> str:
    """Rows of ready texts; all but the first `names` columns align right.

    `bars` gives one fraction 0..1 per row, drawn as a bar in a last column.
    """
    kinds = [""] * names + [' class="n"'] * (len(head) - names)
    top = "".join(f"<th{k}>{escape(h)}</th>" for h, k in zip(head, kinds, strict=True))
    rows = []
    for i, row in enumerate(body):
        cells = "".join(f"<td{k}>{escape(c)}</td>" for c, k in zip(row, kinds, strict=True))
        if bars is not None:
            width = 100 * min(1.0, max(0.0, bars[i]))
            cells += f'<td class="meter"><span style="width:{width:.1f}%"></span></td>'
        rows.append(f"<tr>{cells}</tr>")
    extra = '<th class="meter"></th>' if bars is not None else ""
    wide = " wide" if bars is not None else ""
    return (
        f'<div class="scroll"><table class="plain{wide}"><thead><tr>{top}{extra}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def value_table(rows: list[tuple[str, object]]) -> str:
    """Name and value, those that are absent left out."""
    body = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in rows
        if value not in (None, "", DASH)
    )
    return f'<div class="scroll"><table class="plain values">{body}</table></div>' if body else ""
