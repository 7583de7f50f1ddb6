"""Study `fingerprint`: the paper's table, every expert on every domain.

Claim (paper, results): a compressor rebuilds its own domain almost perfectly and others badly.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from cr_jax.studies.evaluation import DomainScores

BINS = 40


def run(names: Sequence[str], scores: Mapping[str, DomainScores]) -> dict:
    """-> {"fingerprint": {expert: {domain: metrics}}, "residuals": {expert: {domain: histogram}}}.

    Cells hold tra, window_exact, majority_tra (shares), nll (nats/token, all tokens seen),
    bits_per_byte, residual (nats/token by the bank's rule).
    """
    table = {
        expert: {domain: s.metrics(e) for domain, s in scores.items()}
        for e, expert in enumerate(names)
    }
    top = max(np.percentile(s.residual, 99.5) for s in scores.values())
    edges = np.linspace(0.0, float(top), BINS + 1)
    histograms = {
        expert: {
            domain: {
                "edges": edges.tolist(),
                "counts": np.histogram(np.clip(s.residual[e], 0, top), edges)[0].tolist(),
            }
            for domain, s in scores.items()
        }
        for e, expert in enumerate(names)
    }
    return {"fingerprint": table, "residuals": histograms}
