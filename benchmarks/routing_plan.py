"""What routing needs before it runs: FLOP by arithmetic, bytes by the compiler's plan.

Forward products, FLOP per token (`cr_jax.training.speed` has the formula).  An expert of
vocabulary 32,768, width 256, feed-forward 768, 3 + 3 blocks, window 512: 6.7 M in the encoder,
13.5 M with decoder and fold, 16.8 M in the vocabulary.

    full expert, all tokens seen (the paper's rule)                 13.5 + 16.8          =  30.3 M
    full expert, code length                                        6.7 + 0.1 + 16.8     =  23.6 M
    64 experts by the cascade, 6 candidates, over one expert exactly      6.0 x

Bigram models have no products: one reads a slot of 32 + 16 bytes, and two numbers of 2, per token.
What they need is memory, in bytes for each of 65,536 pairs:

    slots, half full                                  16,384 * 8 * (4 + 2)               = 0.79 MB
    tokens after others, and alone                    32,768 * (2 + 2)                   = 0.13 MB
    64 bigram models                                  64 * 0.92                          =   59 MB
"""

import jax
import jax.numpy as jnp

from cr_jax import router
from cr_jax.bank import ExpertBank
from cr_jax.config import ModelConfig, Scoring
from cr_jax.scoring import bigram
from cr_jax.scoring.batching import BatchSizes
from cr_jax.scoring.bigram_windows import bigram_rows
from cr_jax.scoring.residuals import Scorer, window_sums
from cr_jax.training import speed

GIB = 1 << 30


def scoring_flops(model: ModelConfig, scoring: Scoring) -> float:
    """Forward FLOP per token of the residuals of a rule."""
    parts = {k: v / model.window for k, v in speed.forward_flops(model).items()}
    vocabulary, prediction = parts.pop("vocabulary"), parts.pop("prediction", 0.0)
    blocks = sum(parts.values())
    if scoring.predicted:
        return prediction + parts["encoder"]
    if not scoring.parts:
        return blocks + vocabulary
    return scoring.parts * blocks + vocabulary * scoring.hidden


def exact_memory(bank: ExpertBank, sizes: BatchSizes) -> float:
    """GiB that the compiled call reserves: all parameters, windows, temporaries, residuals."""
    return _plan(bank, sizes)


def cascade_memory(bank: ExpertBank, table: bigram.BigramTable, sizes: BatchSizes) -> float:
    """GiB of the bank, its bigram models' table, and the larger of the two programs: of all bigram
    models and of one expert alone."""
    one = bank.select(bank.names[:1])
    rows = bigram_rows(bank.model.window, sizes)
    by_bigrams = _reserved(
        bigram.residuals.lower(table, *_windows(bank, rows), bigram.models_side_by_side())
    )
    scoring = _plan(one, sizes)
    return _gib(bank.weights) + max(by_bigrams, _gib(table) + scoring)


def _plan(bank, sizes) -> float:
    tokens, mask = _windows(bank, sizes.windows)
    return _reserved(
        router.score_experts.lower(  # the program that is timed
            Scorer(window_sums, bank.model, bank.scoring.residual_rule),
            bank.weights,
            tokens,
            mask,
            sizes.groups(len(bank.names)),
        )
    )


def _windows(bank, rows):
    return (
        jax.ShapeDtypeStruct((rows, bank.model.window), jnp.int32),
        jax.ShapeDtypeStruct((rows, bank.model.window), bool),
    )


def _reserved(lowered) -> float:
    plan = lowered.compile().memory_analysis()
    return (plan.argument_size_in_bytes + plan.temp_size_in_bytes + plan.output_size_in_bytes) / GIB


def _gib(arrays) -> float:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(arrays)) / GIB
