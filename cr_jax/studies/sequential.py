"""A document is read window by window until it is certain enough where it belongs.

Not in the paper.  The posterior of expert e after the windows read so far, all experts being
equally likely before, is softmax over e of -residual_e * tokens ** power / temperature: with
power 1 and temperature 1 the likelihood that the residuals claim; below, because windows of one
document depend on each other and no compressor is its domain's true model.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from cr_jax.errors import UserError

# home expert, running mean residuals [E, W] in nats/token, running numbers of tokens [W]
Document = tuple[int, np.ndarray, np.ndarray]
_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
_TEMPERATURES = np.geomspace(1e-3, 1e4, 85)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """How much residuals count, one pair of numbers per bank.  nats/token * tokens ** power."""

    temperature: float = 1.0
    power: float = 1.0

    def posterior(
        self, residual: Float[np.ndarray, "E W"], tokens: Int[np.ndarray, " W"]
    ) -> Float[np.ndarray, "E W"]:
        """Probability of each expert, from mean residuals over `tokens` tokens."""
        x = -(residual - residual.min(0)[None]) * (tokens**self.power / self.temperature)[None]
        weight = np.exp(x)
        return weight / weight.sum(0)[None]


def prefixes(
    nll: Float[np.ndarray, "E W"], tokens: Int[np.ndarray, " W"]
) -> tuple[Float[np.ndarray, "E W"], Int[np.ndarray, " W"]]:
    """Windows' sums in reading order -> mean residuals and tokens after 1, 2, ... W windows.

    `UserError` when there is no window or the first has no token.
    """
    if not tokens.size or tokens[0] < 1:
        raise UserError("a document needs a first window with at least one token")
    read = np.cumsum(tokens)
    return np.cumsum(nll, 1) / read[None], read


def sequential(
    nll: Float[np.ndarray, "E W"],
    tokens: Int[np.ndarray, " W"],
    threshold: float,
    evidence: Evidence = Evidence(),
) -> tuple[int, int]:
    """-> (expert, windows read) of one document: stops when a posterior reaches `threshold`.

    nll: sums over each window, nats.  All windows are read when none is certain enough.
    """
    residual, read = prefixes(nll, tokens)
    return _stop(residual, evidence.posterior(residual, read), threshold)


def fit_evidence(documents: Sequence[Document]) -> Evidence:
    """Temperature and power with the least mean -log posterior of the home expert, on a grid.

    All prefixes of a document count, a long document no more than a short one, and home domains
    alike.  Use validation documents.
    """
    if not documents:
        raise UserError("the sequential test needs validation documents to fit its temperature")
    per_home = np.bincount([home for home, *_ in documents])
    gaps = np.concatenate([r - r[home][None] for home, r, _ in documents], 1)  # [E, prefixes]
    tokens = np.concatenate([t for *_, t in documents]).astype(np.float64)
    weight = np.concatenate(
        [np.full(len(t), 1 / (len(t) * per_home[home])) for home, _, t in documents]
    )
    weight /= weight.sum()
    best, least = Evidence(), np.inf
    for power in _POWERS:
        scaled = gaps * (tokens**power)[None]
        low = -scaled.min(0)  # >= 0: home's own gap is 0
        for temperature in _TEMPERATURES:
            surprise = low / temperature + np.log(
                np.sum(np.exp(-(scaled + low[None]) / temperature), 0)
            )
            loss = float(weight @ surprise)
            if loss < least:
                best, least = Evidence(float(temperature), power), loss
    return best


def curve(documents: Sequence[Document], evidence: Evidence, thresholds: Sequence[float]) -> dict:
    """Accuracy against windows read: stopping by thresholds, and always reading k windows.

    {"temperature", "power", "rows": [{"threshold", "accuracy", "windows", "most_windows"}],
    "fixed": [{"windows_at_most", "accuracy", "windows"}], "documents"}; accuracy and mean windows
    are means over home domains of means over documents.
    """
    posteriors = [evidence.posterior(r, t) for _, r, t in documents]
    homes = np.array([home for home, *_ in documents])

    def over_homes(values):
        values = np.asarray(values, np.float64)
        return float(np.mean([values[homes == h].mean() for h in np.unique(homes)]))

    def row(stops):
        right = [expert == home for (expert, _), home in zip(stops, homes, strict=True)]
        return {"accuracy": over_homes(right), "windows": over_homes([n for _, n in stops])}

    longest = max(r.shape[1] for _, r, _ in documents)
    rows = []
    for threshold in thresholds:
        stops = [_stop(r, p, threshold) for (_, r, _), p in zip(documents, posteriors, strict=True)]
        rows.append(
            {"threshold": threshold, **row(stops), "most_windows": max(n for _, n in stops)}
        )
    fixed = []
    for k in sorted({*(1 << i for i in range(longest.bit_length())), longest}):
        stops = [
            (int(r[:, min(k, r.shape[1]) - 1].argmin()), min(k, r.shape[1]))
            for _, r, _ in documents
        ]
        fixed.append({"windows_at_most": k, **row(stops)})
    return {
        "temperature": evidence.temperature,
        "power": evidence.power,
        "rows": rows,
        "fixed": fixed,
        "documents": len(documents),
    }


def _stop(residual, posterior, threshold: float) -> tuple[int, int]:
    certain = np.flatnonzero(posterior.max(0) >= threshold)
    at = int(certain[0]) if certain.size else residual.shape[1] - 1
    return int(residual[:, at].argmin()), at + 1
