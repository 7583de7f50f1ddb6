"""What many windows cost under every bigram model, call by call (`scoring.bigram`).

Not in the paper.  Letters: E experts, B windows.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float

from cr_jax.data.windows import Windows
from cr_jax.scoring import bigram
from cr_jax.scoring.batching import BatchSizes, in_batches
from cr_jax.scoring.residuals import residual_means

TOKENS = 1 << 16  # that bigram models read in one call


def bigram_residuals(
    table: bigram.BigramTable, windows: Windows, sizes: BatchSizes
) -> Float[np.ndarray, "E B"]:
    """nats/token of each window by every bigram model; NaN for a window without tokens."""
    return residual_means(bigram_sums(table, windows, sizes), windows.mask.sum(-1))


def bigram_sums(
    table: bigram.BigramTable, windows: Windows, sizes: BatchSizes
) -> Float[np.ndarray, "E B"]:
    """nats of each window by every bigram model."""
    score = functools.partial(bigram.residuals, table, side_by_side=bigram.models_side_by_side())
    most = dataclasses.replace(sizes, windows=bigram_rows(windows.tokens.shape[1], sizes))
    return in_batches(score, windows, most.rows(len(windows))).astype(np.float64)


def bigram_rows(window: int, sizes: BatchSizes) -> int:
    """The most windows, of `window` tokens, that bigram models read in one call."""
    # A table is read from afar: three times faster for 1,024 windows of 64 tokens than for 64.
    return max(sizes.windows, TOKENS // window)
