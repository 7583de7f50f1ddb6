"""What routing needs before it runs: FLOP by arithmetic, bytes by the compiler's plan.

Forward products, FLOP per token (`cr_jax.training.speed` has the formula).  An expert of
vocabulary 32,768, width 256, feed-forward 768, 3 + 3 blocks, window 512: 6.7 M in the encoder,
13.5 M with decoder and fold, 16.8 M in the vocabulary.

    full expert, all tokens seen (the paper's rule)                 13.5 + 16.8          =  30.3 M
    full expert, code length                                        6.7 + 0.1 + 16.8     =  23.6 M
    scout of width 64, feed-forward 128, 1 + 1 blocks, window 512: code length of an
      eighth of the positions                                        0.22 + 4.19 / 8     =  0.74 M
    64 scouts                                                                            =  47.6 M
    64 experts by the cascade, 4 kept, over one expert exactly:      4 + 47.6 / 23.6     =   6.0 x

What does not shrink with a scout's width is the softmax over its logits, and on a GPU that is
memory traffic: sample positions before making scouts narrower.
"""

import jax
import jax.numpy as jnp

from cr_jax import calls
from cr_jax.bank import ExpertBank
from cr_jax.cascade import Cascade
from cr_jax.config import ModelConfig, Scoring
from cr_jax.scoring import residuals_only
from cr_jax.training import speed

GIB = 1 << 30


def scoring_flops(model: ModelConfig, scoring: Scoring) -> float:
    """Forward FLOP per token of the residuals of a rule."""
    parts = {k: v / model.window for k, v in speed.forward_flops(model).items()}
    vocabulary, prediction = parts.pop("vocabulary"), parts.pop("prediction", 0.0)
    blocks = sum(parts.values())
    if scoring.predicted:
        share = scoring.passes / scoring.parts if scoring.passes else 1.0
        before = 2.0 * model.d_model**2
        return before + share * (prediction - before) + parts["encoder"]
    if not scoring.parts:
        return blocks + vocabulary
    passes = scoring.passes or scoring.parts
    return passes * (blocks + vocabulary * scoring.hidden / scoring.parts)


def flops_relative(model, scoring, scout, scout_scoring, experts: int, kept: float,
                   scouted: bool = True) -> float:
    """FLOP of scoring `kept` of `experts`, on average, after their scouts, over one expert exactly.
    """
    one = scoring_flops(model, scoring)
    return kept + scouted * experts * scoring_flops(scout, scout_scoring) / one


def exact_memory(bank: ExpertBank, options) -> float:
    """GiB that the compiled call reserves: all parameters, windows, temporaries, residuals."""
    return _plan(bank, options["batch"], options["expert_chunk"], options["chunk"])


def cascade_memory(cut: Cascade, options) -> float:
    """GiB of both banks and the larger of the two compiled calls."""
    one = cut.bank.select(cut.bank.names[:1])
    batch = options["batch"]
    parts = batch * cut.bank.model.window // cut.scouts.model.window
    scouting = _plan(cut.scouts, parts, options["expert_chunk"], options["chunk"])
    return max(_gib(cut.bank) + scouting,
               _gib(cut.bank) + _gib(cut.scouts) + _plan(one, batch, 1, options["chunk"]))


def _plan(bank, rows, expert_chunk, chunk) -> float:
    tokens = jax.ShapeDtypeStruct((rows, bank.model.window), jnp.int32)
    mask = jax.ShapeDtypeStruct((rows, bank.model.window), bool)
    plan = calls.compiled.lower(  # the program that is timed
        residuals_only, bank.model, bank.params, tokens, mask, expert_chunk, chunk,
        bank.scoring).compile().memory_analysis()
    return (plan.argument_size_in_bytes + plan.temp_size_in_bytes + plan.output_size_in_bytes) / GIB


def _gib(bank) -> float:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(bank.params)) / GIB
