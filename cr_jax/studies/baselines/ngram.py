"""Baseline `ngram`: a linear classifier of hashed token 1- and 2-grams, trained on all domains.

The model of fastText (Joulin et al. 2016) with as many hidden units as domains: multinomial
logistic regression on sparse rows, here by minibatches with Adagrad, which suits rare columns.  It
sees all domains together, which the experts never do.  Not in the paper.
"""

from collections.abc import Sequence

import numpy as np

from cr_jax.studies.baselines import hashed_counts
from cr_jax.studies.baselines.interface import Baseline, Budget, TrainingText, cut

BITS = 19  # columns of the hash
RATE = 0.1  # Adagrad's; chosen with SCALE on valid, 128 windows per domain
SCALE = 10.0  # rows of length 1 times this: logits move further per step
_TOKENS = 16384  # per domain and step of training
_ROWS = 1024  # windows scored at once


def fit(text: TrainingText, lengths: Sequence[int], budget: Budget) -> Baseline:
    """One classifier per length, trained on windows cut up into pieces of that length.

    Every step has as many tokens of each domain.  Training ends when the largest has been read once
    (up to `budget.ngram_tokens`); smaller ones begin anew, as in the experts' training.  Scores
    are logits.
    """
    read = [text.windows(e, budget.ngram_tokens) for e in range(len(text.names))]
    models = {length: train(read, length) for length in lengths}

    def predict(tokens, mask, lengths):
        out = np.empty((len(lengths), len(read), len(tokens)))
        for k, length in enumerate(lengths):
            kernel, bias = models[min(models, key=lambda have: abs(np.log(have / length)))]
            for i in range(0, len(tokens), _ROWS):
                part = slice(i, i + _ROWS)
                rows = hashed_counts.rows(tokens[part], cut(mask[part], length), BITS)
                out[k, :, part] = logits(rows, kernel, bias).T
        return out

    return Baseline(
        predict,
        independent=False,
        unit="logit",
        note={"columns": 1 << BITS, "classifiers": len(models)},
    )


def logits(rows, kernel, bias):
    """[N, E] of N sparse rows [N, 2^BITS]."""
    return SCALE * (rows @ kernel) + bias[None]


def train(read, length: int):
    """(kernel [2^BITS, E], bias [E]) of one classifier; read: (tokens, mask) [N, L] per domain."""
    experts, window = len(read), read[0][0].shape[1]
    most = max(len(tokens) for tokens, _ in read)
    rows = min(most, max(1, _TOKENS // window))
    kernel = np.zeros((1 << BITS, experts), np.float32)
    seen = np.full_like(kernel, 1e-8)
    bias = np.zeros(experts, np.float32)
    steps = -(-most // rows)
    for step in range(steps):
        parts = [
            _pieces(*(x[(step * rows + np.arange(rows)) % len(x)] for x in pair), length)
            for pair in read
        ]
        counts = np.array([len(tokens) for tokens, _ in parts])
        label = np.repeat(np.arange(experts), counts)
        design = hashed_counts.rows(*(np.concatenate(x) for x in zip(*parts)), BITS)
        scores = logits(design, kernel, bias)
        scores = np.exp(scores - scores.max(1, keepdims=True))
        error = scores / scores.sum(1, keepdims=True)
        error[np.arange(len(label)), label] -= 1
        # The same weight for every domain, also where padding leaves it fewer pieces.
        error /= np.maximum(counts, 1)[label][:, None] * np.float32(experts)
        gradient = SCALE * (design.T @ error)
        seen += gradient * gradient
        fall = 1 - step / steps
        kernel -= np.float32(RATE * fall) * gradient / np.sqrt(seen)
        bias -= np.float32(RATE * fall) * error.sum(0)
    return kernel, bias


def _pieces(tokens, mask, length: int):
    """Windows cut up into pieces of `length` tokens; what is left over and pure padding goes."""
    count = tokens.shape[1] // length
    split = lambda x: x[:, : count * length].reshape(-1, length)
    tokens, mask = split(tokens), split(mask)
    kept = mask.any(1)
    return tokens[kept], mask[kept]
