"""Which experts' language models read a text at all, and what deciding costs.

Bigram models read the first tokens by look-ups in a table and leave few candidates: where the
nearest is ahead by more than a calibrated margin, one.  Only the candidates' language models read
these tokens to decide among themselves.  Not in the paper.
Letters: E experts, B texts, L tokens of a text.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cr_jax.config import LmConfig
from cr_jax.errors import UserError
from cr_jax.modular.schedule import prefix_nats
from cr_jax.routing.candidates import nearest, needed_margins
from cr_jax.training.speed import lm_flops_per_token


class Candidates(NamedTuple):
    """kept: whether each expert's language model reads the text; mean: how many do."""

    kept: Bool[Array, "E B"]
    mean: Float[Array, ""]


@functools.partial(jax.jit, static_argnames=("tokens", "most"))
def candidates(
    bigram_nats: Float[Array, "E B L"],
    mask: Bool[Array, "B L"],
    tokens: int,
    most: int,
    margin: float | Float[Array, ""],
) -> Candidates:
    """The experts whose bigram models are within `margin` nats/token of the nearest on the first
    `tokens`, and of them the `most` nearest.
    """
    means = prefix_means(bigram_nats, mask, tokens)
    rank = jnp.argsort(jnp.argsort(means, axis=0, stable=True), axis=0)
    near = means - jnp.min(means, axis=0, keepdims=True) <= margin
    kept = ((rank < most) & near) | (rank == 0)
    return Candidates(kept, jnp.mean(jnp.sum(kept, axis=0, dtype=jnp.float32)))


@jax.jit
def among(evidence: Float[Array, "E B L"], kept: Bool[Array, "E B"]) -> Float[Array, "E B L"]:
    """Evidence by which only candidates can be chosen: infinite for the others."""
    return jnp.where(kept[..., None], evidence, jnp.inf)


@functools.partial(jax.jit, static_argnames="tokens")
def prefix_means(
    nats: Float[Array, "E B L"], mask: Bool[Array, "B L"], tokens: int
) -> Float[Array, "E B"]:
    """nats/token of the first `tokens`; `UserError` unless that is at least 1."""
    counted = jnp.sum(mask[:, :tokens], axis=-1)
    return prefix_nats(nats, mask, tokens) / jnp.maximum(counted, 1).astype(jnp.float32)[None]


def calibrated_margin(
    bigram_means: Float[np.ndarray, "E B"],
    winner: Int[np.ndarray, " B"],
    most: int,
    at_least: float = 0.99,
) -> float:
    """The least margin, nats/token, with which `winner` is a candidate in a share `at_least` of
    texts: of validation text, never of what is then scored.

    bigram_means: `prefix_means` of the bigram models.  winner: whom all language models together
    would choose on the same tokens.  `UserError` when no margin will do.
    """
    needed = needed_margins(np.asarray(bigram_means, np.float64), 1)
    order = nearest(bigram_means, most)
    among_most = (order == winner[None]).any(0)
    own = np.where(among_most, np.take_along_axis(needed, winner[None], 0)[0], np.inf)
    margins = np.unique(np.concatenate([[0.0], own[np.isfinite(own)]]))
    share = np.searchsorted(np.sort(own), margins, side="right") / own.size
    if share[-1] < at_least:
        raise UserError(
            f"the {most} nearest bigram models hold the winner in {share[-1]:.1%} of texts and "
            f"never in {at_least:.1%}: allow more candidates, or ask for less"
        )
    return float(margins[share >= at_least][0])


def affordable_margin(
    bigram_means: Float[np.ndarray, "E B"],
    most: int,
    cost: Callable[[float], float],
    share: float = 0.02,
) -> float:
    """The largest margin, nats/token, whose candidates cost at most `share` on average.

    cost: share of one model's operations for a mean number of candidates (`scheduling_flops`).  0
    where even one candidate costs more.
    """
    ahead = np.sort(bigram_means - bigram_means.min(0, keepdims=True), axis=0)[1:most]
    margins = np.sort(ahead[np.isfinite(ahead)])
    kept = 1 + np.arange(1, len(margins) + 1) / bigram_means.shape[1]  # by the k-th margin
    low = np.searchsorted([cost(float(k)) for k in kept], share, side="right")
    return float(margins[low - 1]) if low else 0.0


def forward_flops(config: LmConfig, length: int) -> float:
    """Floating-point operations of one language model reading a text, vocabulary included."""
    return lm_flops_per_token(config, length) / 3 * length


def scheduling_flops(
    config: LmConfig, length: int, tokens: int, experts: int, kept: float, bigrams: bool = True
) -> float:
    """Floating-point operations spent on deciding over those of one language model reading the
    text of `length` tokens.

    The `kept` candidates' language models read the first `tokens`; the winner's pass is no cost of
    deciding, as its cache is what it then speaks from.  bigrams: each of the experts' bigram models
    reads them too, at 2 operations a token.
    """
    prefix = forward_flops(config, min(tokens, length))
    lookups = 2.0 * experts * min(tokens, length) if bigrams else 0.0
    return ((kept - 1) * prefix + lookups) / forward_flops(config, length)
