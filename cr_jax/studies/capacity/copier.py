"""Study `copier`: what the bottleneck's capacity gives with nothing learnt.

Not in the paper, and a control for its headline: 8 latents of 512 numbers for 512 tokens are 8
numbers per token.  Give every id of the vocabulary a random point in 8 dimensions, write the points
into the latents, answer with the nearest id: no training, no domain, and near-perfect TRA on any
input, random tokens included.  So TRA alone proves neither compression nor a fingerprint; what
counts is TRA at home beside the error elsewhere, and bits rather than numbers.
"""

from collections.abc import Sequence

import numpy as np


def run(
    vocab_size: int = 50257,
    numbers: int = 8,
    bits: Sequence[int] = (16, 8, 4, 3, 2),
    sample: int = 4096,
    seed: int = 0,
) -> dict:
    """-> {"copier": [{"bits_per_number", "bits_per_token", "tra"}]} of the random code.

    TRA is the share of `sample` uniformly drawn ids that are the nearest to their own code, rounded
    to `bits` per number (uniform steps over +-3 standard deviations; 16: float16).
    """
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((vocab_size, numbers)).astype(np.float32)
    norms = 0.5 * np.sum(table * table, -1)
    ids = rng.integers(0, vocab_size, sample)
    rows = []
    for b in bits:
        code = rounded(table[ids], b)
        nearest = np.concatenate(
            [
                np.argmax(part @ table.T - norms, -1)
                for part in np.array_split(code, max(1, sample // 512))
            ]
        )
        rows.append(
            {
                "bits_per_number": b,
                "bits_per_token": b * numbers,
                "tra": float(np.mean(nearest == ids)),
            }
        )
    return {"copier": rows}


def rounded(x: np.ndarray, bits: int) -> np.ndarray:
    """x at `bits` bits per number."""
    if bits >= 16:
        return x.astype(np.float16).astype(np.float32)
    levels = 2**bits
    step = 6.0 / levels
    cell = np.clip(np.floor((x + 3.0) / step), 0, levels - 1)
    return ((cell + 0.5) * step - 3.0).astype(np.float32)
