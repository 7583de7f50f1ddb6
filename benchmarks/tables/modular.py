"""Tables of the modular language model, and of texts that are cut where their domain changes."""

import math

from benchmarks.tables.registry import markdown, percent, read, short, table

MAIN = "64"  # tokens of the prefix
ARMS = {
    "dense": "one dense model",
    "dense_large": "one dense model three times as large, equal training FLOPs",
    "label": "the expert of the text's label",
    "past": "every 64 tokens the best expert so far",
    "following": "every 16 tokens the largest weight of a posterior that expects switches",
    "following_bigrams": "the same by bigram models",
    "top1": "the best expert of the prefix",
    "top1_expected": "the expert with the fewest expected nats",
    "merged": "one model, the mean of the best four experts' weights by their posterior",
    "top1_joint": "the same, evidence of compressors and bigram models beside",
    "top1_candidates": "the best expert of the prefix among at most four that bigram models name",
    "top1_bigrams": "the best bigram model of the prefix",
    "top1_code_length": "the compressor that predicts the prefix best",
    "top1_rebuilding": "the compressor that rebuilds the prefix best (the paper's rule)",
    "gate": "a learned gate on the prefix",
    "mixture_2": "posterior mixture of the best two",
    "mixture_4": "posterior mixture of the best four",
    "mixture": "posterior mixture of all twenty",
    "mixture_seed": "posterior mixture of all twenty and the seed",
    "random_split": "experts of twenty random parts",
    "seed": "the seed alone",
}
CUTS = {
    "experts": "experts, windows read twice",
    "experts, windows read once": "experts, windows read once",
    "bigrams": "bigram models, same decoder",
    "linear token n-grams": "linear token n-grams, same decoder",
    "linear character n-grams, per line": "linear character n-grams of lines, same decoder",
    "change points (ruptures)": "change points of the experts' nats (ruptures)",
    "fixed windows": "fixed windows of 64 tokens",
    "fixed windows, hysteresis": "fixed windows of 64 tokens, hysteresis",
    "known switches": "experts, switches given",
}


def below(ratio: float | None) -> str | None:
    """0.884 -> -11.6 %"""
    return None if ratio is None else f"{100 * (ratio - 1):+.1f} %"


@table("modular-arms")
def arms() -> str:
    """Who speaks after the first 64 tokens of a window."""
    found = read("modular.json")
    late, spliced = (m["prefix"][MAIN]["after"] for m in (found, found["mixed"]["spliced"]))
    rows = sorted((n for n in ARMS if n in late), key=lambda n: late[n]["mean_ppl_vs_dense"])
    return markdown(
        [
            "who speaks after the first 64 tokens",
            "perplexity beside dense",
            "beside the label's expert",
            "where two domains are spliced",
            "parameters that speak",
        ],
        [
            [
                ARMS[n],
                below(late[n]["mean_ppl_vs_dense"]),
                below(late[n]["mean_ppl_vs_label"]),
                below(spliced[n]["mean_ppl_vs_dense"]) if n in spliced else None,
                None if n == "gate" else short(late[n]["active_params"]),
            ]
            for n in rows
        ],
    )


@table("modular-domains")
def domains() -> str:
    """Perplexity by domain."""
    late = read("modular.json")["prefix"][MAIN]["after"]
    dense, label, top1, mixture = (late[n]["ppl"] for n in ("dense", "label", "top1", "mixture_4"))
    rows = sorted(dense, key=lambda n: label[n] / dense[n])
    return markdown(
        ["domain", "dense", "its own expert", "best expert of the prefix", "mixture of four"],
        [
            [
                n.replace("_", " "),
                f"{dense[n]:.2f}",
                *(f"{x[n]:.2f} ({below(x[n] / dense[n])})" for x in (label, top1, mixture)),
            ]
            for n in rows
        ],
    )


@table("modular-branches")
def branches() -> str:
    """Loss on valid of each way to train a branch, and of the average that was chosen."""
    stages = read("modular.json")["stages"]["branches"]
    losses, averages = stages["valid_nll"], stages["averages"]
    means = {"": "alone", "all": "of all", "near": "of the nearest"}
    return markdown(
        ["domain", *losses, "weights that valid chose", "nats/token"],
        [
            [
                n.replace("_", " "),
                *(f"{losses[t][n]:.3f}" for t in losses),
                means[a["of"]] + (f", {a['share']:g} of the mean" if a["share"] else ""),
                f"{a['valid_nll']:.3f}",
            ]
            for n, a in averages.items()
        ],
    )


@table("modular-prefix")
def prefix() -> str:
    """How many tokens a decision needs."""
    found = read("modular.json")
    names = ("top1", "merged", "top1_expected", "top1_joint", "top1_bigrams", "top1_code_length")
    names = [n for n in (*names, "gate") if all(n in x["after"] for x in found["prefix"].values())]
    return markdown(
        ["tokens that decide", *(ARMS[n].removesuffix(" of the prefix") for n in names)],
        [
            [size, *(below(found["prefix"][size]["after"][n]["mean_ppl_vs_label"]) for n in names)]
            for size in sorted(found["prefix"], key=int)
        ],
    )


@table("modular-speed")
def speed() -> str:
    """Decoding and reading, routed and dense."""
    rows = read("modular.json")["speed"]["rows"]
    return markdown(
        ["what", "texts at once", "experts of a text", "tokens/s", "of dense"],
        [
            [
                f"{r['what']}, {r['arm']}",
                r["batch"],
                r["mix"],
                f"{r['tokens_per_s']:,.0f}",
                percent(r["of_dense"], 0),
            ]
            for r in rows
            if r["what"] in ("prefill", "decode")
        ],
    )


@table("pretrained-lms")
def pretrained() -> str:
    """The language models of the shipped bank, on validation text."""
    stages = read("pretrained_lms.json")["stages"]
    rows = {n: math.exp(found["valid_nll"]) for n, found in stages["branches"]["best"].items()}
    start = math.exp(stages["seed"]["best"]["seed"]["valid_nll"])
    return markdown(
        ["language model", "perplexity per token, validation text of its domain"],
        [
            *([n, f"{ppl:.1f}"] for n, ppl in sorted(rows.items(), key=lambda row: row[1])),
            ["the seed, of all domains", f"{start:.1f}"],
        ],
    )


@table("segments")
def segments() -> str:
    """Spliced texts of the shipped bank's ten domains."""
    found = read("segments.json")["baselines"]
    lengths = ("32-128", "128-512", "512-2048")
    return markdown(
        ["decided by", *(f"{n} tokens" for n in lengths), "boundary F1 (8 tokens)", "Pk"],
        [
            [
                CUTS[n],
                *(percent(found[n]["by_length"][k]["token_accuracy"]) for k in lengths),
                f"{found[n]['splices']['boundary_f1']:.3f}",
                f"{found[n]['splices']['pk']:.3f}",
            ]
            for n in CUTS
            if n in found
        ],
    )


@table("segments-mixed")
def mixed() -> str:
    """Code told from prose in real documents, by a bank with technical prose and by the shipped."""
    own, shipped = read("segments_technical.json"), read("segments.json")
    kinds = {"documents of `mixed`": lambda found: found["mixed"]} | {
        f"{kind} files": lambda found, kind=kind: found["parsed"][kind]
        for kind in ("python", "markdown")
    }
    names = [n for n in CUTS if n in own["mixed"]["ways"]]
    header = [
        "",
        "documents",
        "one answer for all",
        *(CUTS[n] for n in names),
        "shipped bank, experts",
    ]
    rows = []
    for kind, of in kinds.items():
        found = of(own)
        share = max(found["code_share"], 1 - found["code_share"])
        accuracy = [percent(found["ways"][n]["token_accuracy"]) for n in names]
        rows.append(
            [kind, found["documents"], percent(share), *accuracy]
            + [percent(of(shipped)["ways"]["experts"]["token_accuracy"])]
        )
    return markdown(header, rows)


@table("segments-adaptive")
def adaptive() -> str:
    """How well each way to choose windows rebuilds spliced texts, and at what cost."""
    names = {
        "one expert": "one expert, fixed windows of 64",
        "spans": "spans: windows begin anew at each switch",
        "halved": "spans, windows halved where their halves bring more tokens back",
    }
    rows = read("segments.json")["adaptive"]
    return markdown(
        ["windows", "TRA", "residual, nats/token", "bits/byte", "latents per token"],
        [
            [
                names.get(n, n.replace("fixed", "fixed windows of") + " tokens"),
                percent(r["tra"], 2),
                f"{r['nll']:.3f}",
                f"{r['bits_per_byte']:.3f}",
                f"{r['latents_per_token']:.2f}",
            ]
            for n, r in rows.items()
        ],
    )


@table("segments-windows")
def windows() -> str:
    """Fixed windows of every size, with and without hysteresis, on the same texts."""
    found = read("segments.json")["by_window"]
    percents = lambda r: percent(r["token_accuracy"])
    return markdown(
        ["tokens of a window", "right tokens", "boundary F1", "with hysteresis", "boundary F1"],
        [
            [
                n,
                percents(row["fixed"]),
                f"{row['fixed']['boundary_f1']:.3f}",
                percents(row["hysteresis"]),
                f"{row['hysteresis']['boundary_f1']:.3f}",
            ]
            for n, row in sorted(found.items(), key=lambda item: int(item[0]))
        ],
    )
