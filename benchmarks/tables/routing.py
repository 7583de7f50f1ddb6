"""Tables of routing: twenty and sixty-four experts, unknown text, the shipped bank."""

from benchmarks.tables.registry import decimal, markdown, percent, read, table

LENGTHS = ("16", "32", "64", "128", "512")
BASELINES = {
    "ngram": "linear 1+2-grams",
    "gate": "learned gate",
    "lm": "autoregressive experts of equal size",
    "embedding": "LSA of hashed n-grams + Gaussian",
    "ppm": "PPM-like code length",
    "zstd": "zstd with a dictionary",
    "naive_bayes": "n-gram likelihood, backed off",
}
NOVELTY = {
    "novelty_score": "above the nearest expert's own median",
    "novelty_score_repetition": "the same, or repetition unlike its text",
    "p": "conformal p-value of the nearest expert",
}
CASCADES = {
    "64 experts": "cascade_64",
    "20 experts": "cascade_20",
    "20, half the steps": "cascade_20_half",
    "20, half, weight 1.0": "cascade_20_half_weight1",
}


def by_length(accuracy: dict) -> list[str | None]:
    """Accuracy by number of tokens, and of whole documents."""
    return [percent(accuracy.get(key)) for key in (*LENGTHS, "document")]


def penalised(found: dict) -> float:
    """Accuracy on test with the typicality weight that is best on valid."""
    rows, best = found["typicality"]["rows"], found["typicality"]["chosen_on_valid"]
    return next(r["test"] for r in rows if r["weight"] == best)


def without_logs(name: str) -> float:
    """A baseline's accuracy at 512 tokens, mean over the domains but the logs."""
    found = {**read("baselines_cpu.json")["baselines"], **read("baselines_gpu.json")["baselines"]}
    of = {k: v for k, v in found[name]["per_domain"]["512"].items() if k != "logs"}
    return sum(of.values()) / len(of)


@table("twenty-experts")
def twenty_experts() -> str:
    """Share of windows routed right by length, mean over twenty domains."""
    cpu, gpu = (read(f"baselines_{d}.json")["baselines"] for d in ("cpu", "gpu"))
    first, two, branched, without = (
        read(f"routing{of}.json") for of in ("", "_two", "_branches", "_without")
    )
    plain = lambda found: found["without_offsets"]["accuracy"]
    branch = [penalised(run) for run in branched["by_run"].values()]
    rows = [
        ["code length", *by_length(plain(first)), percent(plain(without)["512"])],
        [
            "code length, typicality penalty",
            *[None] * 4,
            percent(penalised(first)),
            None,
            percent(penalised(without)),
        ],
        [
            "code length, offsets",
            *by_length(first["accuracy"]),
            percent(without["accuracy"]["512"]),
        ],
        ["two experts per domain, offsets", *by_length(two["accuracy"]), None],
        ["branched, code length (mean of two banks)", *by_length(plain(branched)), None],
        [
            "branched, typicality penalty (mean of two)",
            *[None] * 4,
            percent(sum(branch) / len(branch)),
            None,
            None,
        ],
        ["branched, offsets (mean of two)", *by_length(branched["accuracy"]), None],
        [
            "rebuilding, all tokens seen (the paper)",
            *by_length(first["paper_rule"]["accuracy"]),
            percent(without["paper_rule"]["accuracy"]["512"]),
        ],
        *(
            [label, *by_length({**cpu, **gpu}[name]), percent(without_logs(name))]
            for name, label in BASELINES.items()
        ),
        ["chance", *by_length(cpu["chance"]), None],
    ]
    return markdown(
        ["ranked by", *(f"{n} tokens" for n in LENGTHS), "document", "512, without logs"], rows
    )


@table("unknown-text")
def unknown_text() -> str:
    """How unknown text is told, by bank: every domain left out in turn."""
    names = {
        "": "twenty experts from noise",
        "_branches": "branched (mean of two banks)",
        "_two": "two experts per domain",
        "_without": "without the logs",
        "_long": "longer, more text",
    }
    return markdown(
        [
            "bank",
            "novelty score, chosen on valid",
            "AUROC",
            "FPR at 95 % TPR",
            "false alarms at 1 % wanted",
            "unknown text refused",
            "easy inputs let in",
        ],
        [
            [
                label,
                NOVELTY[found["rule"]],
                decimal(found["auroc"]),
                percent(found["fpr95"], 0),
                percent(found["false_alarm"]),
                percent(found["reject_at_1pct"], 0),
                percent(found["attack_accept"], 0),
            ]
            for label, found in ((v, read(f"ood{k}.json")) for k, v in names.items())
        ],
    )


@table("hardest-unknown")
def hardest_unknown() -> str:
    """The domains of the first bank that are hardest to tell as unknown."""
    of = {k: v for k, v in read("ood.json")["per_domain"].items() if v["kind"] == "held_out"}
    hardest = sorted(of, key=lambda k: of[k]["auroc"])[:6]
    return markdown(
        ["domain left out", "AUROC", "FPR at 95 % TPR", "refused at 1 % false alarms"],
        [
            [
                name,
                decimal(of[name]["auroc"]),
                percent(of[name]["fpr95"], 0),
                percent(of[name]["reject_at_1pct"], 0),
            ]
            for name in hardest
        ],
    )


@table("easy-inputs")
def easy_inputs() -> str:
    """Which easy inputs the first bank lets in at 1 % wanted false alarms."""
    of = {
        k.split("/")[1]: v
        for k, v in read("ood.json")["per_domain"].items()
        if v["kind"] == "attack"
    }
    return markdown(
        ["input", "let in", "AUROC"],
        [
            [name.replace("_", " "), percent(1 - v["reject_at_1pct"], 0), decimal(v["auroc"], 2)]
            for name, v in sorted(of.items(), key=lambda kv: kv[1]["reject_at_1pct"])
        ],
    )


@table("candidates")
def candidates() -> str:
    """Agreement with exact routing by how many candidates the bigram models leave."""
    found = {label: read(f"{name}.json") for label, name in CASCADES.items()}
    fixed = lambda key, n, f: percent(f[key][n]["test"]["agreement"], 2)
    neural = lambda name: percent(
        read(f"small_compressors/{name}.json")["by_candidates"]["4"]["test"]["agreement"],
        1 if name == "cascade_64" else 2,
    )
    return markdown(
        ["candidates", *found],
        [
            *(
                [n, *(fixed("by_candidates", n, f) for f in found.values())]
                for n in ("2", "4", "6")
            ),
            *(
                [
                    f"{n}, offsets fitted on valid",
                    *(fixed("by_candidates_with_offsets", n, f) for f in found.values()),
                ]
                for n in ("4", "6")
            ),
            ["4 of neural compressors of 2.3 M parameters", *map(neural, CASCADES.values())],
        ],
    )


@table("small-models")
def small_models() -> str:
    """Routing by bigram models alone, beside the experts."""
    share = lambda part: " / ".join(percent(part["accuracy"][s]) for s in ("valid", "test"))
    return markdown(
        ["bank", "bigram models alone, valid / test", "experts, valid / test"],
        [
            [label, share(f["bigram_models"]), share(f["experts"])]
            for label, f in ((k, read(f"{v}.json")) for k, v in CASCADES.items())
        ],
    )


@table("shipped-bank")
def shipped_bank() -> str:
    """The bank in the package, with and without a share of bigram counts."""
    found = read("pretrained.json")
    both = (("bigram weight 0.35, as shipped", found), ("encoders alone", found["without_bigrams"]))
    unseen = ("code_java", "news", "logs", "medical", "lang_fr")
    return markdown(
        [
            "ranked by code length",
            "routed right",
            "false alarms at 5 %",
            *(f"AUROC {n}" for n in ("Java", "news", "logs", "medical", "French")),
        ],
        [
            [
                label,
                percent(f["routing"]["accuracy"]),
                percent(f["ood"]["false_alarm"]),
                *(decimal(f["ood"]["per_domain"][n]["auroc"]) for n in unseen),
            ]
            for label, f in both
        ],
    )


@table("shipped-rules")
def shipped_rules() -> str:
    """The same experts by three rules, 96 windows per domain."""
    found = read("pretrained.json")["rules_compared"]
    names = {
        "seen": "rebuilding, all tokens seen (the paper)",
        "code": "code length",
        "seen + code": "their sum",
    }
    unseen = {"code_java": "Java", "news": "news", "logs": "logs", "medical": "medical"}
    return markdown(
        ["ranked by", "routed right", *(f"AUROC {n}" for n in unseen.values())],
        [
            [
                label,
                percent(found["routing"][rule]),
                *(decimal(found["auroc"][rule][d], 2) for d in unseen),
            ]
            for rule, label in names.items()
        ],
    )


@table("shipped-weights")
def shipped_weights() -> str:
    """The share of bigram counts in the shipped bank."""
    return markdown(
        [
            "bigram weight",
            "routed right, valid",
            "test",
            "nats/token at home",
            "mean AUROC of eight unseen domains",
        ],
        [
            [
                r["bigram_weight"],
                percent(r["accuracy"]["valid"], 2),
                percent(r["accuracy"]["test"]),
                decimal(r["nll_at_home"], 2),
                decimal(r["auroc_mean"]),
            ]
            for r in read("pretrained_bigram_weight.json")["rows"]
        ],
    )


@table("shipped-documents")
def shipped_documents() -> str:
    """Share of whole documents called unknown at alpha 0.05."""
    found = read("pretrained_documents_residual.json")
    unseen = {
        "code_java": "Java",
        "code_c": "C",
        "lang_fr": "French",
        "medical": "medical",
        "news": "news",
        "logs": "logs",
        "scientific": "LaTeX",
        "social": "chats, reviews",
    }
    rows = [
        [
            label,
            percent(f["false_alarms"]),
            *(
                percent(f["unknown"][d]["called_unknown"] / f["unknown"][d]["documents"])
                for d in unseen
            ),
        ]
        for label, f in (("as shipped", found), ("without bigrams", found["without_bigrams"]))
    ]
    merged = found["merged_p_only"]
    rows.append(
        [
            "p-values of windows merged",
            percent(merged["false_alarms"]),
            *(percent(merged["unknown"][d] / 40) for d in unseen),
        ]
    )
    return markdown(["", "ten known domains", *unseen.values()], rows)


@table("margins")
def margins() -> str:
    """Share of whole documents called unknown, by residual and margin and by the residual alone."""
    found = read("pretrained_documents_margins.json")
    share = lambda row, key: percent(row[key] / row["documents"])
    rows = [
        [kind, name, share(row, "by_residual"), share(row, "called_unknown")]
        for kind, of in (("known", found["known"]), ("unknown", found["unknown"]))
        for name, row in of.items()
    ]
    means = [
        [f"mean, {kind}", "", percent(found["by_residual"][key]), percent(found[key])]
        for kind, key in (("known", "false_alarms"), ("unknown", "refused"))
    ]
    return markdown(["", "domain", "residual alone", "residual and margin"], [*rows, *means])


@table("surprise")
def surprise() -> str:
    """Share of whole documents called unknown by three rules."""
    found = read("pretrained_documents.json")
    rules = ("by_residual", "by_margin", "called_unknown")
    rows = [
        [kind, name, *(percent(row[rule] / row["documents"]) for rule in rules)]
        for kind in ("known", "unknown")
        for name, row in found[kind].items()
    ]
    of = lambda rule, key: percent((found if rule == "called_unknown" else found[rule])[key])
    means = [
        [f"mean, {kind}", "", *(of(rule, key) for rule in rules)]
        for kind, key in (("known", "false_alarms"), ("unknown", "refused"))
    ]
    heads = ["", "domain", "residual alone", "residual and margin", "surprise and margin"]
    return markdown(heads, [*rows, *means])


def demo_rows(found: dict) -> dict[str, str | None]:
    """Figure -> value of a report of configs/quickstart.py."""
    own, unknown = found["fingerprint"], found["ood"]["per_domain"]
    by_rebuilding = found["routing"].get("accuracy_rebuild")
    return {
        **{f"TRA at home, {name}": percent(own[name][name]["tra"]) for name in own},
        "routed right, 4,096 windows of 64 tokens": percent(found["routing"]["accuracy"], 2),
        **(
            {}
            if by_rebuilding is None
            else {"the same by rebuilding alone (the paper's rule)": percent(by_rebuilding, 2)}
        ),
        "false alarms at 5 % wanted": percent(found["ood"]["false_alarm"]),
        **{f"AUROC, {name}": decimal(unknown[name]["auroc"]) for name in unknown},
    }


@table("demo")
def demo() -> str:
    """What `make demo` measured with the fold."""
    return markdown(["figure", "value"], demo_rows(read("quickstart/report.json")).items())


@table("demo-query")
def demo_query() -> str:
    """The demo with latent queries beside the fold."""
    fold, query = (demo_rows(read(f"quickstart/{f}.json")) for f in ("report", "2026-11-30"))
    return markdown(
        ["figure", "fold, 450 steps", "latent queries, 300 steps"],
        [[name, fold.get(name), value] for name, value in query.items()],
    )
