"""What routing ranks experts by: their residuals, and what these exceed the usual by.

Letters: E experts, B windows.
"""

import numpy as np
from jaxtyping import Float, Int

from cr_jax.bank import ExpertBank


def compared(bank: ExpertBank, residuals: Float[np.ndarray, "E B"],
             lengths: Int[np.ndarray, " B"]) -> Float[np.ndarray, "E B"]:
    """What routing ranks experts by, nats/token: residuals (paper, routing rule), with their
    `excess` where the bank's rule has one.

    lengths: real tokens of each window.  A document is compared by the mean over its windows,
    weighted by their scored tokens, as residuals are.
    """
    if not bank.scoring.excess:
        return residuals
    return residuals + excess(bank, residuals, lengths)


def excess(bank: ExpertBank, residuals: Float[np.ndarray, "E B"],
           lengths: Int[np.ndarray, " B"]) -> Float[np.ndarray, "E B"]:
    """`config.Scoring.excess` times what each residual exceeds `Calibration.limit` by, nats/token.

    Text must be typical of its winner, not only cheap.  An expert needs its own calibration for
    it and nothing of the others.  0 where a window is shorter than every calibrated length or has
    no finite residual.  Not in the paper.
    """
    limits = np.stack([bank.calibration[n].limit(lengths) for n in bank.names])
    above = np.maximum(0, residuals - limits)
    return np.where(np.isfinite(above), bank.scoring.excess * above, 0.0)
