"""Tables of single compressors: fidelity, bottlenecks, bits."""

from benchmarks.tables.registry import decimal, markdown, percent, read, table

PAPER = ("the paper, 87 M", None, "99.47 %", None, "47.76 %", "0.57 %")
DAY = "record/2026-11-22_"
SEEDS = {
    "seed 0": "h100_kernels_seed0",
    "seed 1": "h100_kernels_seed1",
    "seed 2": "h100_kernels_seed2",
}


def record(name: str) -> dict:
    """The raw log of one training run of the record."""
    return read(f"{DAY}{name}.json")


def accuracies(run: dict, sets=("test", "valid", "wikitext", "random")) -> list[str | None]:
    """TRA on code test, code valid, WikiText and random ids."""
    return [percent(run["tra"][name], 2) for name in sets]


def training(run: dict) -> str:
    """Seconds and tokens of training."""
    return f"{run['train_seconds']:.0f} s, {run['train_tokens'] / 1e6:.0f} M tokens"


@table("paper")
def paper() -> str:
    """The paper's table by one command with three seeds, and longer."""
    of = {
        **SEEDS,
        "**longer, more text, seed 0**": "h100_long_seed0",
        "before the row kernels, seed 0": "h100_seed0",
        "before the row kernels, seed 1": "h100_seed1",
        "seed 2 on one H200": "h200_seed2",
    }
    majority = record("h100_kernels_seed0")["majority_tra"]
    met = lambda run: run["seconds_to_99_47"] and f"{run['seconds_to_99_47']:.1f} s"
    return markdown(
        [
            "",
            "training",
            "code test",
            "code valid",
            "WikiText valid",
            "random ids",
            "99.47 % of valid after",
            "commit",
        ],
        [
            [*PAPER, None, None],
            *(
                [name, training(run), *accuracies(run), met(run), run["commit"]]
                for name, run in ((n, record(f)) for n, f in of.items())
            ),
            [
                "always the commonest token",
                None,
                *(percent(majority[k]) for k in ("test", "valid", "wikitext")),
                percent(majority["random"], 3),
                None,
                None,
            ],
        ],
    )


@table("ratios")
def ratios() -> str:
    """The same compressor with fewer latents for a token."""
    seeds = [record(f) for f in SEEDS.values()]
    mean = lambda group, key: sum(run[group][key] for run in seeds) / len(seeds)
    of = {
        "512 -> 4 (128x)": "h100_m4_seed0",
        "1,024 -> 8 (128x)": "h200_l1024_seed0",
        "512 -> 2 (256x)": "h200_m2_seed0",
    }
    figures = lambda tra, nll, exact: [
        percent(tra("test"), 2),
        percent(tra("valid"), 2),
        percent(tra("wikitext")),
        percent(tra("random"), 2),
        f"{nll('test'):.3f} / {nll('wikitext'):.2f} / {nll('random'):.1f}",
        percent(exact("test"), 0),
    ]
    rows = [
        [
            "512 -> 8 (64x, mean of three seeds)",
            8,
            "160 s, 160 M tokens",
            *figures(*(lambda k, g=g: mean(g, k) for g in ("tra", "nll", "window_exact"))),
        ]
    ]
    for name, run in ((n, record(f)) for n, f in of.items()):
        numbers = run["M"] * run["d_z"] / run["L"]
        rows.append(
            [
                name,
                f"{numbers:.0f}",
                training(run),
                *figures(*(run[g].__getitem__ for g in ("tra", "nll", "window_exact"))),
            ]
        )
    rows.append(
        ["the paper, 512 -> 8 (64x)", 8, None, "99.47 %", None, "47.8 %", "0.57 %", None, None]
    )
    return markdown(
        [
            "tokens -> latents",
            "numbers per token",
            "training",
            "code test",
            "code valid",
            "WikiText valid",
            "random ids",
            "nats/token: code / WikiText / random",
            "windows exact",
        ],
        rows,
    )


@table("swap")
def swap() -> str:
    """An expert of other text, and the three bottlenecks at equal time."""
    of = {
        "Wikipedia only, `fold`": "h100_swap_wiki",
        "code, `fold`": "h100_fold_70s",
        "code, `query_fold`": "h100_query_fold_70s",
        "code, `query` (the paper's form)": "h100_query_150s",
    }
    return markdown(
        [
            "expert",
            "training",
            "code test",
            "WikiText valid",
            "random ids",
            "nats/token, code / WikiText",
        ],
        [
            [
                name,
                f"{run['train_seconds']:.0f} s",
                *accuracies(run, ("test", "wikitext", "random")),
                f"{run['nll']['test']:.3f} / {run['nll']['wikitext']:.4f}",
            ]
            for name, run in ((n, record(f)) for n, f in of.items())
        ],
    )


@table("overlap")
def overlap() -> str:
    """How much of the held-out code stands word for word in the training text."""
    rows = read("record/overlap.json")["rows"]
    share = lambda key, name, run, files: next(
        percent(r[key], 2)
        for r in rows
        if (r["set"], r["run"], len(r["train"])) == (name, run, files)
    )
    return markdown(
        [
            "length of the run",
            "test, three shards",
            "test, five shards",
            "valid, three shards",
            "valid, five shards",
        ],
        [
            [
                f"{run} tokens",
                *(
                    share("tokens_covered", name, run, files)
                    for name in ("test", "valid")
                    for files in (1, 2)
                ),
            ]
            for run in (32, 64, 128)
        ],
    )


@table("bits")
def bits() -> str:
    """What the latents need in bits, beside ids and compressed text."""
    found = read("bits.json")
    plain, trained = found["rows"][:9], found["rows"][10:]
    row = lambda r: [
        r["scheme"],
        f"{r['bits_per_token']:.0f}",
        decimal(r["coded_bits_per_token"] or r["entropy_bits_per_token"], 1),
        percent(r["tra"], 2),
    ]
    fsq = [
        ["4 learned levels (FSQ), put in place", *row(trained[0])[1:]],
        [
            f"4 learned levels, trained {trained[1]['fine_tune_seconds']:.0f} s more",
            *row(trained[1])[1:],
        ],
    ]
    text = [
        ["a raw GPT-2 id", decimal(found["raw_id_bits_per_token"], 1), None, "100 %"],
        *(
            [f"{name} of the text", decimal(found[f"{name}_bits_per_token"], 2), None, "exact"]
            for name in ("zstd", "xz")
        ),
    ]
    return markdown(
        ["latents stored as", "bits per token", "entropy-coded", "TRA"],
        [*(row(r) for r in plain if "range" not in r["scheme"]), *fsq, *text],
    )


@table("copier")
def copier() -> str:
    """A code that learnt nothing, on uniformly random ids."""
    rows = read("copier.json")["copier"]
    return markdown(
        ["bits per number", "bits per token", "TRA on random ids"],
        [[r["bits_per_number"], r["bits_per_token"], percent(r["tra"], 2)] for r in rows],
    )


RUNS = "record/2026-11-30_h200_"
SAMPLED_M4 = "2026-12-01_h200_sampled_m4_190m_seed0"
SAMPLED = (  # the record's runs, by their seeds
    "2026-11-30_h200_sampled_66m_seed0",
    *(f"2026-12-01_h200_sampled_66m_seed{seed}" for seed in (1, 2)),
)


@table("latent-queries")
def latent_queries() -> str:
    """Runs of main.py with latent queries, beside the fold's record."""
    of = {
        "latent queries, 8 latents (64x), 50 M tokens": f"{RUNS}query_50m_seed0.json",
        "the same, 60 M": f"{RUNS}query_60m_seed0.json",
        "the same, 66 M": f"{RUNS}query_66m_seed0.json",
        **{
            f"**the same, 66 M, softmax over 16,384 ids**, seed {seed}": f"record/{name}.json"
            for seed, name in enumerate(SAMPLED)
        },
        "4 latents (128x), 150 M": f"{RUNS}query_m4_150m_seed0.json",
        "4 latents (128x), 190 M, softmax over 16,384 ids": f"record/{SAMPLED_M4}.json",
        "`fourier_query`, 8 latents (64x), 50 M": f"{RUNS}fourier_50m_seed0.json",
    }
    fold = record("h100_kernels_seed0")
    rows = [
        [
            "fold, 8 latents, 160 M tokens (H100)",
            f"{fold['train_seconds']:.0f} s",
            *accuracies(fold),
            f"{fold['nll']['test']:.3f} / {fold['nll']['wikitext']:.2f}",
            percent(fold["window_exact"]["test"]),
            f"{fold['seconds_to_99_47']:.1f} s",
        ]
    ]
    for name, file in of.items():
        run = read(file)
        cells, training = run["fingerprint"]["code"], run["training"]
        valid = run["curves"]["code"]["valid_tra"][-1]
        met = training["seconds_to_target"]["code"]
        rows.append(
            [
                name,
                f"{training['seconds']:.0f} s",
                percent(cells["code"]["tra"], 2),
                percent(valid, 2),
                percent(cells["wikitext"]["tra"], 2),
                percent(cells["random_tokens"]["tra"], 2),
                f"{cells['code']['nll']:.3f} / {cells['wikitext']['nll']:.2f}",
                percent(cells["code"]["window_exact"]),
                f"{met:.1f} s" if met else "not",
            ]
        )
    return markdown(
        [
            "",
            "seconds of steps",
            "code test",
            "code valid",
            "WikiText",
            "random ids",
            "nats/token, code / WikiText",
            "windows exact",
            "99.47 % of valid after",
        ],
        rows,
    )


@table("query-ablation")
def query_ablation() -> str:
    """One change of the latent queries at a time, on validation text."""
    rows = {"small": {}, "large": {}}
    for row in read("query_ablation.json")["rows"]:
        rows[row["size"].partition(",")[0]][row["change"]] = row
    order = sorted(rows["large"], key=lambda name: -rows["large"][name]["tra_valid"])
    small = lambda row: row and f"{percent(row['tra_valid'], 2)} ± {100 * row['tra_valid_std']:.2f}"
    steps = lambda row: row and (f"{row['steps_to_99']:.0f}" if row["steps_to_99"] else "not")
    names = {"eight_heads": "eight heads", "full": "**all parts**"}
    return markdown(
        [
            "",
            "5 M parameters, three seeds",
            "steps to 99 %",
            "88 M parameters, one seed",
            "steps to 99 %",
        ],
        [
            [
                names.get(name, name),
                small(rows["small"].get(name)),
                steps(rows["small"].get(name)),
                percent(rows["large"][name]["tra_valid"], 2),
                steps(rows["large"][name]),
            ]
            for name in order
        ],
    )


@table("query-changes")
def query_changes() -> str:
    """Other changes at the size of the record, on validation text."""
    rows = read("query_ablation/changes.json")
    return markdown(
        ["88 M parameters, one seed", "tokens", "TRA of valid", "nats/token"],
        [
            [
                row["change"],
                f"{row['tokens'] / 1e6:.0f} M",
                percent(row["tra_valid"], 2),
                decimal(row["nll_valid"], 4),
            ]
            for row in (*rows["rows"], *rows["longer"])
        ],
    )
