"""What a residual is made of: all tokens seen, or tokens that the encoder was not shown.

A faithful compressor copies whatever it is given, so its residual says less and less about the
domain the better it gets.  It cannot copy what it never saw: the masked residual is the nll of
hidden tokens, each rebuilt from a window in which it, and a share of the others, were hidden.
The code length is the nll of every token as the expert's causal encoder predicts it from those
before it (`models.Autoencoder.predict`): what the window costs to write down, which no copying
lowers; its bigram model may have a share in the prediction.  Both are Not in the paper, whose rule
is the default of `config.Scoring`.

The surprise is what the encoder's nll exceeds the entropy of its own predictions by: zero on
average where they are right about their doubts, however hard the text is.  Not in the paper.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cr_jax import models
from cr_jax.config import SEEN, ModelConfig, Scoring
from cr_jax.models import objective
from cr_jax.scoring import bigram


class TokenScores(NamedTuple):
    """Per token: nll in nats and whether it was rebuilt exactly, both with all tokens seen, and the
    residual in nats that routing compares: nll itself, or that of hidden or of predicted tokens.
    The first two are None in `token_residuals`.  Of one expert [B, L], of all [E, B, L]."""

    nll: Any  # float32
    correct: Any  # bool
    residual: Any  # float32


class WindowSums(NamedTuple):
    """Per window: nats over its tokens; how many of these were rebuilt exactly, None where the rule
    does not see all tokens; their surprise in nats, the encoder's nll less its entropy, its bigram
    model left out, None where it was not asked for.  Of one expert [B], of all [E, B]."""

    residual: Any  # float32
    exact: Any = None  # int32 or None
    surprise: Any = None  # float32 or None

    def take(self, at: Any) -> "WindowSums":
        """Of some experts, or with (slice(None), windows) of some windows."""
        return WindowSums(*(None if x is None else x[at] for x in self))


@dataclasses.dataclass(frozen=True)
class Scorer:
    """What is computed of one expert, of its model, by a rule: `token_scores`, `token_residuals`,
    `window_sums` or `surprise_sums`."""

    score: Callable[..., Any]
    model: ModelConfig
    rule: Scoring

    def __call__(self, params: Any, tokens: Any, mask: Any, chunk: int) -> Any:
        return self.score(self.model, params, tokens, mask, self.rule, chunk)


def places(scoring: Scoring, window: int) -> Int[np.ndarray, "P K"]:
    """Positions hidden in each of the P passes, K of them, sorted."""
    dealt = np.random.default_rng(0).permutation(window).reshape(scoring.parts, -1)
    rounds = (np.arange(scoring.parts)[:, None] + np.arange(scoring.hidden)) % scoring.parts
    return np.sort(dealt[rounds].reshape(scoring.parts, -1))


def residual_means(
    sums: Float[np.ndarray, "E B"], tokens: Int[np.ndarray, " B"]
) -> Float[np.ndarray, "E B"]:
    """nats/token; NaN where there is no token."""
    return sums / np.where(tokens > 0, tokens, np.nan)[None]


def lowest(residuals: Float[np.ndarray, "E B"]) -> Int[np.ndarray, " B"]:
    """The expert with the lowest residual of each window; -1 where none has one."""
    kept = np.where(np.isfinite(residuals), residuals, np.inf)
    return np.where(np.isfinite(kept).any(0), kept.argmin(0), -1)


def residual_nll(
    net: models.Autoencoder,
    params: Any,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    rule: Scoring,
    chunk: int = 8192,
) -> Float[Array, "B L"]:
    """Each token's residual in nats by one expert.

    At most `chunk` tokens' logits stand in memory at once.
    """
    if rule.predicted:
        return _predicted(net, params, tokens, mask, rule, chunk)[0]
    rate = jnp.full(len(tokens), rule.rate, jnp.int32) if rule.rate else None
    if rule.parts:
        return _hidden(net, params, tokens, mask, rate, rule, chunk)
    return _seen(net, params, tokens, mask, chunk, rate).nll


def _seen(net, params, tokens, mask, chunk: int, rate=None):
    """Scores of one expert whose encoder sees all tokens."""
    h, _ = net.apply(params, tokens, mask, rate)
    return objective.token_scores(h, models.head(net.config, params), tokens, chunk)


def _predicted(net, params, tokens, mask, rule: Scoring, chunk: int, surprise: bool = False):
    """(nll of each token, its surprise or None)"""
    h = net.apply(params, tokens, mask, method="predict")
    scores = objective.token_scores(h, models.head(net.config, params), tokens, chunk, surprise)
    nll, above = scores.nll, scores.nll - scores.entropy if surprise else None
    if rule.bigram_weight:
        table = bigram.BigramTable(**params[bigram.COLLECTION])
        nll = bigram.mixed(nll, bigram.token_nats(table, tokens), rule.bigram_weight)
    return nll, above


def _hidden(net, params, tokens, mask, rate, rule: Scoring, chunk: int):
    window, kernel = tokens.shape[1], models.head(net.config, params)

    def one_pass(at):
        hidden = jnp.zeros(window, bool).at[at].set(True)
        h, _ = net.apply(params, tokens, mask, rate, jnp.broadcast_to(hidden, tokens.shape))
        # Only hidden tokens meet the vocabulary, by far the dearest product.
        return objective.token_scores(h[:, at], kernel, tokens[:, at], chunk).nll

    passes = jnp.asarray(places(rule, window), jnp.int32)
    nll = jax.lax.map(one_pass, passes)  # [P, B, K]
    total = jnp.zeros(tokens.shape, jnp.float32)
    for i in range(len(passes)):
        total = total.at[:, passes[i]].add(nll[i])
    return total / rule.hidden


def token_scores(
    model: ModelConfig,
    params: Any,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    rule: Scoring,
    chunk: int = 8192,
) -> TokenScores:
    """One expert's scores of every token.  Pure."""
    net = models.Autoencoder(model)
    seen = _seen(net, params, tokens, mask, chunk)
    residual = seen.nll if rule == SEEN else residual_nll(net, params, tokens, mask, rule, chunk)
    return TokenScores(seen.nll, seen.correct, residual)


def token_residuals(
    model: ModelConfig,
    params: Any,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    rule: Scoring,
    chunk: int = 8192,
) -> TokenScores:
    """One expert's residual of every token, by the passes of the rule and no other.  Pure."""
    net = models.Autoencoder(model)
    return TokenScores(None, None, residual_nll(net, params, tokens, mask, rule, chunk))


def window_sums(
    model: ModelConfig,
    params: Any,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    rule: Scoring,
    chunk: int = 8192,
) -> WindowSums:
    """One expert's sums of every window, by the passes of the rule and no other; without the
    surprise, for which the vocabulary is summed over once more.  Pure."""
    net, exact = models.Autoencoder(model), None
    if rule == SEEN:
        seen = _seen(net, params, tokens, mask, chunk)
        nll, exact = seen.nll, jnp.sum(seen.correct & mask, -1)
    else:
        nll = residual_nll(net, params, tokens, mask, rule, chunk)
    return WindowSums(_total(nll, mask), exact)


def surprise_sums(
    model: ModelConfig,
    params: Any,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    rule: Scoring,
    chunk: int = 8192,
) -> WindowSums:
    """`window_sums` with the surprise, where the rule predicts tokens.  Pure."""
    if not rule.predicted:
        return window_sums(model, params, tokens, mask, rule, chunk)
    net = models.Autoencoder(model)
    nll, above = _predicted(net, params, tokens, mask, rule, chunk, surprise=True)
    return WindowSums(_total(nll, mask), surprise=_total(above, mask))


def _total(of, mask):
    """Sums over the tokens of windows; padding may hold anything, so it is no product."""
    return jnp.sum(jnp.where(mask, of, 0), -1)
