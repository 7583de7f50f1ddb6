"""Residuals, nats of each token by one expert, under the three rules of `config.Scoring`.

- rebuilding (the paper's rule, the default): nll of each token after decoding, where the encoder
  saw all tokens.  The better a compressor copies, the less this says about the domain.
- hidden tokens: nll of tokens that the encoder was not shown, each rebuilt from a window in which
  it, and a share of the others, were hidden.  What was never seen cannot be copied.
- code length: nll of each token as the expert's causal encoder predicts it from those before it
  (`models.Autoencoder.predict`); the expert's bigram model may have a share in the prediction.

The last two are Not in the paper.  Nor is the surprise: by how many nats the encoder's nll exceeds
the entropy of its own predictions.  It is zero on average where these probabilities are right,
however hard the text is, and high where the encoder is sure and wrong.
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
    """Scores of each token, of one expert [B, L], of all [E, B, L].

    nll: nats to rebuild the token, all tokens seen; correct: whether it was rebuilt exactly;
    residual: nats by the bank's rule, which routing compares; surprise: nats, without the bigram
    model's share.  `token_residuals` leaves the first two and the last None, `token_surprises` the
    first two, and the last where the rule does not predict.
    """

    nll: Any  # float32 or None
    correct: Any  # bool or None
    residual: Any  # float32
    surprise: Any = None  # float32 or None


class WindowSums(NamedTuple):
    """Sums over the tokens of each window, of one expert [B], of all [E, B].

    residual: nats by the rule; exact: tokens that were rebuilt exactly, None under other rules than
    rebuilding; surprise: nats, without the bigram model's share, None where it was not asked for.
    """

    residual: Any  # float32
    exact: Any = None  # int32 or None
    surprise: Any = None  # float32 or None

    def take(self, at: Any) -> "WindowSums":
        """The sums of some experts, or with at=(slice(None), windows) of some windows."""
        return WindowSums(*(None if x is None else x[at] for x in self))


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A function of one expert that jit can hash, with its model and rule.

    score: `token_scores`, `token_residuals`, `token_surprises`, `window_sums` or `surprise_sums`.
    """

    score: Callable[..., Any]
    model: ModelConfig
    rule: Scoring

    def __call__(self, params: Any, tokens: Any, mask: Any, chunk: int) -> Any:
        return self.score(self.model, params, tokens, mask, self.rule, chunk)


def places(scoring: Scoring, window: int) -> Int[np.ndarray, "P K"]:
    """Of each of the P passes the K positions that are hidden, sorted."""
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
        # Logits of hidden tokens only: the product with the vocabulary costs the most by far.
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
    """One expert's residual of every token, at the cost of the rule alone.  Pure."""
    net = models.Autoencoder(model)
    return TokenScores(None, None, residual_nll(net, params, tokens, mask, rule, chunk))


def token_surprises(
    model: ModelConfig,
    params: Any,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    rule: Scoring,
    chunk: int = 8192,
) -> TokenScores:
    """`token_residuals` with the surprise, where the rule predicts tokens.  Pure."""
    if not rule.predicted:
        return token_residuals(model, params, tokens, mask, rule, chunk)
    net = models.Autoencoder(model)
    return TokenScores(None, None, *_predicted(net, params, tokens, mask, rule, chunk, True))


def window_sums(
    model: ModelConfig,
    params: Any,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    rule: Scoring,
    chunk: int = 8192,
) -> WindowSums:
    """One expert's sums of every window, at the cost of the rule alone; without the surprise,
    whose entropy needs another sum over the vocabulary.  Pure."""
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
    """Sums over the tokens of windows; padding may hold NaN, so no product with the mask."""
    return jnp.sum(jnp.where(mask, of, 0), -1)
