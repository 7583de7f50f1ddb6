"""Windows of any number -> calls of one compiled program, all of the same shape.

Letters: E experts, B windows, L tokens per window.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from cr_jax import models
from cr_jax.config import SEEN, ModelConfig, Scoring, check_scoring
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.scoring.residuals import (
    Scores,
    counted,
    rebuilt_only,
    residuals_only,
    score_experts,
)


def score_rows(model: ModelConfig, params: Any, windows: Windows, rows: int, *,
               scoring: Scoring = SEEN, expert_chunk: int = 4, chunk: int = 8192) -> Scores:
    """Scores of every token by every expert, in calls of exactly `rows` windows, the last filled
    up; params as in `residual_rows`."""
    out = Scores(*(np.empty((jax.tree.leaves(params)[0].shape[0], *windows.tokens.shape), kind)
                   for kind in (np.float32, bool, np.float32)))
    for part, *call in _calls(model, windows, rows, scoring):
        scores = compiled(score_experts, model, params, *call, expert_chunk, chunk,
                          scoring.residual_rule)
        for kept, new in zip(out, scores, strict=True):
            kept[:, part] = np.asarray(new)[:, : part.stop - part.start]
    return out


def residual_rows(
    model: ModelConfig, params: Any, windows: Windows, rows: int, *, scoring: Scoring = SEEN,
    expert_chunk: int = 4, chunk: int = 8192,
) -> tuple[Float[np.ndarray, "E B"], Int[np.ndarray, " B"]]:
    """(nats over scored tokens, number of these) of each window, in calls of `rows` windows.

    params: [E, ...], of a bank its `weights`.  `residual_sums` of `score_rows` without the pass
    over seen tokens, which only the paper's rule needs.  `UserError` when the windows or the rule
    are not the model's.
    """
    return residual_rows_begun(model, params, windows, rows, scoring=scoring,
                               expert_chunk=expert_chunk, chunk=chunk)()


def residual_rows_begun(
    model: ModelConfig, params: Any, windows: Windows, rows: int, *, scoring: Scoring = SEEN,
    expert_chunk: int = 4, chunk: int = 8192,
) -> Callable[[], tuple[Float[np.ndarray, "E B"], Int[np.ndarray, " B"]]]:
    """`residual_rows` that does not wait for the device: what it gives back, called, does."""
    scoring = scoring.residual_rule  # static: how residuals are compared compiles nothing anew
    found = [np.zeros((jax.tree.leaves(params)[0].shape[0], 0), np.float32)]
    for part, *call in _calls(model, windows, rows, scoring):
        sums = compiled(residuals_only, model, params, *call, expert_chunk, chunk, scoring)
        found.append(sums[:, : part.stop - part.start])

    def read():
        sums = np.concatenate([np.asarray(x, np.float64) for x in found], 1)
        return sums, counted(windows.mask, scoring).sum(-1)

    return read


def rebuilt_rows(model: ModelConfig, params: Any, windows: Windows, rows: int, *,
                 expert_chunk: int = 4, chunk: int = 8192) -> Int[np.ndarray, "E B"]:
    """Tokens of each window that are rebuilt exactly; as `residual_rows`."""
    found = [compiled(rebuilt_only, model, params, *call, expert_chunk, chunk)
             [:, : part.stop - part.start] for part, *call in _calls(model, windows, rows, SEEN)]
    return np.concatenate([np.asarray(x) for x in found], 1)


def rows_per_call(count: int, batch: int) -> int:
    """Windows in one compiled call: `batch`, or for fewer the next power of four.

    A short text does not pay for a full batch, and four shapes serve every text.
    """
    rows = 1
    while rows < min(count, batch):
        rows *= 4
    return min(rows, batch)


def check_sizes(**sizes: int) -> None:
    """`UserError` unless each is a whole number of at least 1 (of experts, windows, tokens)."""
    for name, size in sizes.items():
        if not whole_number(size) or size < 1:
            raise UserError(f"{name} must be a whole number of at least 1, got {size!r}")


def whole_number(value: Any) -> bool:
    """Whether it counts things: an int, and no bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_windows(model: ModelConfig, tokens: Int[np.ndarray, "B L"],
                  mask: Bool[np.ndarray, "B L"]) -> None:
    """`UserError` unless experts of this model can read such windows."""
    if tokens.shape[1:] != (model.window,) or mask.shape != tokens.shape:
        raise UserError(f"windows of shape {tokens.shape} do not fit a bank whose experts read "
                        f"{model.window} tokens: cut the text with window={model.window}")
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < model.vocab_size:
        raise UserError(f"token ids must lie in [0, {model.vocab_size}): cut the text with the "
                        "bank's own tokenizer")


def _calls(model: ModelConfig, windows: Windows, rows: int, scoring: Scoring
           ) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    check_windows(model, np.asarray(windows.tokens), np.asarray(windows.mask))
    check_scoring(scoring, model)
    models.check_bottleneck(model, scoring.rate)
    return filled(windows, rows)


def filled(windows: Windows, rows: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """(which windows, tokens, mask), `rows` at a time; the last call repeats one as filling."""
    tokens, mask = np.asarray(windows.tokens, np.int32), np.asarray(windows.mask, bool)
    for i in range(0, len(tokens), rows):
        part = slice(i, min(i + rows, len(tokens)))
        fill = [(0, rows - (part.stop - i)), (0, 0)]
        yield part, np.pad(tokens[part], fill, "edge"), np.pad(mask[part], fill, "edge")


@functools.partial(
    jax.jit, static_argnames=("function", "model", "expert_chunk", "chunk", "scoring"))
def compiled(function: Callable, model: ModelConfig, params: Any, tokens: Any, mask: Any,
             expert_chunk: int, chunk: int, scoring: Scoring | None = None) -> Any:
    """One of `cr_jax.scoring.residuals`'s functions of the same arguments, as one program."""
    rule = () if scoring is None else (scoring,)
    return function(model, params, tokens, mask, expert_chunk, chunk, *rule)
