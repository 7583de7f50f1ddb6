"""Per-window sums from an injected scorer: all that the studies of routing and of unknown read.

    Windows -> score -> nll [E, N], correct [E, N] -> Sums

The scorer decides what a residual is made of (all tokens, or only hidden ones) and on which device.
"""

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int

from cr_jax.bank import ExpertBank
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.scoring.batching import BatchSizes
from cr_jax.studies.evaluation import score_domains

Key = TypeVar("Key", bound=Hashable)
# windows -> (nll [E, N] in nats, tokens rebuilt exactly [E, N]), summed over each window
Score = Callable[[Windows], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Sums:
    """Sums per expert and window.  E experts, N windows; `document` says where a window is from."""

    nll: Float[np.ndarray, "E N"]  # nats, by the rule that scores
    correct: Int[np.ndarray, "E N"]  # tokens rebuilt exactly
    tokens: Int[np.ndarray, " N"]
    document: Int[np.ndarray, " N"]

    @property
    def residual(self) -> Float[np.ndarray, "E N"]:
        """nats/token of each window."""
        return self.nll / self.tokens


def scorer(bank: ExpertBank, sizes: BatchSizes | None = None) -> Score:
    """The bank's own scoring."""

    def score(windows):
        scores = score_domains(bank, {"windows": windows}, sizes)["windows"]
        return scores.residual_nll, scores.correct

    return score


def measure(score: Score, windows: Mapping[Key, Windows]) -> dict[Key, Sums]:
    """Scores every entry once; keys are names or shares.  Not in the paper.

    `UserError` for a window without tokens or sums of another shape.
    """
    sums_of = {}
    for name, part in windows.items():
        tokens = part.mask.sum(-1)
        if not len(part) or not tokens.all():
            raise UserError(
                f"{name}: every window needs at least one token, and one window is the "
                "least; give more text"
            )
        nll, correct = (np.asarray(x) for x in score(part))
        if nll.ndim != 2 or nll.shape[1] != len(part) or correct.shape != nll.shape:
            raise UserError(
                f"{name}: a scorer returns sums of shape [experts, {len(part)}], "
                f"got {nll.shape} and {correct.shape}"
            )
        sums_of[name] = Sums(
            nll.astype(np.float64), correct.astype(np.int64), tokens, part.document
        )
    return sums_of
