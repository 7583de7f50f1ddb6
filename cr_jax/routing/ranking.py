"""What routing ranks experts by, and how usual that is: scores, penalties, p-values.

Letters: E experts, B windows.
"""

import numpy as np
from jaxtyping import Float, Int

from cr_jax.bank import ExpertBank


def ranking_score(bank: ExpertBank, residuals: Float[np.ndarray, "E B"],
                  lengths: Int[np.ndarray, " B"]) -> Float[np.ndarray, "E B"]:
    """What routing ranks experts by, nats/token: residuals (paper, routing rule), plus their
    `typicality_penalty` where the bank's rule has one.  The lowest wins.

    lengths: real tokens of each window.  The score of a document is the mean over its windows,
    weighted by their scored tokens, as its residual is.
    """
    if not bank.scoring.typicality_weight:
        return residuals
    return residuals + typicality_penalty(bank, residuals, lengths)


def typicality_penalty(bank: ExpertBank, residuals: Float[np.ndarray, "E B"],
                       lengths: Int[np.ndarray, " B"]) -> Float[np.ndarray, "E B"]:
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


def p_values(bank: ExpertBank, residuals: Float[np.ndarray, "E B"],
             lengths: Int[np.ndarray, " B"]) -> Float[np.ndarray, "E B"]:
    """Conformal p-value of each window by each expert; NaN where there is no residual."""
    p = np.stack([bank.calibration[n].p_value(r, lengths)
                  for n, r in zip(bank.names, residuals, strict=True)])
    return np.where(np.isfinite(residuals), p, np.nan)
