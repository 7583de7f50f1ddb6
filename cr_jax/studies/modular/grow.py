"""What one more expert changes for the domains that were there: nobody's nats, only who is chosen.

Each domain in turn is held out from the experts and then joins them.  Not in the paper, whose claim
it is that old experts stay frozen.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from cr_jax.data.windows import Windows
from cr_jax.studies.modular.arms import ARMS, Arm, Plan
from cr_jax.studies.modular.measure import Models, joined, model_nats
from cr_jax.studies.modular.nats import DomainNats

RULES = ("top1", "top1_code_length", "top1_bigrams")  # arms that decide once
WINDOWS = 2  # of each domain, scored again without one expert


def grow(domains: Mapping[str, DomainNats], plan: Plan) -> dict[str, Any]:
    """What adding an expert changes, over windows that go on after the prefix.

    domains: of the experts' own, in the order of the experts.  -> of each arm of `RULES` that was
    measured its figures, those of "top1" also outside "rules": the means over the added domains of
    changed_share: of the other domains' windows that another expert speaks than before;
    others_ppl: their perplexity, beside what it was (1.01: 1 % higher);
    own_ppl: that of the added domain's windows likewise;
    per_domain: the same of each added domain.
    """
    arms = {arm.name: arm for arm in ARMS if arm.name in RULES}
    found = {name: figures for name in RULES if (figures := _of_rule(domains, plan, arms[name]))}
    return {**found.get("top1", {}), "rules": found}


def bit_identical(models: Models, windows: Mapping[str, Windows]) -> bool:
    """Whether all experts but the first predict the same, bit for bit, without it and beside it.

    windows: of every domain; a few of each are scored.
    """
    few = joined([w.spread(WINDOWS) for w in windows.values()])
    lms = models.language_models
    params = [lms.experts[n] for n in models.names]
    after = model_nats(models, lms.config, params, few)
    before = model_nats(models, lms.config, params[1:], few)
    return before.tobytes() == after[1:].tobytes()


def without(d: DomainNats, expert: int) -> DomainNats:
    """The nats as they were before an expert joined; who decides by other scores is left out."""
    less = lambda x: None if x is None else np.delete(x, expert, axis=0)
    return dataclasses.replace(
        d,
        experts=less(d.experts),
        code_length=less(d.code_length),
        bigrams=less(d.bigrams),
        sets={},
        choices={},
        label=None,
    )


def _of_rule(domains, plan: Plan, arm: Arm) -> dict[str, Any]:
    """{} where the arm was not measured."""
    after = {name: _chosen(arm, d, plan) for name, d in domains.items()}
    if any(chosen is None for chosen in after.values()):
        return {}
    per_domain = {}
    for place, added in enumerate(domains):
        changed, others, own = [], [], 0.0
        for name, d in domains.items():
            fewer = without(d, place)
            before = np.asarray(_chosen(arm, fewer, plan))
            late = d.mask & (np.arange(d.mask.shape[1]) >= plan.prefix)[None]
            gap = arm.speak(d, plan)[late].mean(dtype=np.float64) - arm.speak(fewer, plan)[
                late
            ].mean(dtype=np.float64)
            if name == added:
                own = float(gap)
                continue
            was = np.where(before >= place, before + 1, before)  # its place beside the new one
            changed.append(float((was != after[name])[late.any(-1)].mean()))
            others.append(float(gap))
        per_domain[added] = {
            "changed_share": float(np.mean(changed)),
            "others_ppl": math.exp(np.mean(others)),
            "own_ppl": math.exp(own),
        }
    rows = list(per_domain.values())
    mean = {
        "changed_share": float(np.mean([row["changed_share"] for row in rows])),
        **{
            k: math.exp(np.mean([math.log(row[k]) for row in rows]))
            for k in ("others_ppl", "own_ppl")
        },
    }
    return {**mean, "per_domain": per_domain}


def _chosen(arm: Arm, d: DomainNats, plan: Plan) -> Int[np.ndarray, " N"] | None:
    return arm.choose(d, plan) if arm.choose else None
