"""Study `nested_latents`: how much of a window do its first k latents rebuild?

One model that was trained with `config.train.nested` serves every number of latents up to M: the
first k of a window's M latents are a code of k latents.  Not in the paper.
"""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cr_jax import models
from cr_jax.bank import ExpertBank
from cr_jax.config import Experiment
from cr_jax.data.windows import Windows
from cr_jax.models import objective
from cr_jax.scoring.batching import BatchSizes, in_batches


def numbers(latents: int) -> tuple[int, ...]:
    """1, 2, 4, ... below M, and M.

    >>> numbers(12)
    (1, 2, 4, 8, 12)
    """
    return (*(2**i for i in range(latents.bit_length()) if 2**i < latents), latents)


def check(experiment: Experiment) -> None:
    """`UserError` for a bottleneck whose latents are no codes of the whole window."""
    models.check_latents(experiment.model, experiment.model.latents)


def run(
    bank: ExpertBank, own: Mapping[str, Windows], ks: Sequence[int], sizes: BatchSizes | None = None
) -> dict:
    """-> {"k", "tra" {expert: [k]}, "nll" {expert: [k]}, nats/token}: each expert on its own test
    windows, all tokens seen, from the first k latents."""
    sizes = sizes or BatchSizes.for_device()
    measured: dict = {"k": list(ks), "tra": {}, "nll": {}}
    for name, windows in own.items():
        tokens, tra, nll = windows.mask.sum(), [], []
        score = functools.partial(_sums, bank.model, bank.expert_params(name), chunk=sizes.tokens)
        for k in ks:
            of_k = functools.partial(score, latents=jnp.int32(k))
            right, nats = in_batches(of_k, windows, sizes.rows(len(windows)))
            tra.append(float(right.sum() / tokens))
            nll.append(float(nats.sum(dtype=np.float64) / tokens))
        measured["tra"][name], measured["nll"][name] = tra, nll
    return {"nested_latents": measured}


@functools.partial(jax.jit, static_argnames=("model", "chunk"))
def _sums(model, params, tokens, mask, *, latents, chunk):
    """(tokens rebuilt exactly, nats) of each window [B], from its first latents."""
    rate = jnp.full(len(tokens), latents, jnp.int32)
    h, _ = models.Autoencoder(model).apply(params, tokens, mask, rate)
    scores = objective.token_scores(h, models.head(model, params), tokens, chunk)
    return jnp.sum(scores.correct & mask, -1), jnp.sum(jnp.where(mask, scores.nll, 0.0), -1)
