"""What a residual is made of: all tokens seen, or tokens that the encoder was not shown.

A faithful compressor copies whatever it is given, so its residual says less and less about the
domain the better it gets.  It cannot copy what it never saw: the masked residual is the nll of
hidden tokens, each rebuilt from a window in which it, and a share of the others, were hidden.
The code length is the nll of every token as the expert's causal encoder predicts it from those
before it (`models.Autoencoder.predict`): what the window costs to write down, which no copying
lowers; its bigram model may have a share in the prediction.  Both are Not in the paper, whose rule
is the default of `config.Scoring`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cr_jax import models
from cr_jax.config import SEEN, ModelConfig, Scoring
from cr_jax.models import objective
from cr_jax.scoring import bigram


class Scores(NamedTuple):
    """Per expert and token: nll in nats, whether the token was rebuilt exactly, and the residual
    in nats that routing compares: nll itself, or that of hidden or of predicted tokens
    (`cr_jax.scoring.residuals`), NaN where the rule scores none."""

    nll: Any  # float32 [E, B, L]
    correct: Any  # bool [E, B, L]
    residual: Any  # float32 [E, B, L]


def places(scoring: Scoring, window: int) -> Int[np.ndarray, "P K"]:
    """Positions hidden in each of the P passes, K of them, sorted."""
    dealt = np.random.default_rng(0).permutation(window).reshape(scoring.parts, -1)
    rounds = (np.arange(scoring.parts)[:, None] + np.arange(scoring.hidden)) % scoring.parts
    return np.sort(dealt[rounds].reshape(scoring.parts, -1))[:scoring.passes or None]


def scored(scoring: Scoring, window: int) -> Bool[np.ndarray, " L"]:
    """Positions that have a residual under the rule: all, unless it leaves passes out."""
    if not scoring.passes:
        return np.ones(window, bool)
    return _times(scoring, window) > 0


def counted(mask: Bool[Any, "B L"], scoring: Scoring) -> Bool[Any, "B L"]:
    """Real tokens that have a residual under the rule."""
    return mask & scored(scoring, mask.shape[1])[None]


def residual_sums(residual: Float[np.ndarray, "E B L"], mask: Bool[np.ndarray, "B L"],
                  scoring: Scoring) -> tuple[Float[np.ndarray, "E B"], Int[np.ndarray, " B"]]:
    """(nats, tokens that they are summed over) of each window: real tokens that the rule scores."""
    at = counted(mask, scoring)
    # where, not a product: padding may hold anything
    return np.sum(np.where(at[None], residual, 0), -1, dtype=np.float64), at.sum(-1)


def residual_means(sums: Float[np.ndarray, "E B"], tokens: Int[np.ndarray, " B"]
                   ) -> Float[np.ndarray, "E B"]:
    """nats/token; NaN where no token is scored."""
    return sums / np.where(tokens > 0, tokens, np.nan)[None]


def lowest(residuals: Float[np.ndarray, "E B"]) -> Int[np.ndarray, " B"]:
    """The expert with the lowest residual of each window; -1 where none has one."""
    kept = np.where(np.isfinite(residuals), residuals, np.inf)
    return np.where(np.isfinite(kept).any(0), kept.argmin(0), -1)


def _times(scoring: Scoring, window: int) -> Int[np.ndarray, " L"]:
    return np.bincount(places(scoring, window).ravel(), minlength=window)


def residual_nll(
    net: models.Autoencoder,
    params: Any,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    scoring: Scoring,
    chunk: int = 8192,
) -> Float[Array, "B L"]:
    """Each token's residual in nats under a rule; NaN where the rule scores none (`scored`).

    At most `chunk` tokens' logits stand in memory at once.
    """
    (rows, window), kernel = tokens.shape, models.head(net.config, params)
    rate = jnp.full(rows, scoring.rate, jnp.int32) if scoring.rate else None
    if scoring.predicted:
        h = net.apply(params, tokens, mask, method="predict")
        at = np.flatnonzero(scored(scoring, window)) if scoring.passes else slice(None)
        nll = objective.token_scores(h[:, at], kernel, tokens[:, at], chunk).nll
        if scoring.bigram_weight:
            counted = bigram.token_nats(bigram.BigramTable(**params[bigram.COLLECTION]), tokens)
            nll = bigram.mixed(nll, counted[:, at], scoring.bigram_weight)
        if not scoring.passes:
            return nll
        return jnp.full((rows, window), jnp.nan).at[:, at].set(nll)
    if not scoring.parts:
        return _seen(net, params, tokens, mask, chunk, rate).nll

    def one_pass(at):
        hidden = jnp.zeros(window, bool).at[at].set(True)
        h, _ = net.apply(params, tokens, mask, rate, jnp.broadcast_to(hidden, tokens.shape))
        # Only hidden tokens meet the vocabulary, by far the dearest product.
        return objective.token_scores(h[:, at], kernel, tokens[:, at], chunk).nll

    passes = jnp.asarray(places(scoring, window), jnp.int32)
    nll = jax.lax.map(one_pass, passes)  # [P, B, K]
    total = jnp.zeros((rows, window), jnp.float32)
    for i in range(len(passes)):
        total = total.at[:, passes[i]].add(nll[i])
    times = _times(scoring, window).astype(np.float32)
    return total / jnp.where(times > 0, times, jnp.nan)[None]


def score_experts(
    model: ModelConfig,
    params: Any,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    expert_chunk: int = 4,
    chunk: int = 8192,
    scoring: Scoring = SEEN,
) -> Scores:
    """Scores of every expert on the same windows, each [E, B, L].

    Pure.  `vmap` over the experts of a group, `lax.map` over groups of at most `expert_chunk`;
    groups are made even and the last is filled by repeating an expert.  At most `chunk` tokens'
    logits, over all experts of a group, stand in memory.
    """
    net = models.Autoencoder(model)

    def one(p, own_mask, most):
        scores = _seen(net, p, tokens, own_mask, most)
        residual = scores.nll if scoring.residual_rule == SEEN else residual_nll(
            net, p, tokens, own_mask, scoring, most)
        return Scores(scores.nll, scores.correct, residual)

    return _by_expert(one, params, mask, expert_chunk, chunk)


def residuals_only(
    model: ModelConfig,
    params: Any,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    expert_chunk: int = 4,
    chunk: int = 8192,
    scoring: Scoring = SEEN,
) -> Float[Array, "E B"]:
    """Each window's residual in nats, summed over its scored tokens, and nothing else.

    Pure.  `score_experts` without the pass over seen tokens that a masked rule does not need.
    """
    net = models.Autoencoder(model)

    def one(p, own_mask, most):
        nll = residual_nll(net, p, tokens, own_mask, scoring, most)
        return jnp.sum(jnp.where(counted(own_mask, scoring), nll, 0), -1)

    return _by_expert(one, params, mask, expert_chunk, chunk)


def rebuilt_only(
    model: ModelConfig,
    params: Any,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    expert_chunk: int = 4,
    chunk: int = 8192,
) -> Int[Array, "E B"]:
    """How many of each window's tokens an expert rebuilds exactly, all of them seen: TRA's sums.

    Pure.  `score_experts` without residuals; no scoring rule changes it.
    """
    net = models.Autoencoder(model)

    def one(p, own_mask, most):
        return jnp.sum(_seen(net, p, tokens, own_mask, most).correct & own_mask, -1)

    return _by_expert(one, params, mask, expert_chunk, chunk)


def _seen(net, params, tokens, mask, chunk: int, rate=None):
    """One expert's token scores where its encoder sees all tokens."""
    h, _ = net.apply(params, tokens, mask, rate)
    return objective.token_scores(h, models.head(net.config, params), tokens, chunk)


def _by_expert(one, params, mask, expert_chunk: int, chunk: int):
    """one(params of an expert, mask, most) -> arrays [B, ...]; -> the same of all [E, B, ...]."""
    experts = jax.tree.leaves(params)[0].shape[0]
    groups = -(-experts // expert_chunk)
    side_by_side = -(-experts // groups)
    one = functools.partial(one, most=max(1, chunk // side_by_side))

    def together(p):
        # Every expert gets the mask on its own axis: JAX's batching of cuDNN attention takes
        # queries and lengths only with the same leading axes.
        return jax.vmap(one)(p, jnp.broadcast_to(mask, (side_by_side, *mask.shape)))

    if groups == 1:
        return together(params)

    def grouped(x):
        fill = side_by_side * groups - experts
        if fill:
            x = jnp.concatenate([x, jnp.repeat(x[-1:], fill, axis=0)])
        # Group g holds experts g, g + groups, ...: with the expert axis split over devices, each
        # device then works on its own experts in every group.
        return x.reshape(side_by_side, groups, *x.shape[1:])

    params = jax.tree.map(grouped, params)
    group = lambda g: jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, g, 1, False), params)
    scores = jax.lax.map(lambda g: together(group(g)), jnp.arange(groups))
    join = lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])[:experts]
    return jax.tree.map(join, scores)
