"""The study of a finished run, and its section of the report."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from cr_jax.bank import ExpertBank
from cr_jax.config import Experiment
from cr_jax.data.windows import Windows
from cr_jax.router import score_bank
from cr_jax.scoring.batching import BatchSizes
from cr_jax.studies.common import at_least, percent
from cr_jax.studies.continual.measured import of_run
from cr_jax.studies.continual.rivals import compare
from cr_jax.studies.continual.table import study
from cr_jax.studies.interface import Context, Section, Study

FEW = 2  # windows of a domain, scored again by fewer experts


def run(context: Context) -> dict:
    """-> {"continual": `table.study` of the run's scores, "before_routing" also "bit_identical",
    and where the run has rivals "methods" (`rivals.compare.run`), in "methods_order"}."""
    scores = of_run(context)
    found = study(scores)
    found["before_routing"]["bit_identical"] = bit_identical(
        context.bank,
        {n: w.spread(FEW) for n, w in context.own_test.items()},
        context.experiment.eval.batch,
    )
    order = context.experiment.continual.order
    if context.experiment.continual.rivals:
        found["methods"] = compare.run(
            context, scores, found["orders"][order], found["chosen"], _say
        )
        found["methods_order"] = order
    return {"continual": found}


def bit_identical(bank: ExpertBank, windows: Mapping[str, Windows], batch: int) -> bool:
    """Whether the first half of the experts scores the same, bit for bit, before the others are
    mounted and beside them.

    One expert after another: how many share a program changes how it rounds.  batch: windows of one
    call.
    """
    half = max(2, len(bank.names) // 2)
    before, sizes = bank.select(bank.names[:half]), BatchSizes(1, batch)
    return all(
        score_bank(bank, w, sizes).residual[:half].tobytes()
        == score_bank(before, w, sizes).residual.tobytes()
        for w in windows.values()
    )


def section(report: dict) -> Section:
    found = report["continual"]
    rules = found["rules"]
    shown = dict.fromkeys(("plain", *found["chosen_by_family"].values()))
    return Section(
        "Domains that arrive one after another",
        (
            "ranked by",
            "routed right at the end",
            "BWT",
            "flips per mount",
            "away from the own expert",
            "kept of a domain",
        ),
        [
            (
                name,
                percent(rules[name]["acc"]),
                points(rules[name]["bwt"]),
                f"{rules[name]['flip_rate']:.2%}",
                f"{rules[name]['lost_rate']:.2%}",
                f"{rules[name]['stored_bytes']:,.0f} bytes"
                + (" and text" if rules[name]["keeps_text"] else ""),
            )
            for name in shown
            if name in rules
        ],
        f"Each row is a rule that chooses among the experts that have come, with the setting that "
        f"is best on validation windows; figures are means over {len(found['orders'])} orders of "
        "arrival. BWT: how much fewer windows of a domain are routed right at the end than when "
        "its expert came, in points; a flip is a window of an old domain that goes to another "
        "expert after a mount than before.",
        "the experts rebuild old text worse after a mount, or no rule has fewer flips than the "
        "lowest residual (plain) at the same accuracy.",
        finding(found),
    )


def finding(found: dict[str, Any]) -> str:
    """What the figures say, in sentences."""
    plain, chosen = (found["rules"][n] for n in ("plain", found["chosen"]))
    still = found["before_routing"]
    kept = (
        "stay as they were, bit for bit"
        if still["constant"] and still.get("bit_identical", True)
        else "do NOT stay as they were"
    )
    worst = found["pairs"]["plain"][:1]
    said = (
        f"Old experts {kept}; what is lost is lost in routing: BWT {points(plain['bwt'])} points "
        f"and {plain['flip_rate']:.2%} flips per mount by the lowest residual, "
        f"{points(chosen['bwt'])} and {chosen['flip_rate']:.2%} by {found['chosen']}, which "
        "validation windows chose."
    )
    if worst:
        said += (
            f" Most are {worst[0]['domain']} taken by {worst[0]['expert']}: "
            f"{worst[0]['share']:.1%} of its windows, by {worst[0]['lead']:.3f} nats/token."
        )
    return said


def points(share: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * share:+.2f}" if np.isfinite(share) else "–"


def check(experiment: Experiment) -> None:
    """`UserError` before text is read, where there are too few domains or rivals cannot learn."""
    at_least(3)(experiment)
    compare.check(experiment)


def _say(line: str) -> None:
    tqdm.write(line)  # rivals take as long as the experts did


STUDY = Study("continual", run, section, check)
