"""Tables of eight experts: ways to train and to score them; size of the experts."""

from benchmarks.tables.registry import decimal, markdown, percent, read, table

RULES = {
    "TRA": "share of tokens rebuilt (TRA)",
    "seen": "rebuilding, all tokens seen (the paper)",
    "code": "code length",
    "code, typicality": "code length, typicality penalty",
    "h50": "half of the tokens, while they are hidden",
    "seen + h50": "all tokens seen + half hidden",
    "h100 + h50 + h75": "half, three quarters and all hidden",
}
TRAINING = {
    "plain": "plain",
    "plain_m4": "plain, 4 latents",
    "predictive": "predictive",
    "hid25": "a quarter of the windows hides tokens",
    "hid50": "half of the windows hides tokens",
}


def line(found: dict, variant: str, rule: str) -> dict:
    """One row of a summary that `benchmarks.bank.table` wrote."""
    return next(r for r in found["summary"] if (r["variant"], r["rule"]) == (variant, rule))


def spread(row: dict) -> str:
    """Routing accuracy and, of several seeds, how far apart the extremes lie."""
    apart = f" (apart {100 * row['routing_spread']:.2f})" if row["routing_spread"] else ""
    return f"{percent(row['routing'], 2)}{apart}"


def rules(found: dict, of: list[tuple[str, str]]) -> str:
    """A row for each (training, rule), and the linear classifier's."""
    return markdown(
        [
            "training",
            "ranked by",
            "TRA at home",
            "routed right",
            "AUROC, unseen domains",
            "FPR at 95 % TPR",
            "seeds",
        ],
        [
            *(
                [
                    TRAINING[v],
                    RULES[rule],
                    percent(r["tra"], 2),
                    spread(r),
                    decimal(r["auroc"]),
                    percent(r["fpr95"], 0),
                    r["seeds"],
                ]
                for v, rule, r in ((v, rule, line(found, v, rule)) for v, rule in of)
            ),
            [
                "linear 1+2-grams, all domains together",
                None,
                None,
                percent(found["ngram"]["routing"], 2),
                None,
                None,
                1,
            ],
        ],
    )


@table("code-length")
def code_length() -> str:
    """Rules on eight domains, plain and predictive training."""
    found = read("scoring_code.json")
    of = [
        ("plain", "seen"),
        ("predictive", "seen"),
        ("predictive", "code"),
        ("predictive", "code, typicality"),
    ]
    return rules(found, of)


@table("hidden-tokens")
def hidden_tokens() -> str:
    """Rules that score tokens which the encoder was not shown."""
    found = read("scoring.json")
    of = [
        ("plain", "TRA"),
        ("plain", "seen"),
        ("plain_m4", "seen"),
        ("hid25", "seen"),
        ("hid25", "h50"),
        ("hid25", "seen + h50"),
        ("hid50", "h50"),
        ("hid50", "h100 + h50 + h75"),
    ]
    return rules(found, of)


@table("expert-size")
def expert_size() -> str:
    """Nine experts of three sizes at equal steps."""
    found = read("sizes/table.json")
    rows = []
    for variant in ("2M", "11M", "25M"):
        raw = read(f"sizes/{variant}_s0.json")
        of = {rule: line(found, variant, rule) for rule in ("seen", "code", "code, typicality")}
        rows.append(
            [
                f"{raw['params'] / 1e6:.1f} M",
                percent(of["code"]["tra"], 0),
                *(percent(of[rule]["routing"], 2) for rule in of),
                f"{of['code']['auroc']:.3f} / {of['code, typicality']['auroc']:.3f}",
                f"{raw['seconds']:.0f} s",
            ]
        )
    return markdown(
        [
            "parameters",
            "TRA at home",
            "routed right by rebuilding",
            "by code length",
            "with typicality penalty",
            "AUROC unseen, code length / with penalty",
            "training of nine",
        ],
        [
            *rows,
            [
                "linear 1+2-grams",
                None,
                None,
                percent(found["ngram"]["routing"], 2),
                None,
                None,
                None,
            ],
        ],
    )


@table("half-the-steps")
def half_the_steps() -> str:
    """Twenty experts trained half as long, with two weights of the next-token loss."""
    rows = []
    for name, weight in (("half", "0.3"), ("half_weight1", "1.0")):
        whole, without = read(f"routing_{name}.json"), read(f"routing_{name}_without.json")
        rows.append(
            [
                f"500, weight {weight}",
                percent(whole["runs"][0]["tra_in_training"]),
                *(percent(whole[way]["test"], 2) for way in ("plain", "typicality", "offsets")),
                *(percent(without[way]["test"], 2) for way in ("plain", "typicality")),
            ]
        )
    first, without = read("routing.json"), read("routing_without.json")
    log = read("bank/bank_s0.json")["log"][-1]["tra"]
    penalty = lambda found: next(
        r["test"]
        for r in found["typicality"]["rows"]
        if r["weight"] == found["typicality"]["chosen_on_valid"]
    )
    rows.append(
        [
            "1,000, weight 0.3 (the first bank)",
            percent(sum(log) / len(log)),
            percent(first["without_offsets"]["accuracy"]["512"], 2),
            percent(penalty(first), 2),
            percent(first["accuracy"]["512"], 2),
            percent(without["without_offsets"]["accuracy"]["512"], 2),
            percent(penalty(without), 2),
        ]
    )
    return markdown(
        [
            "steps",
            "TRA in training",
            "code length",
            "with typicality penalty",
            "with offsets",
            "code length, without logs",
            "with penalty, without logs",
        ],
        rows,
    )


@table("bigram-weight-25m")
def bigram_weight_25m() -> str:
    """A share of bigram counts in the code length of experts of 25 M."""
    both = lambda found, way: " / ".join(percent(found[way][s], 2) for s in ("valid", "test"))
    return markdown(
        [
            "bigram weight",
            "code length, test",
            "typicality penalty, valid / test",
            "offsets, valid / test",
            "logs at home, code length",
        ],
        [
            [
                weight,
                percent(found["plain"]["test"]),
                both(found, "typicality"),
                both(found, "offsets"),
                percent(found["plain"]["per_domain"]["logs"], 0),
            ]
            for weight, found in (
                (w, read(f"routing_half_mixed_{n}.json"))
                for w, n in ((0, "code"), (0.35, "mix35"), (0.5, "mix50"))
            )
        ],
    )


@table("longer")
def longer() -> str:
    """The first bank of twenty and a third one with more text and steps."""
    rows = []
    for name, of in (
        ("first: 1,000 steps, weight 0.3", ""),
        ("third: 1,500 steps, weight 1.0, more text", "_long"),
    ):
        routing, ood = read(f"routing{of}.json"), read(f"ood{of}.json")
        penalty = next(
            r["test"]
            for r in routing["typicality"]["rows"]
            if r["weight"] == routing["typicality"]["chosen_on_valid"]
        )
        rows.append(
            [
                name,
                percent(routing["without_offsets"]["accuracy"]["512"]),
                percent(penalty),
                percent(routing["accuracy"]["512"]),
                decimal(ood["auroc"]),
                percent(ood["fpr95"], 0),
                percent(ood["attack_accept"], 0),
            ]
        )
    return markdown(
        [
            "bank",
            "code length",
            "with typicality penalty",
            "with offsets",
            "AUROC unknown",
            "FPR at 95 % TPR",
            "easy inputs let in",
        ],
        rows,
    )
