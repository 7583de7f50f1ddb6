"""Tables of the law of capacity: how many tokens fit into M latents."""

from benchmarks.tables.registry import decimal, interval, markdown, read, table

TERMS = {
    "latents": "number of latents M",
    "d_latent": "width of a latent d_z",
    "budget_tokens": "training tokens",
    "d_model": "width of the model",
    "xz_bits": "entropy of the text (bits of xz)",
}


def tokens(row: dict) -> str:
    """L*, or the side on which it lies outside the measured windows."""
    sign = {"": "", "above": "> ", "below": "< "}[row["censored"]]
    return f"{sign}{row['window']:.1f}"


def measured(miss: dict) -> str:
    """What a predicted setting then held."""
    if miss["measured"]:
        return f"{miss['measured']:,.0f}"
    return f"{'> ' if 'above' in miss['censored'] else '< '}{miss['limit']:,.0f}"


def numbers(miss: dict) -> str | None:
    """Latent numbers that a token takes at the measured L*."""
    at = miss["setting"]
    return miss["measured"] and f"{at['latents'] * at['d_latent'] / miss['measured']:.1f}"


def verdict(miss: dict) -> str:
    """Whether the prediction held; open when only a bound inside the interval is known."""
    if miss["measured"]:
        return "inside" if miss["inside"] else "missed"
    low, high = miss["predicted"]["low"], miss["predicted"]["high"]
    return "open" if low <= miss["limit"] <= high else "missed"


@table("law-cpu")
def law_cpu() -> str:
    """Exponents and predictions of the small grid on two CPU cores."""
    found = read("ablation.json")
    return markdown(
        ["M", "d_z", "predicted L*", "measured"],
        [
            [
                m["setting"]["latents"],
                m["setting"]["d_latent"],
                "{:.1f} [{:.1f}, {:.1f}]".format(
                    *(m["predicted"][k] for k in ("window", "low", "high"))
                ),
                decimal(m["measured"], 1),
            ]
            for m in found["misses"]
        ],
    )


@table("law-sources")
def law_sources() -> str:
    """L* of four sources on a CPU."""
    found = read("ablation_axes/cpu_sources.json")
    names = {
        "stdlib": "Python",
        "novels_en": "English novels",
        "random10": "10 symbols, uniform",
        "random94": "94 symbols, uniform",
    }
    rows = []
    for domain, name in names.items():
        of = {
            (r["latents"], r["d_latent"]): r
            for r in found["against_bound"]["0.99"]
            if r["domain"] == domain
        }
        miss = next(m for m in found["misses"] if m["setting"]["domain"] == domain)
        rows.append(
            [
                name,
                decimal(miss["setting"]["xz_bits"], 2),
                *(tokens(of[key]) for key in ((4, 16), (4, 32), (8, 16))),
                interval(*(miss["predicted"][k] for k in ("window", "low", "high"))),
                measured(miss),
            ]
        )
    return markdown(
        [
            "source",
            "bits/byte of xz",
            "M=4, d_z=16",
            "M=4, d_z=32",
            "M=8, d_z=16",
            "M=8, d_z=32 predicted",
            "measured",
        ],
        rows,
    )


@table("law-exponents")
def law_exponents() -> str:
    """Exponents of the law on a GPU at two thresholds."""
    laws = read("law_gpu/ablation.json")["laws"]
    cell = lambda law, term: "{:.2f} [{:.2f}, {:.2f}]".format(
        law["exponents"][term]["value"], *law["exponents"][term]["interval_95"]
    )
    return markdown(
        ["L* grows with", "exponent at TRA 99 %", "at TRA 95 %"],
        [
            [name, cell(laws["0.99"], term), cell(laws["0.95"], term)]
            for term, name in TERMS.items()
        ],
    )


@table("law-predictions")
def law_predictions() -> str:
    """What was written down before it was measured, and what was measured."""
    names = {
        "code_python": "Python",
        "wiki": "Wikipedia",
        "uniform": "uniform ids",
        "code_gpt2": "Python, GPT-2's ids",
    }
    rows = []
    for miss in read("law_gpu/ablation.json")["misses"]:
        at = miss["setting"]
        rows.append(
            [
                names[at["domain"]],
                at["latents"],
                at["d_latent"],
                interval(*(miss["predicted"][k] for k in ("window", "low", "high"))),
                measured(miss),
                numbers(miss),
                verdict(miss),
            ]
        )
    return markdown(
        ["text", "M", "d_z", "predicted L* (tokens)", "measured", "numbers per token", ""], rows
    )


@table("law-capacities")
def law_capacities() -> str:
    """L* of the settings that the law was fitted on, at width 256 and 3.1 M training tokens."""
    rows: dict[tuple, dict] = {}
    for r in read("law_gpu/ablation.json")["against_bound"]["0.99"]:
        if r["d_model"] == 256 and r["budget_tokens"] == 3072000 and r["latents"] < 16:
            rows.setdefault((r["latents"], r["d_latent"]), {})[r["domain"]] = r
    cell = lambda r: f"{tokens(r)} ({r['numbers_per_token']:.1f})"
    return markdown(
        ["M", "d_z", "Python", "Wikipedia", "uniform ids"],
        [
            [m, d, *(cell(of[name]) for name in ("code_python", "wiki", "uniform"))]
            for (m, d), of in sorted(rows.items())
        ],
    )
