"""Tables of a growing bank: what routing loses, which rule loses least, rivals, its scale."""

from benchmarks.tables.registry import decimal, markdown, percent, read, table

FILE = "continual.json"
METHODS = {
    "sequential": "one compressor, in sequence",
    "ewc": "the same with EWC (online, diagonal Fisher)",
    "replay": "the same with replay",
    "joint": "one compressor on all text at once (bound)",
    "gate_new": "gate, new text alone",
    "gate_replay": "gate with replay",
    "gate_all": "gate, text of all so far",
    "gaussian": "Gaussians, one covariance",
    "mixture": "five Gaussians per domain",
    "ngrams": "linear n-grams, refitted on text of all so far",
}
BANKS = {
    "twenty": "20, 25 M, 500 steps",
    "twenty_weight1": "20, predictions weigh 1",
    "twenty_long": "20, 1,000 steps",
    "sixty_four": "64 narrow ones",
}
RULES = {
    "plain": "lowest code length (the paper's rule for any residual)",
    "typicality": "typicality penalty",
    "offsets": "offsets from stored numbers",
    "untypical": "only windows that the winner finds untypical",
    "lead": "a lead that 99 % of the new text has",
    "wide_lead": "a lead that 95 % of it has",
    "lead_by_winner": "such a lead for each old winner",
    "typicality_lead": "typicality penalty, lead of 99 %",
    "typicality_wide_lead": "typicality penalty, lead of 95 %",
    "offsets_text": "offsets, old validation text kept",
    "lead_text": "lead, old validation text kept",
}


def points(share: float | None, digits: int = 2) -> str | None:
    """-0.0045 -> -0.45"""
    return None if share is None else f"{100 * share:+.{digits}f}"


@table("continual-banks")
def banks() -> str:
    """Plain and chosen rules of every stored bank."""
    stored = read(FILE)["stored"]
    rows = []
    for name, said in BANKS.items():
        if name not in stored:
            continue
        of = stored[name]
        for rule in dict.fromkeys(("plain", of["chosen"])):
            row = of["rules"][rule]
            worst = min(x["bwt"] for x in row["by_order"].values())
            rows.append(
                [
                    said,
                    rule if rule == "plain" else f"{rule}, chosen on valid",
                    percent(row["acc"], 2),
                    points(row["bwt"]),
                    points(worst),
                    percent(row["flip_rate"], 3),
                    percent(row["lost_rate"], 3),
                ]
            )
    return markdown(
        [
            "experts",
            "ranked by",
            "routed right at the end",
            "BWT, points",
            "worst order",
            "flips per mount",
            "away from own",
        ],
        rows,
    )


@table("continual-rules")
def rules() -> str:
    """The best setting of each family, twenty and 64 experts."""
    stored = read(FILE)["stored"]
    some = [stored[n] for n in ("twenty", "sixty_four")]
    rows = []
    for family, said in RULES.items():
        names = [of["chosen_by_family"][family] for of in some]
        each = [of["rules"][n] for of, n in zip(some, names, strict=True)]
        settings = " / ".join(f"{row['setting']:g}" for row in each)
        rows.append(
            [
                said,
                settings if family not in ("plain", "lead_text", "offsets_text") else None,
                *(
                    f"{percent(r['acc'])}, {points(r['bwt'])}, {percent(r['flip_rate'], 3)}"
                    for r in each
                ),
                " / ".join(f"{r['stored_bytes']:,.0f}" for r in each)
                + (" and text" if each[0]["keeps_text"] else ""),
            ]
        )
    head = "routed right, BWT, flips"
    return markdown(
        ["rule", "setting", f"20 experts: {head}", f"64: {head}", "bytes kept of a domain"], rows
    )


@table("continual-growth")
def growth() -> str:
    """From two experts to 64."""
    of, shown = read(FILE)["stored"]["sixty_four"], (2, 4, 8, 16, 32, 48, 64)
    rows = []
    for rule, curve in of["growth"].items():
        at = [curve["experts"].index(k) for k in shown]
        rows.append([f"right, {rule}", *(percent(curve["accuracy"][i]) for i in at)])
        rows.append([f"flips, {rule}", *(percent(curve["flips"][i], 3) for i in at)])
    return markdown(["narrow domains", *map(str, shown)], rows)


@table("continual-detection")
def detection() -> str:
    """New documents until an alarm."""
    found = read(FILE)["detection"]
    rows = [
        [name, f"{row['mean']:.1f}", str(row["most"])] for name, row in found["by_domain"].items()
    ]
    rows.append(["mean", f"{found['documents']:.1f}", ""])
    return markdown(["new domain", "new documents until the alarm", "at most"], rows)


@table("continual-pairs")
def pairs() -> str:
    """Who takes from whom, by the lowest code length."""
    found = read(FILE)["stored"]
    rows = []
    for name in ("twenty", "sixty_four"):
        for p in found[name]["pairs"]["plain"][:3]:
            rows.append(
                [
                    BANKS[name],
                    p["domain"],
                    p["expert"],
                    percent(p["share"]),
                    decimal(p["lead"]),
                    decimal(p["lead_high"]),
                ]
            )
    return markdown(
        ["experts", "text of", "taken by", "of its windows", "lead, median", "90th percentile"],
        rows,
    )


@table("continual-rivals")
def rivals() -> str:
    """Small models that learn the domains in one order."""
    runs = read(FILE)["runs"]
    rows = []
    for of in sorted(runs.values(), key=lambda run: -run["domains"]):
        found = of["methods"]
        said = {n: f"frozen {n.replace(', ', ', by ')}" for n in found} | METHODS
        rows += [_rival(said[n], of["domains"], found[n]) for n in (*METHODS, *found) if n in found]
    unique = list(dict.fromkeys(map(tuple, rows)))
    return markdown(
        [
            "method",
            "domains",
            "TRA at the end",
            "BWT of TRA, points",
            "routed right",
            "BWT of routing",
            "flips per mount",
            "bytes kept of a domain",
        ],
        unique,
    )


def _rival(said: str, domains: int, of: dict) -> list[object]:
    routing, kept = of.get("routing") or {}, of.get("stored_bytes")
    everything = of["bwt"] is None or kept is None
    return [
        said,
        domains,
        percent(of["acc"]),
        points(of["bwt_after_routing"]),
        percent(routing.get("acc")),
        points(routing.get("bwt")),
        percent(of["flip_rate"], 2),
        "all text" if everything else f"{kept:,.0f}",
    ]


@table("continual-scale")
def scale() -> str:
    """A thousand bigram models, and what ten thousand would cost."""
    (of,) = read(FILE)["scale"].values()
    rows = [(k, of["sizes"][k]) for k in sorted(of["sizes"], key=int)]
    rows.append((f"{of['planned']['experts']} (planned)", of["planned"]))
    plain = of["rules"]["plain"]
    reached = dict(zip(map(str, plain["experts"]), plain["accuracy"], strict=True))
    return markdown(
        ["experts", "table in memory", "counts on disk", "table made in", "candidates", "right"],
        [
            [
                k,
                f"{row['table_bytes'] / 1e6:,.0f} MB",
                f"{row['stored_bytes'] / 1e6:,.0f} MB",
                f"{row['table_seconds']:.1f} s",
                f"{1000 * row['candidates_seconds_per_1000_tokens']:,.1f} ms per 1,000 tokens",
                percent(reached.get(k)),
            ]
            for k, row in rows
        ],
    )
