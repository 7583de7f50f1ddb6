"""Tables of what context does to the routing signal."""

from benchmarks.tables.registry import decimal, markdown, percent, read, table

READ = {
    "whole": "all of the prompt",
    "carried": "the query's tokens, context carried over",
    "last": "the last 64 tokens, at most a window",
    "segment": "the last span that `segment` finds",
    "reset": "the query alone",
    "rebuild": "the query's tokens, by rebuilding",
}
KINDS = {
    "plain": "one domain",
    "shots": "1, 2 or 4 blocks of another domain, then a query",
    "quotes": "a quotation of another domain inside",
    "docstring": "a docstring, then its function",
    "other_domain": "text of another domain, then a function",
}
READS = {  # what the figures beside it say to read
    "plain": "all",
    "shots": "last span, or last tokens",
    "quotes": "all, or last span",
    "docstring": "all",
    "other_domain": "last span, or last tokens",
}
RULES = {
    "whole": "all of it",
    "last": "last 64 tokens",
    "segment": "last span",
    "both": "last 64 if they lead clearly",
}


@table("in-context-flips")
def flips() -> str:
    """Who answers a query after k blocks of another domain."""
    found = read("in_context.json")
    long, short = found["k_shot_flips"], found["k_shot_inside"]
    ks = [k for k in long if k != "0"]
    share = lambda of, k, mode: percent(of[k][mode]["flips"])
    return markdown(
        [
            "what is read",
            *(f"64 tokens, k = {k}" for k in ks),
            f"right, k = {ks[-1]}",
            *(f"8 tokens, k = {k}" for k in ks),
        ],
        [
            [
                words,
                *(share(long, k, mode) for k in ks),
                percent(long[ks[-1]][mode]["right"]),
                *(share(short, k, mode) for k in ks),
            ]
            for mode, words in READ.items()
        ],
    )


@table("in-context-rules")
def rules() -> str:
    """Share of prompts answered by the query's own domain."""
    rule = read("in_context.json")["rule"]
    cell = lambda of: f"{percent(of['right'])} ({of['right_95'][0]:.0%}–{of['right_95'][1]:.0%})"
    of_kind = lambda kind: [cell(rule["test"][r][kind]) for r in RULES]
    rows = [
        [
            f"{KINDS[kind]} ({rule['test']['whole'][kind]['count']})",
            *of_kind(kind),
            f"{percent(of['share'], 0)}, {percent(of['right'], 0)} right",
            READS[kind],
        ]
        for kind, of in ((k, rule["agreement"][k]) for k in KINDS if k in rule["agreement"])
    ]
    rows.append(["mean", *(percent(rule["mean"][r]) for r in RULES), None, None])
    rows.append(["mean on valid", *(percent(rule["valid"][r]) for r in RULES), None, None])
    return markdown(["prompts (number)", *RULES.values(), "all and last agree", "read"], rows)


@table("in-context-repeats")
def repeats() -> str:
    """A piece of 8 tokens once, twice and four times in a window."""
    found = read("in_context.json")["repeats"]
    return markdown(
        ["copies", "nats/token of the last, code length", "rebuilding", "margin", "right", "flips"],
        [
            [
                n,
                decimal(of["nats"]["carried"], 2),
                decimal(of["nats"]["rebuild"], 3),
                decimal(of["carried"]["margin"], 2),
                percent(of["carried"]["right"]),
                percent(of["carried"]["flips"]),
            ]
            for n, of in found.items()
        ],
    )


@table("in-context-margins")
def margins() -> str:
    """Margin by position, of the shipped bank and of banks of three training lengths."""
    shipped = read("in_context.json")["by_position"]
    trained = read("in_context_training.json")["beside"]
    long = read("in_context_512.json")["by_position"]
    rows = [
        ["shipped bank", "code length", shipped["bank"]],
        ["shipped bank", "rebuilding", shipped["rebuild"]],
        *(
            [f"demo, {steps} steps", by, of["by_position"][rule]]
            for rule, by in (("bank", "code length"), ("rebuild", "rebuilding"))
            for steps, of in trained.items()
            if (rule, steps) != ("rebuild", "300")  # between its neighbours
        ),
        ["demo, 300 steps, windows of 512", "code length", long["bank"]],
    ]
    span = lambda ends: f"{ends[0]:.2f} to {ends[1]:.2f}"
    return markdown(
        [
            "bank",
            "by",
            "margin, first quarter",
            "last quarter",
            "ratio",
            "95 %",
            "an eighth of a window routed right, first to last",
        ],
        [
            [
                bank,
                by,
                decimal(of["early"]),
                decimal(of["late"]),
                decimal(of["late_over_early"], 2),
                span(of["late_over_early_95"]),
                f"{percent(of['pieces']['right'][0])} to {percent(of['pieces']['right'][-1])}",
            ]
            for bank, by, of in rows
        ],
    )
