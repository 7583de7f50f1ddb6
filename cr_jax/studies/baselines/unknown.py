"""Leave one domain out: is its text told from the others' when it has no score of its own?

The domain's row is dropped from the scores [E, N]; nothing is fitted again.  For a baseline that
fits each domain alone that is the real experiment; one that saw all domains together has learnt
from the text it is then asked to find strange, and its figures are optimistic.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from cr_jax.studies.unknown.detection import auroc, fpr_at_95


def novelty_score(
    scores: Float[np.ndarray, "E N"],
    tokens: Int[np.ndarray, " N"],
    unit: str,
    own: Float[np.ndarray, "E 2"],
) -> dict[str, Float[np.ndarray, " N"]]:
    """Rule -> how strange each window is to all domains.

    max_score: the largest score, negated.  calibrated: how far the scores are below the median
    that each domain's own validation windows have, in units of their lower spread (`own`: median,
    5th percentile), the least over domains; `studies.routing` treats residuals so.  posterior: log
    of (1 - the largest posterior) at equal priors, for logits and mean log-likelihoods.
    """
    by_rule = {"max_score": -scores.max(0)}
    spread = np.maximum(own[:, 0] - own[:, 1], 1e-9)
    by_rule["calibrated"] = ((own[:, :1] - scores) / spread[:, None]).min(0)
    if unit in ("logit", "nats/token") and len(scores) > 1:
        total = scores * tokens[None] if unit == "nats/token" else scores
        ranked = np.sort(total - total.max(0)[None], axis=0)
        # 1 - p is the others' share; its logarithm keeps what 1.0 - 1e-300 would lose.
        rest = ranked[-2] + np.log(np.exp(ranked[:-1] - ranked[-2][None]).sum(0))
        by_rule["posterior"] = rest - np.logaddexp(rest, 0)
    return by_rule


def leave_one_out(
    scores: Mapping[str, Float[np.ndarray, "E N"]],
    tokens: Mapping[str, Int[np.ndarray, " N"]],
    unit: str,
    own: Float[np.ndarray, "E 2"],
) -> dict[str, dict[str, dict[str, float]]]:
    """Rule -> domain -> {"auroc", "fpr95"}, of test scores at one length.

    The first E domains of `scores` have a row each, in that order; further ones have none and are
    told from all E domains.  Known windows are those of the other domains, pooled.
    """
    names, by_rule = list(scores), {}
    for d, name in enumerate(names):
        kept = np.arange(len(own)) != d
        if not kept.any():
            continue
        strange = {
            n: novelty_score(scores[n][kept], tokens[n], unit, own[kept])
            for i, n in enumerate(names)
            if i == d or i < len(own)
        }
        for rule in strange[name]:
            known = np.concatenate([s[rule] for n, s in strange.items() if n != name])
            by_rule.setdefault(rule, {})[name] = {
                "auroc": auroc(known, strange[name][rule]),
                "fpr95": fpr_at_95(known, strange[name][rule]),
            }
    return by_rule
