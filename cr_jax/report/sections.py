"""The sections of the page: each takes the report and returns HTML, or "" when it has no data.

Every figure carries a sentence on how to read it and one on what would show its claim false.
Sentences that begin "In this run" are computed from the numbers beside them.
"""

from cr_jax.report.charts import MOST_POINTS, Series, legend, line_chart, scatter, thin
from cr_jax.report.drawing import compressor, router
from cr_jax.report.examples import samples
from cr_jax.report.layout import domain_order, figure, panel, panels, rule_of, slots
from cr_jax.report.tables import (
    confusion_table,
    fingerprint_details,
    fingerprint_table,
    plain_table,
)
from cr_jax.report.text import THIN, count, label, mapping, number, percent, sequence


def architecture(report: dict) -> str:
    """The drawing, with the numbers of the run."""
    summary = mapping(report.get("summary"))
    fingerprint = mapping(report.get("fingerprint"))
    body = panels(
        panel("One compressor per domain", compressor(summary, rule_of(report).formula))
        if summary
        else "",
        panel(
            "Routing: the lowest residual gets it",
            router(fingerprint, summary, rule_of(report).paper),
        ),
    )
    if not body:
        return ""
    window, latents, width, words = (
        number(summary.get(key)) for key in ("window", "latents", "d_latent", "vocab_size")
    )
    run = ""
    if None not in (window, latents, width, words) and words > 1 and latents > 0:
        bits = max(1, int(words - 1).bit_length())
        run = (
            f"{count(window)} positions become {count(latents)} latents, "
            f"{window / latents:.4g} to 1. That counts positions, not bits: "
            f"{count(latents * width)} real numbers stand for {count(window)} tokens of at most "
            f"{bits} bits."
        )
    return figure(
        body,
        "Left, the only path from text to its copy leads through the latents; right, the "
        "bars are this run's mean residuals over held-out windows of that text (short is good).",
        "the decoder's output still depends on the input when the latents are held fixed, or if "
        "the right-hand bars are no longer than the winning one.",
        run,
    )


def fingerprint(report: dict) -> str:
    """The paper's table: every expert on every domain (Paper, results; section fingerprint)."""
    table = {e: r for e, r in mapping(report.get("fingerprint")).items() if mapping(r)}
    domains = [d for d in domain_order(report) if any(d in row for row in table.values())]
    if not domains:
        return ""

    def nll(expert: str, domain: str) -> float | None:
        return number(mapping(table[expert].get(domain)).get("nll"))

    own = [e for e in table if nll(e, e) is not None]
    rows = [
        all(nll(e, e) < r for d in domains if d != e and (r := nll(e, d)) is not None) for e in own
    ]
    columns = [
        all(nll(e, e) < r for o in table if o != e and (r := nll(o, e)) is not None) for e in own
    ]
    rule = rule_of(report)
    other = "" if rule.paper else f" Routing, below, compares another number: {rule.ranking_score}."
    run = (
        f"{sum(rows)} of {len(own)} experts have their lowest nll at home, and on "
        f"{sum(columns)} of {len(own)} domains the own expert is the best one."
        if own
        else ""
    )
    return figure(
        fingerprint_table(table, domains) + fingerprint_details(table, rule),
        "Each cell is one expert (row) on one kind of held-out text (column): the share of tokens "
        "rebuilt exactly (TRA) and the nll, nats/token to rebuild the text with all tokens seen; "
        "the outlined cell is its own domain, and the last row is what always guessing the "
        f"commonest token would reach.{other}",
        "an outlined cell is not the strongest of its row and its column, or if its TRA is close "
        "to the majority row.",
        run,
    )


def routing(report: dict) -> str:
    """Confusion matrix and accuracies of routing by the smallest residual."""
    data = mapping(report.get("routing"))
    confusion = {t: r for t, r in mapping(data.get("confusion")).items() if mapping(r)}
    if not data:
        return ""
    parts = [f"{percent(data.get('accuracy'))} of {count(data.get('windows'))} windows went to the"]
    parts.append(f"expert of their own domain (chance {percent(data.get('chance'))}).")
    if number(data.get("accuracy_rebuild")) is not None:
        parts.append(
            "Routing by the least nats/token to rebuild a window, the paper's rule, gives "
            f"{percent(data['accuracy_rebuild'])}."
        )
    if number(data.get("accuracy_tra")) is not None:
        parts.append(f"Routing by the highest TRA instead gives {percent(data['accuracy_tra'])}.")
    wrong = [
        (n, true, routed)
        for true, row in confusion.items()
        for routed, value in row.items()
        if routed != true and (n := number(value))
    ]
    if wrong:
        n, true, routed = max(wrong)
        parts.append(f"The commonest mistake: {true} sent to {routed}, {count(n)} windows.")
    accuracy = mapping(data.get("per_domain"))
    if confusion:
        body = confusion_table(confusion, accuracy)
    else:
        rows = [[d, percent(a)] for d, a in accuracy.items()]
        body = plain_table(["text", "correct"], rows) if rows else ""
    rule = f" Rule: {label(data['rule'])}." if data.get("rule") else ""
    return figure(
        body,
        "Each row is the true domain of the windows, each column the expert with the lowest "
        f"residual on them; a perfect router fills only the outlined diagonal.{rule}",
        "accuracy is near chance, or if it stays high when experts are copies of one another or "
        "when the labels are shuffled.",
        " ".join(parts),
    )


def windows(report: dict) -> str:
    """Example windows, original and reconstruction side by side."""
    body = samples(sequence(report.get("examples")))
    if not body:
        return ""
    return figure(
        body,
        "The right side was rebuilt from the latents alone; the deeper the tint, the less sure "
        "the expert was, and a boxed, underlined token differs from the original.",
        "experts rebuild foreign text as well as their own (then rebuilding says nothing of the "
        "domain), or if wrong tokens come without any tint (then the expert does not know what it "
        "lost).",
    )


def geometry(report: dict) -> str:
    """The latent map and the explained variance."""
    data, place = mapping(report.get("geometry")), slots(report)
    labels = [str(label) for label in sequence(data.get("labels"))]
    points = sequence(data.get("points"))
    keep = thin(min(len(points), len(labels)), MOST_POINTS)
    chart = scatter([points[i] for i in keep], [labels[i] for i in keep], place)
    some = (
        f"{count(len(keep))} of {count(len(points))}"
        if len(keep) < len(points)
        else count(len(keep))
    )
    method = label(data.get("method") or "a projection")
    title = f"Latents of {some} held-out windows, {method}"
    key = legend([(d, place[d]) for d in place if d in labels], marker=True)
    held = mapping(data.get("components_95"))
    series = [
        Series(str(e), place.get(e, 0), list(range(1, len(ys) + 1)), ys, number(held.get(e)))
        for e, shares in mapping(data.get("explained_variance")).items()
        if len(ys := sequence(shares)) > 1
    ]
    variance = line_chart(series, "components", "explained variance", share=True, rule=0.95)
    total = number(data.get("d_latent_total"))
    of = f" of {count(total)}" if total else ""
    names = [(f"{s.name}: {count(held.get(s.name))}{of} hold 95{THIN}%", s.slot) for s in series]
    body = panels(
        panel(title, chart + key if chart else ""),
        panel("Principal components of z", variance + legend(names) if variance else ""),
    )
    probe = number(data.get("linear_probe_accuracy"))
    run = (
        f"A linear probe on z names the domain of {percent(probe)} of windows."
        if probe is not None
        else ""
    )
    if not body and not run:
        return ""
    return figure(
        body,
        f"Left, each mark is one window's latents, placed by {method}, which keeps neighbours "
        "together but not distances; right, how many directions of z hold how much of its variance "
        f"(dot: 95{THIN}%).",
        "the marks of two domains mix and the linear probe is near chance (a map alone proves "
        "little, it can draw islands out of noise), or if the curves follow the diagonal.",
        run,
    )


def training(report: dict) -> str:
    """Loss and TRA against the step."""
    place = slots(report)
    home = [mapping(mapping(row).get(e)) for e, row in mapping(report.get("fingerprint")).items()]
    rates = [rate for cell in home if (rate := number(cell.get("majority_tra"))) is not None]
    base, charts = max(rates, default=None), []
    for at, key, name in (
        ("step", "nll", "loss, nats/token"),
        ("step", "tra", "TRA"),
        ("valid_step", "valid_nll", "loss on valid, nats/token"),
        ("valid_step", "valid_tra", "TRA on valid"),
    ):
        series = [
            Series(str(e), place.get(e, 0), sequence(curve.get(at)), sequence(curve.get(key)))
            for e, curve in ((e, mapping(c)) for e, c in mapping(report.get("curves")).items())
        ]
        share = key.endswith("tra")
        charts.append(line_chart(series, "step", name, share=share, rule=base if share else None))
    body = panels(*(panel("", chart).replace("<h4></h4>", "") for chart in charts if chart))
    if not body:
        return ""
    names = [(str(e), place.get(e, 0)) for e in mapping(report.get("curves"))]
    return figure(
        body + legend(names),
        "Loss and TRA of each expert on its own domain against the optimiser's step"
        + (
            ", the dashed level is the highest majority-token rate of these domains."
            if rates
            else "."
        ),
        "TRA stays on the level of the majority token, which means that the latents carry nothing.",
    )
