"""What one expert makes of a text: the original rebuilt from its latents, differences marked."""

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int32

from cr_jax import models
from cr_jax.bank import ExpertBank
from cr_jax.data.text_stream import windows_of_text
from cr_jax.errors import STEERING
from cr_jax.models import objective
from cr_jax.routing.document import Text
from cr_jax.scoring.batching import BatchSizes, in_batches


class Rebuilt(NamedTuple):
    """T consecutive tokens of a text: ids, what the expert rebuilt, and its nll in nats."""

    tokens: Int32[np.ndarray, " T"]
    rebuilt: Int32[np.ndarray, " T"]
    nll: Float[np.ndarray, " T"]


def reconstruct(
    bank: ExpertBank, name: str, text: Text, sizes: BatchSizes | None = None, latents: int = 0
) -> Iterator[Rebuilt]:
    """Encodes and decodes a text (as in `router.route`) with one expert, batch by batch.

    latents: how many of the M latents the decoder is given, the first ones; 0: all.  `UserError`
    when the bank has no such expert or not so many latents.  Nothing is yielded for an empty text.
    """
    models.check_latents(bank.model, latents)
    sizes = sizes or BatchSizes.for_device()
    score = functools.partial(
        _rebuilt,
        bank.model,
        bank.expert_params(name),
        latents=np.int32(latents) if latents else None,  # an array: one program for all numbers
        chunk=sizes.tokens,
    )
    rows = 0
    for windows in windows_of_text(bank.tokenizer, text, bank.model.window, sizes.windows):
        rows = rows or sizes.rows(len(windows.tokens))
        rebuilt, nll = in_batches(score, windows, rows, axis=-2)
        mask = windows.mask
        yield Rebuilt(windows.tokens[mask], rebuilt[mask], nll[mask])


@functools.partial(jax.jit, static_argnames=("model", "chunk"))
def _rebuilt(model, params, tokens, mask, latents, chunk):
    rate = None if latents is None else jnp.full(len(tokens), latents, jnp.int32)
    h, _ = models.Autoencoder(model).apply(params, tokens, mask, rate)
    scores = objective.token_scores(h, models.head(model, params), tokens, chunk)
    return scores.predicted, scores.nll


def marked(tokenizer: Any, parts: Iterable[Rebuilt], terminal: bool = False) -> Iterator[str]:
    """The text with each run of wrong tokens as `[-original-]{+rebuilt+}`.

    Where every token is right, the pieces joined are the text itself.  For a terminal the original
    is struck out in red, the rebuilt is green, and control characters become pictures: a file
    must not steer the terminal.
    """
    left = np.zeros((2, 0), np.int32)
    for part in parts:
        pair = np.concatenate([left, np.stack([part.tokens, part.rebuilt])], axis=1)
        end = _whole_characters(tokenizer, pair[0])
        yield from _runs(tokenizer, pair[:, :end], terminal)
        left = pair[:, end:]
    yield from _runs(tokenizer, left, terminal)


def _runs(tokenizer, pair, terminal: bool) -> Iterator[str]:
    right = pair[0] == pair[1]
    edges = [0, *(np.flatnonzero(np.diff(right)) + 1), len(right)]
    for start, end in itertools.pairwise(edges):
        if start == end:
            continue
        original, rebuilt = (_decode(tokenizer, row[start:end]) for row in pair)
        if terminal:
            original, rebuilt = (STEERING.sub(_picture, x) for x in (original, rebuilt))
        if right[start]:
            yield original
        elif terminal:
            yield f"\x1b[31;9m{original}\x1b[0m\x1b[32;1m{rebuilt}\x1b[0m"
        else:
            yield f"[-{original}-]{{+{rebuilt}+}}"


def _picture(match) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def _decode(tokenizer, ids) -> str:
    # The model's vocabulary is rounded up: ids past the tokenizer's stand for nothing.
    return tokenizer.decode(np.where(ids < tokenizer.vocab_size, ids, tokenizer.pad_id))


def _whole_characters(tokenizer, ids) -> int:
    """How many ids end with a whole character; one token can be a part of one."""
    for back in range(min(4, len(ids) + 1)):
        end = len(ids) - back
        if not _decode(tokenizer, ids[max(0, end - 8) : end]).endswith("\ufffd"):
            return end
    return len(ids)
