"""Tables of speed, scale and memory."""

from benchmarks.tables.registry import decimal, markdown, percent, read, short, table

SIZES = ("10m", "87m", "350m", "1b")


@table("speed")
def speed() -> str:
    """Training steps of four sizes beside PyTorch."""
    found = read("throughput.json")
    names = {"jax": "this code", "torch": "PyTorch"}
    rows = [
        *((r, r["commit"]) for r in found["rows"]),
        *((r, e["commit"]) for e in found["earlier"] for r in e["rows"]),
    ]
    rows.sort(key=lambda of: (SIZES.index(of[0]["model"]), of[0]["tokens_per_s"]))
    return markdown(
        [
            "size",
            "",
            "optimiser",
            "batch",
            "tokens/s",
            "share of the matmul rate",
            "peak memory, GiB",
            "commit",
        ],
        [
            [
                r["model"],
                names[r["framework"]],
                r["optimizer"],
                r["batch"],
                short(r["tokens_per_s"]),
                percent(r["mfu"]),
                decimal(r["peak_memory_gib"], 1),
                commit,
            ]
            for r, commit in rows
        ],
    )


@table("speed-ratios")
def speed_ratios() -> str:
    """Tokens/s divided by those of PyTorch with AdamW."""
    ratios = read("throughput.json")["torch_ratios"]
    return markdown(
        ["size", "AdamW here", "Muon here"],
        [
            [name, decimal(of.get("adamw"), 2), decimal(of.get("muon"), 2)]
            for name, of in sorted(ratios.items(), key=lambda kv: SIZES.index(kv[0]))
        ],
    )


@table("two-gpus")
def two_gpus() -> str:
    """One and two GPUs of one host."""
    rows = read("scaling.json")["rows"]
    before = "before 8c9b19d: one step split by the compiler, plain operations"
    find = lambda devices, mode, parallel, batch, experts, run: next(
        r
        for r in rows
        if (r["devices"], r["mode"], r["parallel"], r["batch"], r["experts"], r["run"])
        == (devices, mode, parallel, batch, experts, run)
    )
    of = {
        "87 M, data-parallel, `jit`, 512 windows": ("data", "jit", 512, 1, "batch 512"),
        "the same, `pmap`": ("data", "pmap", 512, 1, "batch 512"),
        "the same, `jit`, 256 windows": ("data", "jit", 256, 1, "batch 256"),
        "bank of 32 experts, 16 on each GPU": ("expert", "jit", 32, 32, "32 experts"),
        "bank of 16 experts, 8 on each GPU": ("expert", "jit", 32, 16, "batch 512"),
        "87 M, 256 windows, before 8c9b19d": ("data", "jit", 256, 1, before),
        "bank of 16 experts, before 8c9b19d": ("expert", "jit", 32, 16, before),
    }
    lines = []
    for name, (mode, parallel, batch, experts, run) in of.items():
        one = find(1, mode, "jit", batch, experts, run)
        two = find(2, mode, parallel, batch, experts, run)
        half = batch // 2
        per_gpu = [
            r["tokens_per_s"]
            for r in rows
            if mode == "data"
            and (r["devices"], r["mode"], r["batch"], r["run"]) == (1, "data", half, run)
        ]
        lines.append(
            [
                name,
                f"{one['tokens_per_s'] / 1e3:,.0f} K",
                f"{two['tokens_per_s'] / 1e3:,.0f} K",
                percent(two["efficiency"]),
                percent(two["tokens_per_s"] / 2 / per_gpu[0]) if per_gpu else None,
            ]
        )
    return markdown(
        [
            "work",
            "one GPU, tokens/s",
            "two GPUs, tokens/s",
            "share of twice one GPU",
            "of twice one GPU with half the windows",
        ],
        lines,
    )


@table("memory-plan")
def memory_plan() -> str:
    """Memory for each device, planned by the compiler."""
    gib = lambda r, key: f"{r[f'{key}_gib']:.1f} GiB"
    return markdown(
        ["parameters", "devices", "state", "temporary", "total"],
        [
            [
                f"{r['parameters'] / 1e9:.2f} B",
                r["devices"],
                *(gib(r, k) for k in ("state", "temporary", "total")),
            ]
            for r in read("memory_plan.json")["rows"]
        ],
    )


@table("router-cost")
def router_cost() -> str:
    """Tokens/s of routing, and the time relative to one expert."""
    rows = [r for r in read("router_cost.json")["rows"] if r["mode"] != "ngram"]
    named = lambda r: (
        "all experts"
        if r["mode"] == "exact"
        else (
            f"{r['min_candidates']} candidates of the bigram models"
            if r["mode"] == "cascade"
            else r["mode"]
        )
    )
    where = lambda r: "H100" if "H100" in r["device"] else "2 CPU cores"
    return markdown(
        [
            "device",
            "experts",
            "scored",
            "tokens/s",
            "time relative to one expert",
            "memory, GiB",
            "bigram models alone, tokens/s",
        ],
        [
            [
                where(r),
                r["experts"],
                named(r),
                f"{r['tokens_per_s']:,.0f}",
                f"{r['relative_cost']:.1f}",
                decimal(r["memory_gib"], 2),
                short(r["bigrams_tokens_per_s"]) if "bigrams_tokens_per_s" in r else None,
            ]
            for r in rows
        ],
    )


ATTENTION = {
    "static_kv": "static cache, bfloat16",
    "tlin": "TLinFormer",
    "tconst": "TConstFormer",
    "recurrent": "recurrent form (ours)",
    "sliding": "sliding window with sinks",
}


@table("long-context-speed")
def long_context_speed() -> str:
    """A step after N tokens of context, and tokens/s beside the static cache's."""
    found = read("long_context.json")
    expected = found["predicted"]["tokens_per_s_over_static_kv_by_formula"]
    lengths = sorted(found["speed"]["static_kv"], key=int)
    rows = []
    for arm, name in ATTENTION.items():
        for n in lengths:
            row = found["speed"][arm][n]
            rows.append(
                [
                    name,
                    f"{int(n):,}",
                    f"{row['hit_ms']:.2f} ms",
                    f"{row['sync_ms']:.1f} ms" if row["sync_ms"] else None,
                    f"{row['tokens_per_s']:,.0f}",
                    f"{found['ratios'][arm][n]['tokens_per_s']:.2f}",
                    f"{expected[arm][n]:.2f}",
                    f"{row['state_bytes'] / 1e6:,.1f} MB",
                ]
            )
    return markdown(
        [
            "attention",
            "tokens of context",
            "a step",
            "a sync",
            "tokens/s",
            "over static",
            "expected",
            "state",
        ],
        rows,
    )


@table("long-context-perplexity")
def long_context_perplexity() -> str:
    """Each arm after the same training, beside plain attention over as many tokens."""
    found, gap = (read("long_context.json")[key] for key in ("perplexity", "gap"))
    names = {**ATTENTION, "plain": "plain attention"}
    contexts = sorted(found["plain"], key=int)
    rows = []
    for arm in ("plain", "sliding", "tconst", "tlin"):
        row = [names[arm]]
        for n in contexts:
            more = gap["wiki"][arm].get(n)
            row.append(f"{found[arm][n]:.1f} ({100 * more:+.1f} %)" if n in found[arm] else None)
        rows.append(row)
    return markdown(["attention", *(f"{int(n):,} tokens of context" for n in contexts)], rows)
