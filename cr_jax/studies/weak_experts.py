"""Two ways to help an expert that loses even its own text, on residuals: offsets and typicality.

An expert that had little text overfits and codes its own domain worse than a neighbour with more:
it never wins.  An offset, in nats/token, is taken off its residual before experts are ranked; it
is measured against the other experts on validation windows.  The typicality penalty needs the
expert's own calibration alone: what a residual exceeds that expert's own 95th percentile by counts
more, so that text must be typical of its winner and not only cheap.
`config.Scoring.typicality_weight` routes so.  No gate is trained.  numpy only.  Not in the paper,
whose rule compares plain residuals; compare post-hoc logit adjustment (Menon et al. 2021).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from cr_jax.errors import UserError
from cr_jax.scoring.calibration import PERCENTILE
from cr_jax.scoring.offsets import least_offset

SHARES = (0.0, 0.5, 0.8, 0.9, 0.95)
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)


def own_offsets(
    residuals: Mapping[str, Float[np.ndarray, "E _"]], names: Sequence[str], share: float
) -> Float[np.ndarray, " E"]:
    """The least numbers >= 0 with which each expert, if it alone had one, wins `share` of its own.

    residuals: nats/token of every expert on validation windows of each domain; names: experts in
    the order of the rows, each named after its domain.  share 0: none.  `UserError` when a share
    lies outside [0, 1], a domain has no windows, or residuals are not finite.
    """
    if not 0 <= share <= 1:
        raise UserError(f"share={share} of an expert's own windows must lie in [0, 1]")
    offsets = np.zeros(len(names))
    for e, name in enumerate(names):
        r = np.asarray(residuals[name], np.float64) if name in residuals else np.empty((0, 0))
        if r.shape[0] != len(names) or not r.size or not np.isfinite(r).all():
            raise UserError(
                f"{name}: finite residuals of all {len(names)} experts on at least one "
                "validation window are needed for offsets"
            )
        if share:
            offsets[e] = least_offset(r, e, share)
    return offsets


def choose(
    residuals: Mapping[str, Float[np.ndarray, "E _"]],
    names: Sequence[str],
    shares: Sequence[float] = SHARES,
) -> tuple[float, Float[np.ndarray, " E"]]:
    """(share, offsets) with the best accuracy on these windows, mean over domains, all experts
    having theirs at once; of equal ones the smaller share.

    An expert that codes its text worse than everything else would need so large an offset that it
    took its neighbours' text too: then the share that is chosen is small, at worst 0.
    """
    best = None
    for share in sorted(shares):
        offsets = own_offsets(residuals, names, share)
        right = accuracy(residuals, names, offsets)
        if best is None or right > best[0]:
            best = right, share, offsets
    return best[1:]


def accuracy(
    residuals: Mapping[str, Float[np.ndarray, "E _"]],
    names: Sequence[str],
    offset: Float[np.ndarray, " E"],
) -> float:
    """Share of windows that go to their own domain's expert, mean over domains."""
    return float(
        np.mean(
            [np.mean((residuals[n] - offset[:, None]).argmin(0) == e) for e, n in enumerate(names)]
        )
    )


def limits(
    residuals: Mapping[str, Float[np.ndarray, "E _"]], names: Sequence[str]
) -> Float[np.ndarray, " E"]:
    """Each expert's `PERCENTILE` of residuals on its own windows, nats/token."""
    return np.array([np.percentile(residuals[n][e], PERCENTILE) for e, n in enumerate(names)])


def with_typicality_penalty(
    residual: Float[np.ndarray, "E N"], limit: Float[np.ndarray, " E"], weight: float
) -> Float[np.ndarray, "E N"]:
    """Residuals, what lies above an expert's limit counted 1 + weight times."""
    return residual + weight * np.maximum(0, residual - limit[:, None])


def typicality(
    valid: Mapping[str, Float[np.ndarray, "E _"]],
    test: Mapping[str, Float[np.ndarray, "E _"]],
    names: Sequence[str],
    weights: Sequence[float] = WEIGHTS,
) -> dict:
    """-> {"percentile", "rows": [{"weight", "valid", "test", "per_domain"}], "chosen_on_valid"}.

    Accuracies are means over domains; per_domain is on test.
    """
    limit, rows = limits(valid, names), []
    for weight in weights:
        scores = [
            {n: with_typicality_penalty(r[n], limit, weight) for n in names} for r in (valid, test)
        ]
        none = np.zeros(len(names))
        rows.append(
            {
                "weight": weight,
                "valid": accuracy(scores[0], names, none),
                "test": accuracy(scores[1], names, none),
                "per_domain": {
                    n: float(np.mean(scores[1][n].argmin(0) == e)) for e, n in enumerate(names)
                },
            }
        )
    return {
        "percentile": PERCENTILE,
        "rows": rows,
        "chosen_on_valid": max(rows, key=lambda r: r["valid"])["weight"],
    }
