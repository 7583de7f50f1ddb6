"""Baseline `naive_bayes`: one n-gram model of token ids per domain, the likeliest domain wins.

A generative expert without training: counts of the domain's own text, no gate, domains can be added
one at a time.  Equal priors.  Not in the paper.
"""

from collections.abc import Sequence

import numpy as np

from cr_jax.studies.baselines.backoff import Backoff, log_probabilities
from cr_jax.studies.baselines.interface import Baseline, Budget, TrainingText, cut

ORDER = 3  # tokens: the last and up to two before it
DISCOUNT = 0.75
_WINDOWS = 1024  # whose n-grams are sorted at once


def fit(text: TrainingText, lengths: Sequence[int], budget: Budget) -> Baseline:
    """Counts of up to `budget.tokens` tokens per domain; scores are mean nats/token, negated."""
    vocab = text.tokenizer.vocab_size
    bits = max(1, (vocab - 1).bit_length())
    models = []
    for e in range(len(text.names)):
        symbols, place = flat(*text.windows(e, budget.tokens))
        models.append(
            Backoff(
                symbols,
                place,
                order=min(ORDER, 64 // bits),
                bits=bits,
                alphabet=vocab,
                discount=DISCOUNT,
            )
        )

    def predict(tokens, mask, lengths):
        parts = []
        for i in range(0, len(tokens), _WINDOWS):
            some = mask[i : i + _WINDOWS]
            nats = np.zeros((len(models), *some.shape))
            nats[:, some] = log_probabilities(models, *flat(tokens[i : i + _WINDOWS], some))
            parts.append(
                np.stack(
                    [
                        np.einsum("enl,nl->en", nats, kept) / np.maximum(kept.sum(-1), 1)[None]
                        for kept in (cut(some, length) for length in lengths)
                    ]
                )
            )
        return np.concatenate(parts, axis=-1)

    return Baseline(
        predict,
        independent=True,
        unit="nats/token",
        note={"ngrams": sum(m.size for m in models), "order": models[0].order},
    )


def flat(tokens, mask) -> tuple[np.ndarray, np.ndarray]:
    """Windows in one row without padding: (ids, position in the window)."""
    place = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    return tokens[mask], place[mask]
