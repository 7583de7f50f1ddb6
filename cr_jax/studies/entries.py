"""Studies of a finished run that are made when `config.studies` names them.

Each takes a `Context`, makes the windows that its study asks for, and lays the result out as a
table.  What a figure means stands in the study's own file.
"""

import itertools

import numpy as np

from cr_jax.scoring.batching import BatchSizes
from cr_jax.studies import (
    baselines,
    bits,
    blends,
    lengths,
    nested_latents,
    segment_curves,
    segments,
    weak_experts,
)
from cr_jax.studies.common import ATTACKS, MOST_WINDOWS, at_least, lengths_of, percent
from cr_jax.studies.interface import Context, Section, Study
from cr_jax.studies.unknown import ood

BLENDED = 64  # windows of each of the two domains of a blend
BASELINES = ("ngram", "naive_bayes", "zstd", "chance")  # those that read text once on the host


def cut_windows(context: Context) -> dict:
    """Where windows go of which only the first tokens are shown."""
    chosen = {n: w.spread(MOST_WINDOWS) for n, w in context.own_test.items()}
    cut = lengths.windows(chosen, lengths_of(context.bank.model.window))
    return {
        "lengths": lengths.run(
            context.bank.names, {length: context.measure(of) for length, of in cut.items()}
        )
    }


def lengths_section(report: dict) -> Section:
    figures = report["lengths"]
    return Section(
        "How much text routing needs",
        ("tokens", "routed to the own expert", "by TRA"),
        [
            (k, percent(figures["accuracy"][k]), percent(figures["accuracy_tra"][k]))
            for k in figures["accuracy"]
        ],
        f"Each row shows the experts the first tokens of a window only; chance is "
        f"{percent(figures['chance'])}.",
        "accuracy does not grow with the number of tokens.",
    )


def nearest_pair(context: Context) -> tuple[str, str]:
    """The two experts that lose least, in nats/token, on each other's test windows."""
    names, sums = context.bank.names, context.test_sums

    def distance(pair):
        a, b = pair
        return sum(
            float(np.mean(sums[x].residual[names.index(y)] - sums[x].residual[names.index(x)]))
            for x, y in ((a, b), (b, a))
        )

    return min(itertools.combinations(names, 2), key=distance)


def blended_windows(context: Context) -> dict:
    """Windows that mix the two nearest domains."""
    a, b = nearest_pair(context)
    of_a, of_b = (context.own_test[n].spread(BLENDED) for n in (a, b))
    curves = {
        layout: context.measure(
            blends.windows(of_a, of_b, layout=layout, seed=context.experiment.seed)
        )
        for layout in blends.LAYOUTS
    }
    return {"blends": blends.run(context.bank.names, a, b, curves)}


def blends_section(report: dict) -> Section:
    figures = report["blends"]
    curves = figures["layouts"]
    shares = next(iter(curves.values()))["share"]
    return Section(
        f"Windows that mix {figures['a']} and {figures['b']}",
        (f"share of {figures['a']}", *(f"to {figures['a']}, {layout}" for layout in curves)),
        [
            (f"{share:g} %", *(percent(curve["won_a"][i]) for curve in curves.values()))
            for i, share in enumerate(shares)
        ],
        f"Each row gives the share of windows that go to {figures['a']}'s expert when so much of a "
        f"window's text is {figures['a']} and the rest {figures['b']}, the two nearest domains.",
        "the share that goes to an expert does not grow with the share of its own text.",
    )


def latent_bits(context: Context) -> dict:
    """What z costs in bits, of each expert on its own domain."""
    bank, of_expert = context.bank, {}
    for name in bank.names:
        full = {
            split: w.tokens[w.mask.all(-1)][:MOST_WINDOWS]
            for split, w in (("test", context.text.test[name]), ("valid", context.text.valid[name]))
        }
        text = "".join(map(bank.tokenizer.decode, full["test"])).encode("utf-8", "replace")
        of_expert[name] = bits.run(
            bank.model,
            bank.expert_params(name),
            full["test"],
            full["valid"],
            batch=context.experiment.eval.batch,
        ) | bits.raw_bits(full["test"], bank.tokenizer.vocab_size, text)
    return {"bits": of_expert}


def bits_section(report: dict) -> Section:
    experts = report["bits"]
    first = next(iter(experts.values()))
    return Section(
        "What the latents cost in bits",
        ("expert", "numbers of z as", "bits/token", "bits/token, entropy", "TRA"),
        [
            (
                name,
                row["scheme"],
                f"{row['bits_per_token']:.1f}",
                "–"
                if row["entropy_bits_per_token"] is None
                else f"{row['entropy_bits_per_token']:.1f}",
                percent(row["tra"]),
            )
            for name, of in experts.items()
            for row in of["rows"]
        ],
        f"{first['says']}; a raw token id takes {first['raw_id_bits_per_token']:.1f} bits.",
        "TRA does not fall as the numbers of z get fewer bits.",
    )


def fitted_offsets(context: Context) -> dict:
    """What is taken off each expert's residual so that it wins its own validation windows."""
    names = context.bank.names
    valid, test = (
        {n: sums[n].residual for n in names} for sums in (context.valid_sums, context.test_sums)
    )
    share, offsets = weak_experts.choose(valid, names)
    none = np.zeros(len(names))
    return {
        "offsets": {
            "share": share,
            "offsets": dict(zip(names, offsets.tolist(), strict=True)),
            "accuracy": {
                split: {
                    "without": weak_experts.accuracy(r, names, none),
                    "with": weak_experts.accuracy(r, names, offsets),
                }
                for split, r in (("valid", valid), ("test", test))
            },
        }
    }


def offsets_section(report: dict) -> Section:
    figures = report["offsets"]
    accuracy = figures["accuracy"]
    return Section(
        "Offsets for experts that lose their own text",
        ("expert", "offset, nats/token"),
        [(name, f"{value:.4f}") for name, value in figures["offsets"].items()],
        "An offset is taken off an expert's residual before experts are ranked; it is fitted on "
        "validation windows.",
        "windows of test are routed worse with offsets than without.",
        f"routing of test windows: {percent(accuracy['test']['without'])} without offsets, "
        f"{percent(accuracy['test']['with'])} with them.",
    )


def unknown_rules(context: Context) -> dict:
    """How well several rules tell text that no expert knows, attacks among it."""
    names, bank = context.bank.names, context.bank
    foreign = {n: w for n, w in context.text.test.items() if n not in names}
    inputs = ood.windows(
        bank.tokenizer, context.own_test, foreign, ATTACKS, context.experiment.seed
    )
    made = {n: w for n, w in inputs.items() if n not in context.text.test}
    test = {**context.test_sums, **context.measure(made)}
    valid = ood.signals(context.valid_sums, context.text.valid)
    return {"unknown_rules": ood.run(names, valid, ood.signals(test, inputs))}


def unknown_section(report: dict) -> Section:
    figures = report["unknown_rules"]
    return Section(
        "Rules that tell unknown text",
        ("rule", "AUROC", "worst", "attacks let in", "false alarm"),
        [
            (
                rule,
                f"{s['auroc']:.3f}",
                f"{s['auroc_worst']:.3f}",
                percent(s["attack_accept"]),
                percent(s["false_alarm"]),
            )
            for rule, s in figures["scores"].items()
        ],
        "Each row is a rule fitted on validation windows of known domains; AUROC is a mean over "
        "domains left out in turn and unseen ones, and attacks are easy texts of no domain.",
        "AUROC is near 0.5, or false alarms on test are far above "
        f"{percent(figures['target_false_alarm'])}.",
        f"chosen on validation windows: {figures['rule']}.",
    )


def host_baselines(context: Context) -> dict:
    """What counts and a compressor make of the same windows, without any training."""
    return {
        "baselines": baselines.run(
            context.text, context.experiment, lengths_of(context.bank.model.window), BASELINES
        )
    }


def baselines_section(report: dict) -> Section:
    routers = report["baselines"]
    shown = [k for k in next(iter(routers.values())) if k.isdecimal()]
    return Section(
        "Other ways to route the same text",
        ("router", *(f"{k} tokens" for k in shown)),
        [(name, *(percent(of[k]) for k in shown)) for name, of in routers.items()],
        "Each row gives the share of test windows, cut to their first tokens, that another method "
        "gives to their own domain (mean over domains).",
        "a cheaper method routes as well as the experts do.",
    )


def some_latents(context: Context) -> dict:
    """What the first k latents rebuild, of each expert on its own domain."""
    ks = nested_latents.numbers(context.bank.model.latents)
    sizes = BatchSizes(windows=context.experiment.eval.batch)
    return nested_latents.run(context.bank, context.own_test, ks, sizes)


def latents_section(report: dict) -> Section:
    figures = report["nested_latents"]
    return Section(
        "Rebuilt from the first latents",
        ("expert", *(f"{k} latents" if k > 1 else "1 latent" for k in figures["k"])),
        [(name, *map(percent, row)) for name, row in figures["tra"].items()],
        "Each row gives the TRA of one expert on its own test windows when the decoder gets only "
        "the first latents.",
        "TRA does not grow with the number of latents.",
    )


def cut_texts(context: Context) -> dict:
    """Whether texts are cut where their domain changes."""
    names, settings = context.bank.names, context.experiment.eval
    valid = {n: context.text.valid[n] for n in names}
    sizes = BatchSizes.of(settings)
    bank, test, seed = context.bank, context.own_test, context.experiment.seed
    found = segments.run(bank, valid, test, seed, sizes)["segments"]
    of_study = (bank, test, found["chosen"], seed, sizes)
    curves, document = segment_curves.curves(*of_study), segment_curves.one_text(*of_study)
    return {"segments": {**found, "curves": curves, "document": document}}


def segments_section(report: dict) -> Section:
    found = report["segments"]
    return Section(
        "Texts cut where their domain changes",
        ("way", "tokens right", "F1 within 8 tokens", "within 32", "Pk", "WindowDiff", "error"),
        [
            (
                name,
                percent(row["token_accuracy"]),
                f"{row['boundary_f1']:.3f}",
                f"{row['boundary_f1_32']:.3f}",
                f"{row['pk']:.3f}",
                f"{row['windowdiff']:.3f}",
                f"{row['error']:.1f}",
            )
            for name, of in found["baselines"].items()
            for row in (of["splices"],)
        ],
        "Spliced test texts whose pieces have 128 to 2,048 tokens; F1 of boundaries, Pk and "
        "WindowDiff (lower is better), and the median distance in tokens from a switch to the "
        "nearest cut.  Known switches say what the names alone cost.",
        "fixed windows find the switches as well.",
        f"windows that begin anew add {found['reset_gain']:+.3f} to F1 within 8 tokens.",
    )


ENTRIES = (
    Study("lengths", cut_windows, lengths_section),
    Study("blends", blended_windows, blends_section, at_least(2)),
    Study("bits", latent_bits, bits_section),
    Study("offsets", fitted_offsets, offsets_section, at_least(2)),
    Study("unknown_rules", unknown_rules, unknown_section, at_least(3)),
    Study("segments", cut_texts, segments_section, at_least(2)),
    Study("nested_latents", some_latents, latents_section, nested_latents.check),
    Study("baselines", host_baselines, baselines_section, at_least(2)),
)
