"""Which expert keeps a window, how its compressor writes it, and how its decoder reads it back.

    windows -> `chosen` -> `compress` -> codes -> `decompress` -> ids

Letters: B windows, L tokens of one, E experts.
"""

import functools
import hashlib
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cr_jax import models
from cr_jax.bank import Expert, ExpertBank
from cr_jax.config import ModelConfig
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.models import objective
from cr_jax.modular import memory_codes
from cr_jax.modular.memory_codes import Codes
from cr_jax.router import route_windows
from cr_jax.routing.cascade import Cascade
from cr_jax.scoring.batching import BatchSizes

CANDIDATES = 4  # experts that score a window in full: a near miss costs a few corrections


def chosen(bank: ExpertBank, windows: Windows, sizes: BatchSizes) -> Int[np.ndarray, " B"]:
    """The place of the expert that the bank's rule chooses for each window alone, of the
    `CANDIDATES` whose bigram models are nearest.

    `UserError` where no expert has a finite residual.
    """
    if len(bank.names) == 1:
        return np.zeros(len(windows), int)
    if len(bank.names) > CANDIDATES and len(bank.bigrams) == len(bank.names):
        found = Cascade(bank, CANDIDATES).route_windows(windows, sizes).expert
    else:
        found = route_windows(bank, windows, sizes).expert
    if (found < 0).any():
        raise UserError(
            "no expert of the bank has a finite residual: its parameters are of no use; train it "
            "again"
        )
    return found


def compressor_hash(expert: Expert) -> str:
    """Hex SHA-256 of an expert's compressor: paths, shapes and float32 numbers."""
    digest = hashlib.sha256()
    flat = flax.traverse_util.flatten_dict(expert.params, sep="/")
    for path in sorted(flat):
        x = np.ascontiguousarray(flat[path], np.float32)
        digest.update(f"{path} {x.shape}\n".encode())
        digest.update(x.data)
    return digest.hexdigest()


@functools.partial(jax.jit, static_argnames=("model", "dtype", "chunk"))
def compress(
    model: ModelConfig,
    params: Any,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    dtype: str,
    chunk: int = 8192,
) -> tuple[Codes, Int[Array, "B N"], Float[Array, "B N"]]:
    """(codes of windows by one expert, the ids that they give back [B, L], each one's probability).

    chunk: tokens whose logits stand in memory at once; 0: nothing is given back, [B, 0].
    """
    net = models.Autoencoder(model)
    codes = memory_codes.stored(net.apply(params, tokens, mask, method="encode"), dtype)
    if not chunk:
        return codes, tokens[:, :0], jnp.zeros((len(tokens), 0))
    return codes, *decompress(model, params, codes, mask, dtype, chunk)


def decompress(
    model: ModelConfig,
    params: Any,
    codes: Codes,
    mask: Bool[Array, "B L"],
    dtype: str,
    chunk: int = 8192,
) -> tuple[Int[Array, "B L"], Float[Array, "B L"]]:
    """(the ids that codes stand for by one expert, the probability of each): one parallel pass.

    Pure; mask: lengths alone.
    """
    z = memory_codes.values(codes, dtype, model.d_latent)
    h = models.Autoencoder(model).apply(params, z, mask, method="decode")
    none = jnp.zeros(mask.shape, jnp.int32)
    scores = objective.token_scores(h, models.head(model, params), none, chunk)
    return scores.predicted, scores.confidence
