"""What routing ranks experts by, and how usual that is: scores, penalties, p-values.

Letters: E experts, B windows.
"""

import numpy as np
from jaxtyping import Float, Int

from cr_jax.bank import ExpertBank
from cr_jax.scoring.calibration import two_sided


def ranking_score(
    bank: ExpertBank, residuals: Float[np.ndarray, "E B"], lengths: Int[np.ndarray, " B"]
) -> Float[np.ndarray, "E B"]:
    """What routing ranks experts by, nats/token: residuals (paper, routing rule), plus their
    `typicality_penalty` where the bank's rule has one.  The lowest wins.

    lengths: real tokens of each window.  The score of a document is the mean over its windows,
    weighted by their tokens, as its residual is.
    """
    if not bank.scoring.typicality_weight:
        return residuals
    return residuals + typicality_penalty(bank, residuals, lengths)


def typicality_penalty(
    bank: ExpertBank, residuals: Float[np.ndarray, "E B"], lengths: Int[np.ndarray, " B"]
) -> Float[np.ndarray, "E B"]:
    """weight * max(0, residual - the expert's own 95th percentile), nats/token.

    weight: `config.Scoring.typicality_weight`; percentile: `Calibration.limit`, of validation
    windows as long.

    Text must be typical of its winner, not only cheap.  An expert needs its own calibration for
    it and nothing of the others.  0 where a window is shorter than every calibrated length or has
    no finite residual.  Not in the paper.
    """
    limits = np.stack([bank.calibration[n].limit(lengths) for n in bank.names])
    above = np.maximum(0, residuals - limits)
    return np.where(np.isfinite(above), bank.scoring.typicality_weight * above, 0.0)


def p_values(
    bank: ExpertBank, residuals: Float[np.ndarray, "E B"], lengths: Int[np.ndarray, " B"]
) -> Float[np.ndarray, "E B"]:
    """Two-sided conformal p-value of each window by each expert (`calibration.two_sided`): small
    where it is less predictable than the expert's own text, or more.  NaN: no residual."""
    return two_sided(*one_sided_p_values(bank, residuals, lengths))


def one_sided_p_values(
    bank: ExpertBank, residuals: Float[np.ndarray, "E B"], lengths: Int[np.ndarray, " B"]
) -> Float[np.ndarray, "2 E B"]:
    """Each expert's `Calibration.p_value` and `low_p_value` of each window."""
    own = [bank.calibration[n] for n in bank.names]
    p = np.stack(
        [
            [c.p_value(r, lengths) for c, r in zip(own, residuals, strict=True)],
            [c.low_p_value(r, lengths) for c, r in zip(own, residuals, strict=True)],
        ]
    )
    return np.where(np.isfinite(residuals), p, np.nan)
