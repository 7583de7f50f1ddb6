"""Study `bits`: what z costs in bits, and what is left of the text when it costs less.

Not in the paper, and a correction to how its headline reads: 64x is a ratio of lengths (512 tokens
to 8 latents), not of sizes.  8 latents of 512 numbers are 8 numbers per token; in bfloat16 that is
128 bits for a token whose raw id takes 15.6.  Rate and distortion are therefore given as bits per
token beside TRA, next to raw ids and to zstd and xz on the same text.
"""

import dataclasses
import functools
import lzma
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import zstandard
from jaxtyping import Float, Integer

from cr_jax import models
from cr_jax.config import ModelConfig
from cr_jax.errors import UserError
from cr_jax.models import objective, quantizer
from cr_jax.models.layers import compute_dtype

BITS = (8, 6, 5, 4, 3, 2)
_ABS_MAX = (8, 4)  # bits also tried with the range up to the largest |z|


class Scheme(NamedTuple):
    """One way to write z down; `quantize(z [N, Dz]) -> (codes [N, Dz], values [N, Dz])`."""

    name: str
    bits: float  # per number, as stored without entropy coding
    levels: int  # codes are 0 .. levels - 1
    quantize: Callable


def run(
    model: ModelConfig,
    params: Any,
    windows: Integer[np.ndarray, "N L"],
    fit_windows: Integer[np.ndarray, "F L"],
    bits: Sequence[int] = BITS,
    batch: int = 128,
) -> dict:
    """Rates of z and what each leaves of `windows`; scales and code tables come from `fit_windows`.

    With `model.levels` the one scheme is the model's own finite scalar quantiser, otherwise
    bfloat16 and symmetric integers of `bits` bits with one scale per channel.

    -> {"rows": [{"scheme", "bits_per_number", "bits_per_token" (nominal: every number takes
    bits_per_number), "entropy_bits_per_token" (entropy of each channel's codes in these windows,
    what an ideal coder with their own tables pays; low for bfloat16, whose codes outnumber the
    samples), "coded_bits_per_token" (the same with tables counted on `fit_windows`, so a coder
    that a receiver can run; None for 16 and more bits), "tra", "nll" (nats/token),
    "window_exact"}], "length_ratio", "numbers_per_token", "says", "tokens", "fit_tokens"}; what the
    same windows cost without z: `raw_bits`.  Raises `UserError`.
    """
    if not len(windows) or not len(fit_windows):
        raise UserError("bits: at least one window to score and one to fit scales on")
    plain = dict(params["params"])
    finite = plain.pop("quantizer", None)
    # The finite scalars are one more scheme on the latents before rounding: what is sent is codes.
    base, plain = dataclasses.replace(model, levels=0), {"params": plain}
    fit = latents(base, plain, fit_windows, batch).reshape(-1, model.d_latent)
    z = latents(base, plain, windows, batch)
    flat = z.reshape(-1, model.d_latent)
    per_token = model.latents / model.window
    ways = (
        [finite_scheme(finite, model.levels)]
        if model.levels
        else integer_schemes(fit, bits, compute_dtype(base))
    )
    rows = []
    for way in ways:
        codes, values = map(np.asarray, way.quantize(flat))
        scores = decoded(base, plain, values.reshape(z.shape), windows, batch)
        coded = None
        if 0 < way.levels <= 256:
            coded = per_token * coded_bits(codes, np.asarray(way.quantize(fit)[0]), way.levels)
        rows.append(
            {
                "scheme": way.name,
                "bits_per_number": way.bits,
                "bits_per_token": way.bits * model.d_latent * per_token,
                "entropy_bits_per_token": per_token * entropy_bits(codes) if way.levels else None,
                "coded_bits_per_token": coded,
                **{k: scores[k] for k in ("tra", "nll", "window_exact")},
            }
        )
    ratio, numbers = model.window / model.latents, model.latents * model.d_latent / model.window
    return {
        "rows": rows,
        "length_ratio": ratio,
        "numbers_per_token": numbers,
        "says": f"{ratio:g}x is a ratio of lengths, {model.window} tokens to {model.latents} "
        f"latents, not of sizes: every token is paid for with {numbers:g} numbers",
        "tokens": int(windows.size),
        "fit_tokens": int(fit_windows.size),
    }


def raw_bits(windows: Integer[np.ndarray, "N L"], ids: int, text: bytes) -> dict[str, float]:
    """{"raw_id_bits_per_token", "unigram_bits_per_token" (entropy of the ids themselves), and what
    `text_bits` gives}.  ids: size of the tokenizer's vocabulary; text: the windows' tokens, UTF-8.
    """
    return {
        "raw_id_bits_per_token": math.log2(ids),
        "unigram_bits_per_token": entropy_bits(windows.reshape(-1, 1)),
        **text_bits(text, windows.size),
    }


def integer_schemes(
    fit: Float[np.ndarray, "N Dz"], bits: Sequence[int], dtype: Any
) -> Iterator[Scheme]:
    """z as computed, in bfloat16, and in integers whose scales are fitted on `fit`."""
    if dtype != jnp.bfloat16:
        yield Scheme(str(dtype), 8 * dtype.itemsize, 0, lambda z: (z, z))
    yield Scheme("bfloat16", 16, 2**16, _bfloat16)
    for b in bits:
        for clip in (True, False) if b in _ABS_MAX else (True,):
            q = quantizer.fit_symmetric(fit, b, clip)
            name = f"int{b}" if clip else f"int{b}, range up to the largest"
            yield Scheme(name, b, 2 * q.top + 1, _both(q.codes, q.values))


def finite_scheme(finite: quantizer.Finite, levels: int) -> Scheme:
    """The model's own quantiser (`config.model.levels`)."""
    return Scheme(
        f"fsq{levels}",
        math.log2(levels),
        levels,
        _both(
            lambda z: quantizer.finite_codes(z, finite, levels),
            lambda codes: quantizer.finite_values(codes, finite, levels),
        ),
    )


def _both(codes, values):
    def quantize(z):
        coded = codes(z)
        return coded, values(coded)

    return quantize


def _bfloat16(z):
    short = z.astype(jnp.bfloat16)
    return short.view(np.uint16), short.astype(np.float32)


def latents(
    model: ModelConfig, params: Any, windows: Integer[np.ndarray, "N L"], batch: int = 128
) -> Float[np.ndarray, "N M Dz"]:
    """z of each window, as float32."""
    return np.concatenate(
        [
            np.asarray(_encode(model, params, part))[:count]
            for part, count in _batches(windows, batch)
        ]
    )


def decoded(
    model: ModelConfig,
    params: Any,
    z: Float[np.ndarray, "N M Dz"],
    windows: Integer[np.ndarray, "N L"],
    batch: int = 128,
) -> dict[str, float]:
    """`objective.metrics` of decoding z and comparing with the windows."""
    total = {}
    for (part, count), (held, _) in zip(_batches(windows, batch), _batches(z, batch), strict=True):
        mask = np.broadcast_to(np.arange(len(part))[:, None] < count, part.shape)
        for k, v in jax.device_get(_decode(model, params, held, part, mask)).items():
            total[k] = total.get(k, 0) + float(v)
    return objective.metrics(total)


def _batches(x, batch):
    """Parts of one shape [batch, ...], the last filled with zeros, and how many rows are real."""
    for i in range(0, len(x), batch):
        part = x[i : i + batch]
        count = len(part)
        part = np.pad(part, ((0, batch - count), *[(0, 0)] * (x.ndim - 1)))
        yield part.astype(np.float32 if part.dtype.kind == "f" else np.int32), count


# The model is static: one program for all schemes.
@functools.partial(jax.jit, static_argnums=0)
def _encode(model, params, tokens):
    return models.Autoencoder(model).apply(params, tokens, method="encode").astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def _decode(model, params, z, tokens, mask):
    h = models.Autoencoder(model).apply(params, z, method="decode")
    scores = objective.token_scores(h, models.head(model, params), tokens, 32768)
    return objective.score_sums(scores, mask)


def entropy_bits(codes: Integer[np.ndarray, "N Dz"]) -> float:
    """Bits per latent: the entropies of the channels' codes, added up."""
    total = 0.0
    for channel in np.ascontiguousarray(codes.T):
        share = np.bincount(channel) / len(channel)
        share = share[share > 0]
        total -= float(np.sum(share * np.log2(share)))
    return total


def coded_bits(
    codes: Integer[np.ndarray, "N Dz"], fit: Integer[np.ndarray, "F Dz"], levels: int
) -> float:
    """Bits per latent of an ideal coder whose tables count `fit`, plus one half per level."""
    total = 0.0
    for channel, before in zip(np.ascontiguousarray(codes.T), np.ascontiguousarray(fit.T)):
        table = np.bincount(before, minlength=levels) + 0.5
        cost = np.log2(table.sum() / table)
        total += float(np.bincount(channel, minlength=levels) @ cost) / len(channel)
    return total


def text_bits(text: bytes, tokens: int) -> dict[str, float]:
    """{"utf8_bits_per_token", "zstd_bits_per_token", "xz_bits_per_token"}: the whole text as one
    stream, zstd level 19 and xz preset 9, so they see all earlier windows where z sees its own.
    """
    sizes = {
        "utf8": len(text),
        "zstd": len(zstandard.compress(text, 19)),
        "xz": len(lzma.compress(text, preset=9)),
    }
    return {f"{k}_bits_per_token": 8 * v / tokens for k, v in sizes.items()}
