"""What an expert's adapter reads of a memory, and what text costs after that.

    memory -> latents of the last windows before a row, and their ages -> nats of its tokens

The adapter is `models.lm.latent_reader`, its training `memory_reader_training`.  Not in the paper.
Letters: B rows, L tokens of one, W windows of a memory, P of them read, M latents, Dz their width.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from cr_jax.config import LmConfig
from cr_jax.models import lm, objective
from cr_jax.models.lm import latent_reader
from cr_jax.modular import memory_codes
from cr_jax.modular.memory import Memory


class Adapters(NamedTuple):
    """params: of each expert's adapter by its name; past: the most windows that they know."""

    params: Mapping[str, Any]
    past: int


@dataclasses.dataclass(frozen=True, eq=False)
class Latents:
    """What an adapter may read of a memory.  z: float32 [W, M, Dz]; own: of each window whether
    this expert wrote it; past: the most windows that are read, the last ones."""

    z: Float[np.ndarray, "W M Dz"]
    own: Any  # bool [W]
    past: int

    @classmethod
    def of(cls, kept: Memory, expert: str, past: int) -> "Latents":
        """Of a memory that keeps latents."""
        values = memory_codes.values(kept.codes, kept.options.dtype, kept.model.d_latent)
        labels = list(kept.writers)
        label = labels.index(expert) if expert in labels else -2
        return cls(np.asarray(values), kept.expert == label, past)

    def before(
        self, windows: Int[np.ndarray, " B"]
    ) -> tuple[Float[np.ndarray, "B P M Dz"], Int[np.ndarray, "B 1 P"]]:
        """(latents, ages) of the `past` windows before each of these; an age of 0: not read."""
        back = np.arange(self.past, 0, -1)
        at = windows[:, None] - back[None]
        kept = np.maximum(at, 0)
        ages = np.where((at >= 0) & self.own[kept], back[None], 0)
        return self.z[kept], ages[:, None].astype(np.int32)


def read_nats(
    config: LmConfig,
    params: Any,
    reader: Any,
    tokens: Int[np.ndarray, "B L"],
    read: tuple[Float[np.ndarray, "B P M Dz"], Int[np.ndarray, "B 1 P"]],
    rows: int = 32,
) -> Float[np.ndarray, "B L"]:
    """float32 nats of each token after those before it in its row and the latents of `read`, as
    `Latents.before` gives them.  params: of one decoder; reader: of its adapter."""
    out = np.empty(tokens.shape, np.float32)
    params, reader = jax.device_put((params, reader))
    for start in range(0, len(tokens), rows):
        part = [np.asarray(x[start : start + rows]) for x in (tokens, *read)]
        count = len(part[0])
        fill = lambda x, n=count: np.pad(x, ((0, rows - n), *((0, 0),) * (x.ndim - 1)), "edge")
        found = _nats(config, params, reader, *map(fill, part))
        out[start : start + rows] = found[:count]
    return out


@functools.partial(jax.jit, static_argnames="config")
def _nats(config: LmConfig, params, reader, tokens, z, ages):
    h = latent_reader.states(config, params, reader, tokens, z, ages)
    return objective.token_scores(h, lm.head(config, params), tokens, 8192).nll
