"""The study `witnesses` of a finished run, and its section of the report."""

from collections.abc import Mapping

import numpy as np

from cr_jax.bank import ExpertBank
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.router import score_experts
from cr_jax.scoring import residuals
from cr_jax.scoring.batching import BatchSizes, checked
from cr_jax.scoring.devices import scored
from cr_jax.studies.common import ATTACKS, MOST_WINDOWS, at_least, lengths_of, percent
from cr_jax.studies.interface import Context, Section, Study
from cr_jax.studies.unknown import leave_out, ood, token_statistics
from cr_jax.studies.unknown.own_text import COPIED, OwnText
from cr_jax.studies.unknown.token_statistics import Nats, TokenStatistics

SHORTEST = 16  # tokens of a cut window


def run(context: Context) -> dict:
    """-> {"unknown_witnesses": what `leave_out.run` finds on whole windows; in each witness also
    "by_length", the figures of windows cut to their first tokens; "windows": of a domain, at most;
    "own_copied": share of the experts' own test windows that stand in training text}.

    Every window is scored once where the bank's rule reads from left to right, and once more for
    each length where it does not.
    """
    bank = context.bank
    names, whole = bank.names, bank.model.window
    lengths = tuple(n for n in lengths_of(whole) if SHORTEST <= n < whole)
    most = token_statistics.most_windows(
        len(names), 2 * len(names) * (1 + len(lengths)), MOST_WINDOWS
    )
    own_text = OwnText(names, context.text.train)
    valid = _measured(
        context, own_text, {n: context.text.valid[n].spread(most) for n in names}, lengths
    )
    own = {n: w.spread(most) for n, w in context.own_test.items()}
    test = _measured(context, own_text, own, lengths)
    foreign = {n: w.spread(most) for n, w in context.text.test.items() if n not in names}
    inputs = ood.windows(bank.tokenizer, own, foreign, ATTACKS, context.experiment.seed)
    inputs = {n: w for n, w in inputs.items() if n not in names}
    strange = _measured(context, own_text, inputs)
    copies = OwnText(names, context.text.train, COPIED)
    copied = {n: copies.holds(w) for n, w in inputs.items()}
    rule = leave_out.Rule(bank.scoring.typicality_weight)
    found = leave_out.run(names, valid[whole], {**test[whole], **strange[whole]}, rule, copied)
    for entry in found["witnesses"].values():
        entry["by_length"] = {}
    for length in lengths:
        try:
            cut = leave_out.run(names, valid[length], test[length], rule)["witnesses"]
        except UserError:  # a domain has no windows that long
            continue
        for witness, entry in found["witnesses"].items():
            figures = (*leave_out.FIGURES, leave_out.ALARM)
            entry["by_length"][str(length)] = {k: cut[witness][k] for k in figures}
    own_copied = float(np.mean(np.concatenate([copies.holds(w) for w in own.values()])))
    return {"unknown_witnesses": {**found, "windows": most, "own_copied": own_copied}}


def _measured(
    context: Context,
    own_text: OwnText,
    windows: Mapping[str, Windows],
    lengths: tuple[int, ...] = (),
) -> dict[int, dict[str, TokenStatistics]]:
    """Of each length, and of whole windows, each domain's statistics."""
    bank, settings = context.bank, context.experiment.eval
    sizes = BatchSizes.of(settings)
    by_length: dict[int, dict[str, TokenStatistics]] = {
        n: {} for n in (*lengths, bank.model.window)
    }
    for name, of in windows.items():
        score = lambda block: _nats(bank, block, sizes)
        found = token_statistics.measure(score, of, lengths, bank.scoring.predicted, own_text)
        for length, statistics in found.items():
            by_length[length][name] = statistics
    return by_length


def _nats(bank: ExpertBank, windows: Windows, sizes: BatchSizes) -> Nats:
    sizes, rule = checked(bank, windows, sizes)
    scorer = residuals.Scorer(residuals.token_surprises, bank.model, rule)
    found = scored(score_experts, scorer, bank.weights, windows, sizes)
    return Nats(found.residual, found.surprise)


def section(report: dict) -> Section:
    found = report["unknown_witnesses"]
    best = found["witnesses"][found["default"]]
    attacks = [
        f"{name.removeprefix(ood.ATTACK)} {percent(1 - cell['reject_at_1pct'])}"
        for name, cell in best["per_domain"].items()
        if cell["kind"] == "attack" and cell["reject_at_1pct"] < 1
    ]
    return Section(
        "Witnesses of unknown text",
        (
            "witness",
            "AUROC",
            "FPR at 95 % TPR",
            "refused",
            "false alarms",
            "easy inputs let in",
            "without copies",
        ),
        [
            (
                name,
                f"{of['auroc']:.3f}",
                percent(of["fpr95"]),
                percent(of["reject_at_1pct"]),
                percent(of["false_alarm_at_1pct"]),
                percent(of["attack_accept"]),
                percent(of["attack_accept_strange"]),
            )
            for name, of in found["witnesses"].items()
        ],
        "Each row is a number that says how unlike its winner's own text a window is, fitted on "
        "validation windows of the experts' own domains; the figures are means over domains left "
        f"out in turn, the last four at {percent(found['target_false_alarm'])} wanted false "
        "alarms.  Copies: easy inputs of which half of the runs of eight tokens stand in one "
        f"expert's training text, as {percent(found['own_copied'])} of the experts' own test "
        "windows do.",
        "no joined witness has a higher AUROC than the residual.",
        f"chosen on validation windows: {found['default']}"
        + (f"; it lets in {', '.join(attacks)}." if attacks else "."),
    )


STUDY = Study("witnesses", run, section, at_least(3))
