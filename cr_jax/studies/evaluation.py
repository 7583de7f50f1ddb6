"""Every expert on every domain, once: the per-window sums that all studies read.

windows -> router.score_tokens -> DomainScores [E, N]
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from cr_jax.bank import ExpertBank
from cr_jax.data.windows import Windows
from cr_jax.models import objective
from cr_jax.router import score_tokens
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.residuals import residual_means

_BLOCK = 1024  # windows whose per-token scores stand in memory at once


@dataclasses.dataclass(frozen=True)
class DomainScores:
    """Sums per expert and window of one domain.  E experts, N windows."""

    nll: Float[np.ndarray, "E N"]  # nats, all tokens seen
    residual_nll: Float[np.ndarray, "E N"]  # nats, by the bank's rule
    correct: Int[np.ndarray, "E N"]  # tokens rebuilt exactly
    tokens: Int[np.ndarray, " N"]
    bytes: Int[np.ndarray, " N"]  # UTF-8 bytes that the tokens stand for
    majority: float  # TRA of always answering with the domain's most frequent token

    @property
    def residual(self) -> Float[np.ndarray, "E N"]:
        """What routing compares: nats/token of each window; NaN without a token."""
        return residual_means(self.residual_nll, self.tokens)

    @property
    def tra(self) -> Float[np.ndarray, "E N"]:
        """Share of each window's tokens rebuilt exactly (paper section 1)."""
        return self.correct / self.tokens

    def metrics(self, expert: int) -> dict[str, float]:
        """One cell of the fingerprint: `objective.metrics` over all windows, all tokens seen, and
        `residual`, the nats/token that the bank's rule compares."""
        tokens = self.tokens.sum()
        return {
            **objective.metrics(
                {
                    "nll": self.nll[expert].sum(),
                    "correct": self.correct[expert].sum(),
                    "tokens": tokens,
                    "windows": len(self.tokens),
                    "exact": (self.correct[expert] == self.tokens).sum(),
                    "bytes": self.bytes.sum(),
                }
            ),
            "majority_tra": self.majority,
            "residual": float(self.residual_nll[expert].sum() / tokens),
        }


def score_domains(
    bank: ExpertBank,
    domains: Mapping[str, Windows],
    sizes: BatchSizes | None = None,
    on_windows=lambda count: None,
) -> dict[str, DomainScores]:
    """Scores each domain's windows by every expert; `on_windows(n)` reports progress."""
    lengths = np.zeros(bank.model.vocab_size, np.int64)
    lengths[: bank.tokenizer.vocab_size] = bank.tokenizer.token_bytes
    by_domain = {}
    for name, windows in domains.items():
        nll, residual, correct = [], [], []
        for start in range(0, len(windows), _BLOCK):
            part = windows.take(slice(start, start + _BLOCK))
            scores = score_tokens(bank, part, sizes)
            nll.append(_sums(scores.nll, part.mask))
            residual.append(_sums(scores.residual, part.mask))
            correct.append(np.sum(scores.correct & part.mask, -1))
            on_windows(len(part))
        by_domain[name] = DomainScores(
            *(np.concatenate(x, 1) for x in (nll, residual, correct)),
            windows.mask.sum(-1),
            np.sum(lengths[windows.tokens] * windows.mask, -1),
            objective.majority_rate(windows.tokens, windows.mask),
        )
    return by_domain


def _sums(
    values: Float[np.ndarray, "E B L"], mask: Bool[np.ndarray, "B L"]
) -> Float[np.ndarray, "E B"]:
    # where, not a product: padding may hold anything
    return np.sum(np.where(mask[None], values, 0), -1, dtype=np.float64)
