"""Tables of a bank of twenty with latent queries: routing, and what tells unknown text."""

from benchmarks.tables.registry import decimal, markdown, percent, read, table

WITNESSES = {
    "sum_vector": "**mean of residual, vector and share** (chosen on valid)",
    "sum": "mean of residual, clipped pairs and share",
    "largest": "largest of residual, clipped pairs and share",
    "sum_novel": "mean of residual, vector, share and new trigrams",
    "sum_surprise": "mean of residual, vector, share and surprise",
    "largest_surprise": "largest of residual, vector, share and surprise",
    "surprise": "surprise",
    "vector": "vector: residual and all clipped pairs, one-sided Gaussian",
    "residual_nats": "residual, nats above own median",
    "residual": "residual, in units of own spread",
    "pair_clipped": "pair, differences held within 2 nats",
    "fisher": "Fisher's sum of their p-values",
    "least_p": "least of their p-values",
    "novel": "new trigrams",
    "pair_share": "share of tokens lost by more than 1 nat",
    "pair_regret": "pair regret, not clipped",
    "repetition": "repetition",
}


@table("query-bank-routing")
def routing() -> str:
    """Windows of 512 tokens that go home, by code length and by rebuilding."""
    query, fold = read("routing_query.json")["routing"], read("routing_half.json")["typicality"]
    plain = read("routing.json")
    return markdown(
        ["twenty compressors", "code length", "rebuilding: residual", "rebuilding: TRA"],
        [
            [
                f"latent queries, {query['windows']:,} windows",
                percent(query["accuracy"], 2),
                percent(query["accuracy_rebuild"], 2),
                percent(query["accuracy_tra"], 2),
            ],
            ["`fold`, as many steps", percent(fold["test"], 2), None, None],
            [
                "`fold`, twice as many steps",
                percent(plain["accuracy"]["512"], 2),
                None,
                percent(plain["accuracy_tra"]["512"], 2),
            ],
        ],
    )


@table("query-bank-witnesses")
def witnesses() -> str:
    """What each witness says of the twenty domains that are left out in turn."""
    found = read("unknown.json")["witnesses"]
    return markdown(
        [
            "witness",
            "AUROC",
            "FPR at 95 % TPR",
            "refused at 1 % wanted",
            "false alarms",
            "easy inputs let in",
        ],
        [
            [
                name,
                decimal(found[key]["auroc"]),
                percent(found[key]["fpr95"]),
                percent(found[key]["reject_at_1pct"]),
                percent(found[key]["false_alarm_at_1pct"]),
                percent(found[key]["attack_accept"]),
            ]
            for key, name in WITNESSES.items()
            if key in found
        ],
    )


@table("query-bank-lengths")
def lengths() -> str:
    """The chosen witness on the first tokens of a window alone."""
    found = read("unknown.json")
    best = found["witnesses"][found["default"]]
    rows = {**{int(n): row for n, row in best["by_length"].items()}, 512: best}
    return markdown(
        ["first tokens", "AUROC", "FPR at 95 % TPR", "refused at 1 % wanted"],
        [
            [n, decimal(r["auroc"]), percent(r["fpr95"]), percent(r["reject_at_1pct"])]
            for n, r in sorted(rows.items())
        ],
    )


@table("strange-domains")
def strange() -> str:
    """Whole documents called unknown by the bank that ships and by one that was trained longer."""
    ships, longer = read("pretrained_strange.json"), read("pretrained_strange_query.json")
    rows = [
        [kind, name, row["documents"], *(_called(bank[kind][name]) for bank in (ships, longer))]
        for kind in ("known", "unknown")
        for name, row in sorted(ships[kind].items(), key=lambda x: (_share(x[1]), x[0]))
        if kind == "known" or _share(row) < 1 or _share(longer[kind][name]) < 1
    ]
    means = [
        [f"mean, {kind}", "", None, percent(ships[key]), percent(longer[key])]
        for kind, key in (("known", "false_alarms"), ("unknown", "refused"))
    ]
    heads = ["", "domain", "documents", "ships", "latent queries, more text and steps"]
    return markdown(heads, [*rows, *means])


def _share(row: dict) -> float:
    return row["called_unknown"] / row["documents"]


def _called(row: dict) -> str:
    return percent(_share(row))


@table("unknown-ceiling")
def ceiling() -> str:
    """The chosen witness beside baselines that saw all known domains, fitted anew for each."""
    found = read("unknown.json")
    rows = {"experts, chosen witness (above)": found["witnesses"][found["default"]]}
    names = {"ngram": "linear token 1+2-grams", "embedding": "Gaussians on a frozen embedding"}
    rules = {"max_score": "largest score", "calibrated": "calibrated score"}
    rules["posterior"] = "largest posterior"
    for kind, row in read("unknown_ceiling.json")["ceiling"].items():
        baseline, rule = kind.split(", ")
        rows[f"{names[baseline]}, {rules[rule]}"] = row
    return markdown(
        ["who tells", "AUROC", "FPR at 95 % TPR", "refused at 1 % wanted", "false alarms"],
        [
            [
                name,
                decimal(row["auroc"]),
                percent(row["fpr95"]),
                percent(row["reject_at_1pct"]),
                percent(row["false_alarm_at_1pct"]),
            ]
            for name, row in rows.items()
        ],
    )
