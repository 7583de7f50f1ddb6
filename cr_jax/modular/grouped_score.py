"""nats of documents that are each spoken by their own expert: grouped by expert, read once.

    experts [B], tokens [B, L] -> token_nats of each expert's documents -> nats [B, L]

Not in the paper.  Letters: B documents or windows, L tokens, E experts.
"""

import jax
import numpy as np
from jaxtyping import Float, Integer

from cr_jax.modular.score import token_nats
from cr_jax.modular.speakers import Models


def spoken_nats(
    models: Models,
    experts: Integer[np.ndarray, " B"],
    tokens: Integer[np.ndarray, "B L"],
    *,
    rows: int = 32,
    chunk: int = 8192,
) -> Float[np.ndarray, "B L"]:
    """float32 nats of each token by the expert of its document.

    Each model is asked for once.  A call reads `rows` documents, and an expert's last ones the next
    power of two: few shapes, little filling.  What padding costs means nothing.
    """
    nats = np.empty(tokens.shape, np.float32)
    for expert in np.unique(experts):
        own = np.flatnonzero(experts == expert)
        params = jax.device_put(models.stack(np.array([expert])))
        for start in range(0, len(own), rows):
            some = own[start : start + rows]
            size = min(rows, 1 << (len(some) - 1).bit_length())
            nats[some] = token_nats(models.config, params, tokens[some], chunk, size)[0]
    return nats
