"""Flips: windows of domains that were there, whose expert changes when another one is mounted.

Letters: T domains in the order of arrival, N windows of all of them.
"""

import numpy as np
from jaxtyping import Float

from cr_jax.studies.continual.stages import History

MOST_PAIRS = 20


def rates(history: History) -> Float[np.ndarray, "3 _"]:
    """(flips, lost, cured) of each mount but the first, shares of the windows of old domains, each
    domain weighing alike.  lost: flips away from the label's expert; cured: to it."""
    found, label = [], history.domain
    for k in range(1, len(history.names)):
        before, after = history.winners[k - 1], history.winners[k]
        moved = before != after
        of = np.stack([moved, moved & (before == label), moved & (after == label)])
        found.append(history.by_domain(of)[:, :k].mean(1))
    return np.array(found).T


def pairs(history: History, most: int = MOST_PAIRS) -> list[dict]:
    """[{"domain", "expert", "windows", "share", "lead", "lead_high"}], the most frequent first: how
    many windows of an old domain a new expert takes, and by what lead over the winner before it,
    median and 90th percentile, nats/token.

    Only flips to the new expert are counted; a rule that fits old experts again makes others too.
    """
    found = []
    for k in range(1, len(history.names)):
        before, after = history.winners[k - 1], history.winners[k]
        for d in range(k):
            own = history.domain == d
            at = np.flatnonzero(own & (before != after) & (after == k))
            if not at.size:
                continue
            led = history.residual[before[at], at] - history.residual[k, at]
            found.append(
                {
                    "domain": history.names[d],
                    "expert": history.names[k],
                    "windows": int(at.size),
                    "share": float(at.size / own.sum()),
                    "lead": float(np.median(led)),
                    "lead_high": float(np.quantile(led, 0.9)),
                }
            )
    return sorted(found, key=lambda x: (-x["share"], x["domain"], x["expert"]))[:most]
