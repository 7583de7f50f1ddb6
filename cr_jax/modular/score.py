"""nats of every token of windows by many language models of one shape.

    params [E, ...], tokens [B, L] -> token_nats -> nats [E, B, L]

Not in the paper.  Letters: E experts, B windows, L tokens of a window.
"""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from cr_jax.config import LmConfig
from cr_jax.errors import UserError
from cr_jax.models import lm, objective


def token_nats(
    config: LmConfig,
    params: Any,
    tokens: Integer[np.ndarray, "B L"],
    chunk: int = 8192,
    rows: int = 64,
) -> Float[np.ndarray, "E B L"]:
    """float32 nats of each token after those before it in its window, by every model.

    params: stacked [E, ...], as `stacked` makes them.  chunk: tokens whose logits stand in memory
    at once; rows: windows in one call of the compiled program, the last of which is filled by
    repeating a window.  What padding costs means nothing.  `UserError` for ids beyond the
    vocabulary.
    """
    check_ids(config, tokens)
    count = len(tokens)
    params = jax.device_put(params)  # once, not in every call
    nats = np.empty((_experts(params), count, tokens.shape[1]), np.float32)
    for start in range(0, count, rows):
        part = np.asarray(tokens[start : start + rows], np.int32)
        filled = np.pad(part, ((0, rows - len(part)), (0, 0)), "edge")
        nats[:, start : start + rows] = _nats(config, params, filled, chunk)[:, : len(part)]
    return nats


def check_ids(config: LmConfig, tokens: Integer[np.ndarray, "B L"]) -> None:
    """`UserError` for ids beyond the vocabulary of language models."""
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < config.vocab_size:
        raise UserError(
            f"token ids must lie in [0, {config.vocab_size}): cut the text with the tokenizer "
            "that the language models were trained with"
        )


def stacked(params: Iterable[Any]) -> Any:
    """Parameters of several models as one pytree with a leading axis E."""
    return jax.tree.map(lambda *x: jnp.stack(x), *params)


# The model is static: one program for all models of a shape.
@functools.partial(jax.jit, static_argnames=("config", "chunk"))
def _nats(
    config: LmConfig, params: Any, tokens: Int[Array, "B L"], chunk: int
) -> Float[Array, "E B L"]:
    net = lm.make_lm(config)

    def one(own):
        states = net.apply(own, tokens)
        return objective.token_scores(states, lm.head(config, own), tokens, chunk).nll

    # One after another: side by side, each expert's logits would stand in memory at once.
    return jax.lax.map(one, params)


def _experts(params) -> int:
    return jax.tree.leaves(params)[0].shape[0]
