"""The three tables of README.md: compression, routing, speed; six rows at most."""

from benchmarks.tables.compressors import SAMPLED, SEEDS, record, training
from benchmarks.tables.registry import markdown, percent, read, short, table
from benchmarks.tables.routing import penalised


@table("readme-compression")
def compression() -> str:
    """Fidelity of one compressor, on text of packages that it was not trained on."""
    seeds = [record(file) for file in SEEDS.values()]
    mean = lambda name: sum(run["tra"][name] for run in seeds) / len(seeds)
    query = [read(f"record/{name}.json") for name in SAMPLED]
    cells, steps = [run["fingerprint"]["code"] for run in query], query[0]["training"]
    of_seeds = lambda name: sum(cell[name]["tra"] for cell in cells) / len(cells)
    found = lambda run: [percent(run["tra"][k], 2) for k in ("test", "wikitext", "random")]
    return markdown(
        ["compressor", "code, held out", "WikiText", "random ids", "training"],
        [
            ["the paper, 87 M parameters, 64x", "99.47 %", "47.76 %", "0.57 %", "not said"],
            [
                "**latent queries**, 88 M, 64x, three seeds",
                *(percent(of_seeds(k), 2) for k in ("code", "wikitext", "random_tokens")),
                f"{steps['seconds']:.0f} s, {steps['tokens_per_expert'] / 1e6:.0f} M tokens, "
                "one H200",
            ],
            [
                "fold, 90 M, 64x, three seeds",
                *(percent(mean(k), 2) for k in ("test", "wikitext", "random")),
                f"{training(seeds[0])}, one H100",
            ],
            *(
                [name, *found(run), f"{training(run)}, one {chip}"]
                for name, run, chip in (
                    ("fold, 94 M, 128x", record("h100_m4_seed0"), "H100"),
                    ("fold, 103 M, 256x", record("h200_m2_seed0"), "H200"),
                )
            ),
            ["a random code that learnt nothing, 64x", None, None, "100 %", "none"],
        ],
    )


@table("readme-routing")
def routing() -> str:
    """Windows of 512 tokens of twenty domains that go to their own domain."""
    first, two = read("routing.json"), read("routing_two.json")
    gpu, cpu = (read(f"baselines_{d}.json")["baselines"] for d in ("gpu", "cpu"))
    baselines, query = {**cpu, **gpu}, read("routing_query.json")["routing"]
    return markdown(
        ["ranked by", "routed right", "trained on other domains' text?"],
        [
            [
                "**latent queries**: code length, typicality penalty",
                percent(query["accuracy"]),
                "no",
            ],
            [
                "rebuilding alone (the paper's rule), same experts",
                percent(query["accuracy_rebuild"]),
                "no",
            ],
            ["fold: code length, typicality penalty", percent(penalised(first)), "no"],
            [
                "code length, offsets, two experts per domain",
                percent(two["accuracy"]["512"]),
                "offsets on valid",
            ],
            *(
                [label, percent(baselines[name]["512"]), other]
                for name, label, other in (
                    ("lm", "likelihood of autoregressive experts of equal size", "no"),
                    ("gate", "learned gate of equal size", "yes"),
                    ("ngram", "linear classifier on token 1+2-grams", "yes"),
                )
            ),
        ],
    )


@table("readme-speed")
def speed() -> str:
    """Tokens/s of training and of routing."""
    of = {(r["framework"], r["model"], r["optimizer"]): r for r in read("throughput.json")["rows"]}
    mine = lambda size: of[("jax", size, "adamw")]
    peer = read("throughput.json")["torch_ratios"]
    cost = {
        (r["device"].split()[-1], r["experts"], r["mode"]): r
        for r in read("router_cost.json")["rows"]
    }
    cascade = next(
        r
        for (_, experts, mode), r in cost.items()
        if experts == 64 and mode == "cascade" and "H100" in r["device"]
    )
    return markdown(
        ["work on one H100", "tokens/s", "beside it"],
        [
            [
                f"training, {name} parameters, AdamW",
                short(mine(size)["tokens_per_s"]),
                f"{peer[size]['adamw']:.2f} times PyTorch with torch.compile",
            ]
            for size, name in (("10m", "10 M"), ("87m", "87 M"), ("350m", "350 M"))
        ]
        + [
            [
                "routing among 64 experts, 6 candidates of bigram models",
                short(cascade["tokens_per_s"]),
                f"{cascade['relative_cost']:.1f} times one expert's time; all 64 take 63 times",
            ]
        ],
    )
