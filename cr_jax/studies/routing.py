"""Study `routing`: where windows of each expert's own domain go, and what is refused.

Claim (paper, routing rule): the compressor that rebuilds an input best is its domain's, and an
input that all rebuild badly is unknown.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from cr_jax.bank import ExpertBank
from cr_jax.routing.ranking import p_values, ranking_score
from cr_jax.scoring.wording import wording
from cr_jax.studies.evaluation import DomainScores
from cr_jax.studies.unknown.detection import auroc, fpr_at_95


def run(
    bank: ExpertBank, scores: Mapping[str, DomainScores], unseen: Sequence[str], alpha: float
) -> dict:
    """-> {"routing": accuracy and confusion, "ood": detection of `unseen` and of random tokens}.

    Accuracy is the mean over domains, so a long test set does not count more.  What is not known is
    told by `novelty_score`, the least over experts (AUROC, FPR95); "rejected" is the router's own
    rule, the winner's conformal p-value below alpha.  Beside the bank's rule stands the paper's:
    accuracy_rebuild by the least nats/token to rebuild a window, auroc_rebuild by that number.
    """
    own = [d for d in scores if d in bank.names]
    confusion, per_domain, by_tra, by_rebuilding = {}, {}, {}, {}
    rebuilt = {d: s.nll / s.tokens for d, s in scores.items()}
    for domain in own:
        won = _won(bank, scores[domain])
        confusion[domain] = {n: int((won == e).sum()) for e, n in enumerate(bank.names)}
        home = bank.index(domain)
        per_domain[domain] = float((won == home).mean())
        by_tra[domain] = float((scores[domain].tra.argmax(0) == home).mean())
        by_rebuilding[domain] = float((rebuilt[domain].argmin(0) == home).mean())
    strange = {d: novelty_score(bank, s).min(0) for d, s in scores.items()}
    rejected = {d: float((_winner_p(bank, s) < alpha).mean()) for d, s in scores.items()}
    known = np.concatenate([strange[d] for d in own])
    known_rebuilt = np.concatenate([rebuilt[d].min(0) for d in own])
    foreign = {
        d: {
            "auroc": auroc(known, strange[d]),
            "fpr95": fpr_at_95(known, strange[d]),
            "rejected_at_alpha": rejected[d],
            "auroc_rebuild": auroc(known_rebuilt, rebuilt[d].min(0)),
        }
        for d in scores
        if d not in own
    }
    ood = {
        "per_domain": foreign,
        "alpha": alpha,
        "false_alarm": float(np.mean([rejected[d] for d in own])),
        "accepted_own": {d: 1 - rejected[d] for d in own},
    }
    if unseen:
        ood["auroc_unseen_domain"] = float(np.mean([foreign[d]["auroc"] for d in unseen]))
        ood["auroc_unseen_worst"] = float(min(foreign[d]["auroc"] for d in unseen))
    if "random_tokens" in foreign:
        ood["auroc_random"] = foreign["random_tokens"]["auroc"]
    return {
        "routing": {
            "accuracy": float(np.mean(list(per_domain.values()))),
            "accuracy_tra": float(np.mean(list(by_tra.values()))),
            "accuracy_rebuild": float(np.mean(list(by_rebuilding.values()))),
            "chance": 1 / len(bank.names),
            "per_domain": per_domain,
            "confusion": confusion,
            "windows": int(sum(len(scores[d].tokens) for d in own)),
            "rule": f"argmin {wording(bank.scoring).ranking_score}",
        },
        "ood": ood,
    }


def novelty_score(bank: ExpertBank, s: DomainScores) -> np.ndarray:
    """[E, N]: a window's residual above the median of the expert's own validation residuals, in
    units of their upper spread (95th percentile minus median).  Not in the paper.

    A p-value says the same below the largest validation residual and is constant above it.
    """
    rows = []
    for e, name in enumerate(bank.names):
        kept = bank.calibration[name].residuals
        own = kept[max(kept)]
        middle, high = np.quantile(own, [0.5, 0.95])
        rows.append((s.residual[e] - middle) / max(high - middle, 1e-6))
    return np.stack(rows)


def _won(bank: ExpertBank, s: DomainScores) -> np.ndarray:
    return ranking_score(bank, s.residual, s.tokens).argmin(0)


def _winner_p(bank: ExpertBank, s: DomainScores) -> np.ndarray:
    residual = s.residual
    p = p_values(bank, residual, s.tokens)
    return np.take_along_axis(p, _won(bank, s)[None], 0)[0]
