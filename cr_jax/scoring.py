"""What a residual is made of: all tokens seen, or tokens that the encoder was not shown.

A faithful compressor copies whatever it is given, so its residual says less and less about the
domain the better it gets.  It cannot copy what it never saw: the masked residual is the nll of
hidden tokens, each rebuilt from a window in which it, and a share of the others, were hidden.
Not in the paper, whose rule is the default of `config.Scoring`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cr_jax import models, objective
from cr_jax.config import Scoring


def places(scoring: Scoring, window: int) -> Int[np.ndarray, "P K"]:
    """Positions hidden in each of the P passes, K of them, sorted."""
    dealt = np.random.default_rng(0).permutation(window).reshape(scoring.parts, -1)
    rounds = (np.arange(scoring.parts)[:, None] + np.arange(scoring.hidden)) % scoring.parts
    return np.sort(dealt[rounds].reshape(scoring.parts, -1))


def residual_nll(
    net: models.Autoencoder,
    params: Any,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    scoring: Scoring,
    chunk: int = 8192,
) -> Float[Array, "B L"]:
    """Each token's residual in nats under a rule; at most `chunk` tokens' logits at once."""
    (rows, window), kernel = tokens.shape, models.head(net.config, params)
    rate = jnp.full(rows, scoring.rate, jnp.int32) if scoring.rate else None
    if not scoring.parts:
        h, _ = net.apply(params, tokens, mask, rate)
        return objective.token_scores(h, kernel, tokens, chunk).nll

    def one_pass(at):
        hidden = jnp.zeros(window, bool).at[at].set(True)
        h, _ = net.apply(params, tokens, mask, rate, jnp.broadcast_to(hidden, tokens.shape))
        # Only hidden tokens meet the vocabulary, by far the dearest product.
        return objective.token_scores(h[:, at], kernel, tokens[:, at], chunk).nll

    passes = jnp.asarray(places(scoring, window), jnp.int32)
    nll = jax.lax.map(one_pass, passes)  # [P, B, K]
    total = jnp.zeros((rows, window), jnp.float32)
    for i in range(scoring.parts):
        total = total.at[:, passes[i]].add(nll[i])
    return total / scoring.hidden
