"""The study of a finished run, and its section of the report."""

import dataclasses
from typing import Any

import numpy as np

from cr_jax.errors import UserError
from cr_jax.modular.score import stacked
from cr_jax.studies import baselines
from cr_jax.studies.interface import Section, Study
from cr_jax.studies.modular import careful
from cr_jax.studies.modular import models as run_models
from cr_jax.studies.modular.arms import Plan, all_arms
from cr_jax.studies.modular.documents import spoken_documents
from cr_jax.studies.modular.grow import bit_identical, grow
from cr_jax.studies.modular.measure import Models, measure
from cr_jax.studies.modular.merges import Merged, fit, with_merged
from cr_jax.studies.modular.splices import splices
from cr_jax.studies.modular.table import PREFIXES, margins, scheduling, table

WINDOWS, VALID, SPLICED = 256, 128, 128  # windows of a domain on test and valid, and of splices
MAIN = 64  # tokens of the prefix that the first table shows
MIXED = "mixed"  # the unseen domain of documents that switch between kinds


def run(context: Any) -> dict:
    """-> {"modular": {"arms", "prefix", "mixed", "partition", "grow", "scheduling",
    "scheduling_flops_share", "settings"}}.

    And "modular_document", windows with who speaks each token (`documents.spoken_documents`); it
    has text of the run in it.
    "mixed": the same tables of splices of two domains and, where the run has such an unseen domain,
    of real documents.  "partition": by k the figures of the parts' models after the main prefix.
    "grow": what each expert changes that is added last (`grow`), and "bit_identical".
    `UserError` where the run has no language models or its windows are too short.
    """
    language_models = run_models.of_run(context)
    names, window = context.bank.names, context.bank.model.window
    prefixes = tuple(n for n in PREFIXES if n < window) or (window // 2,)
    if window < 2:
        raise UserError("windows of one token leave nothing after a prefix; use longer ones")
    main = MAIN if MAIN in prefixes else prefixes[-1]
    own = {n: context.text.test[n].spread(WINDOWS) for n in names}
    spliced, label = splices(own, SPLICED, context.experiment.seed)
    windows = {**own, "spliced": spliced}
    if MIXED in context.text.test and MIXED not in names:
        windows[MIXED] = context.text.test[MIXED].spread(WINDOWS)
    labels = {n: np.full(w.mask.shape, e) for e, (n, w) in enumerate(own.items())}
    labels["spliced"] = label
    gate, left_out = _gate(context, prefixes)
    scored = Models(context, language_models, gate)
    nats = measure(scored, windows, prefixes, labels)
    plan = Plan(main, every=min(64, window - 1))
    valid = {n: context.text.valid[n].spread(VALID) for n in names}
    bare = Models(context, _experts_only(language_models))
    on_valid = measure(bare, valid, (), {})
    if all(d.bigrams is not None for d in on_valid.values()):
        plan = dataclasses.replace(
            plan, margins=margins(on_valid, prefixes, plan.most, language_models.config)
        )
    plan = dataclasses.replace(plan, rules=careful.fit([on_valid[n] for n in names], prefixes))
    merges = _merges(context, language_models)
    tempers = fit(merges, valid, on_valid, prefixes)
    nats = with_merged(merges, windows, nats, tempers)
    facts, arms = run_models.facts(language_models), all_arms(scored.sets)
    domains = {n: nats[n] for n in names}
    tables = table(domains, plan, facts, prefixes, arms)
    cost = scheduling(domains, plan, language_models.config, prefixes)
    after = tables["prefix"][str(main)]["after"]
    return {
        "modular": {
            **tables,
            "mixed": {
                n: table({n: d}, plan, facts, prefixes, arms)
                for n, d in nats.items()
                if n not in names
            },
            "partition": {
                n.removeprefix("partition_"): after[n] for n in after if n.startswith("partition_")
            },
            "grow": {"bit_identical": bit_identical(scored, own), **grow(domains, plan)},
            "scheduling": cost,
            "scheduling_flops_share": cost[str(main)]["flops_share"] if cost else None,
            "settings": {
                "main_prefix": main,
                "every": plan.every,
                "often": plan.often,
                "switch": plan.switch,
                "most_candidates": plan.most,
                "careful": careful.described(plan.rules),
                "merged": {str(n): _finite(rule) for n, rule in tempers.items()},
                "left_out": left_out,
                "windows": {n: len(d.mask) for n, d in nats.items()},
                "tokens": {n: int(d.mask.sum()) for n, d in nats.items()},
            },
        },
        "modular_document": spoken_documents(
            spliced, nats["spliced"], names, context.bank.tokenizer
        ),
    }


def _gate(context: Any, prefixes: tuple[int, ...]) -> tuple[baselines.Baseline | None, dict]:
    """(a learned gate of a compressor's size, why there is none).

    Half of its training windows are cut to a length between the shortest prefix and all.
    """
    try:
        return baselines.fit("gate", context.text, context.experiment, prefixes), {}
    except UserError as error:  # the other arms are worth more than it
        return None, {"gate": str(error)}


def _merges(context: Any, models: run_models.LanguageModels) -> Merged:
    params = stacked([models.experts[n] for n in context.bank.names])
    return Merged(models.config, params, context.experiment.eval.batch)


def _finite(rule: dict[str, float]) -> dict[str, float | None]:
    """JSON has no infinity: null is the nearest expert alone."""
    return {k: v if v < np.inf else None for k, v in rule.items()}


class _experts_only:
    """A run's language models without those that are compared."""

    def __init__(self, models: run_models.LanguageModels):
        self.config, self.seed, self.experts = models.config, models.seed, models.experts
        self.arms: dict = {}


def section(report: dict) -> Section:
    """The arms over the tokens after the main prefix."""
    measured = report["modular"]
    main = measured["settings"]["main_prefix"]
    part = measured["prefix"][str(main)]
    rows = sorted(part["after"].items(), key=lambda item: _mean(item[1]["bits_per_byte"]))
    return Section(
        "Language models, scheduled by compression",
        (
            "who speaks",
            "perplexity beside dense",
            "beside the label's expert",
            "bits/byte",
            "parameters that speak",
            "in all",
        ),
        [
            (
                name + (" (a bound)" if row["bound"] else ""),
                _ratio(row["mean_ppl_vs_dense"]),
                _ratio(row["mean_ppl_vs_label"]),
                f"{_mean(row['bits_per_byte']):.3f}",
                _millions(row["active_params"]),
                _millions(row["total_params"]),
            )
            for name, row in rows
        ],
        f"Each row is who predicts the tokens after the first {main} of each test window, all over "
        "the same tokens; figures are means over domains of equal weight.  What decides reads "
        f"the first {main} tokens, or those before each token.",
        "the expert that compresses a text's beginning best does not predict its rest better than "
        "one model of the same size that was trained on all domains.",
        _finding(main, part["agreement"].get("top1", {}), measured["grow"]),
    )


def _finding(main: int, agreement: dict, grown: dict) -> str:
    said = ""
    if agreement:
        other = agreement["other_better"]
        said = (
            f"The first {main} tokens choose the label's expert in {agreement['label']:.1%} of "
            "windows"
            + (
                ""
                if other is None
                else f"; of the others {other:.0%} are predicted better than by it"
            )
            + ". "
        )
    return said + (
        "With each domain's expert added last in turn, "
        f"{grown['changed_share']:.2%} of the other domains' windows are spoken by another one "
        f"than before, and their perplexity changes by {_ratio(grown['others_ppl'], 2)}; that of "
        f"the domain that was added by {_ratio(grown['own_ppl'])}. The experts that were there "
        + ("predict" if grown["bit_identical"] else "do NOT predict")
        + " the same, bit for bit."
    )


def _mean(values) -> float:
    return float(np.mean(list(values.values())))


def _ratio(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * (value - 1):+.{digits}f} %"


def _millions(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e6:.1f} M"


STUDY = Study("modular", run, section, run_models.check)
