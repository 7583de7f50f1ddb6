"""One language model that speaks for several: the mean of their weights.

    nats of a prefix [E, B] -> posterior -> shares [B, E]
    params [E, ...], shares [B, E], tokens [B, L] -> merged_nats -> nats [B, L]

The expert with the fewest nats on a short prefix is sometimes another domain's, and a text then
costs more until its end.  Experts' language models are branches of one seed and can be averaged
(Branch-Train-Merge, arXiv 2208.03306): the mean of their weights is a model of what they all have
read, and costs what one of them costs.  With n_e the nats of the whole prefix by expert e, a
text's model has the weights

    sum_e p_e w_e,    p_e proportional to exp(-temper n_e) for the `keep` nearest, 0 for the others.

temper is an inverse temperature: 1 is Bayes' rule, 0 a plain mean of the nearest, infinity the
nearest expert alone.  Gates that are trained to merge experts: SMEAR (arXiv 2306.03745); here
nothing is trained.  Not in the paper.
Letters: E experts, B texts, L tokens of a text.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from cr_jax.config import LmConfig
from cr_jax.models import lm, objective
from cr_jax.modular.expected import tempered_posterior
from cr_jax.modular.schedule import nearest
from cr_jax.modular.score import check_ids

KEEP = 4  # experts in a mean at most
BESIDE = 4  # texts whose merged models are in memory at once


@functools.partial(jax.jit, static_argnames="keep")
def posterior(prefix: Float[Array, "E B"], temper: Any, keep: int = KEEP) -> Float[Array, "B E"]:
    """Shares of the experts in each text's model, which sum to 1.

    prefix: nats of the whole prefix of each text by each expert.  An expert whose nats are not
    finite has share 0; where that is so of all experts, all shares of the text are 0.
    `UserError` unless `keep` is at least 1.
    """
    kept = nearest(prefix, keep)
    shares = tempered_posterior(jnp.where(kept, prefix, jnp.inf), temper)
    return jnp.where(jnp.any(kept, axis=0), shares, 0).T


@jax.jit
def merged(params: Any, shares: Float[Array, " E"]) -> Any:
    """The mean of parameters [E, ...], weighted by shares; float32."""
    return jax.tree.map(
        lambda x: jnp.tensordot(shares.astype(jnp.float32), x.astype(jnp.float32), 1), params
    )


def merged_nats(
    config: LmConfig,
    params: Any,
    shares: Float[np.ndarray, "B E"],
    tokens: Integer[np.ndarray, "B L"],
    keep: int = KEEP,
    rows: int = 64,
) -> Float[np.ndarray, "B L"]:
    """float32 nats of each token given those before it, each text by its own merged model.

    params: stacked [E, ...]; shares: of `posterior`; keep: how many shares of a text are read, the
    largest ones; no more of them may be above 0.  rows: texts in one call of the compiled program.
    `UserError` for ids beyond the vocabulary.
    """
    check_ids(config, tokens)
    count = len(tokens)
    params = jax.device_put(params)  # once, not in every call
    keep = min(keep, shares.shape[1])
    nats = np.empty(tokens.shape, np.float32)
    for start in range(0, count, rows):
        some = slice(start, start + rows)
        part, its = np.asarray(tokens[some], np.int32), np.asarray(shares[some], np.float32)
        fill = ((0, rows - len(part)), (0, 0))
        found = _nats(config, params, np.pad(its, fill, "edge"), np.pad(part, fill, "edge"), keep)
        nats[some] = found[: len(part)]
    return nats


# The model is static: one program for all models of a shape.
@functools.partial(jax.jit, static_argnames=("config", "keep"))
def _nats(
    config: LmConfig, params: Any, shares: Float[Array, "B E"], tokens: Int[Array, "B L"], keep: int
) -> Float[Array, "B L"]:
    net = lm.make_lm(config)

    def one(text):
        its, row = text
        # Only the parameters of these experts are read.
        its, places = jax.lax.top_k(its, keep)
        own = merged(jax.tree.map(lambda x: x[places], params), its)
        states = net.apply(own, row[None])
        return objective.token_scores(states, lm.head(config, own), row[None]).nll[0]

    return jax.lax.map(one, (shares, tokens), batch_size=min(BESIDE, len(tokens)))
