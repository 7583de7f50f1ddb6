"""Which frequency, channel and slice each number of rotary latent queries starts with.

Letters as in `query`: D model width, H heads, K head width, M latents, L window, S = ceil(L / M).
The D/2 pairs (k, K/2 + k) of all heads are numbered together.
"""

import numpy as np
from jaxtyping import Float, Int


def frequencies(span: int) -> int:
    """How many odd multiples of pi / S one channel's spectrum has: S/2, an odd S one real more."""
    return -(-span // 2)


def angles(window: int, width: int, span: int) -> Float[np.ndarray, "L pairs"]:
    """theta_k i of each position i and pair: theta_k = pi (2k + 1) / S, k = pair mod S/2."""
    odd = 2 * (np.arange(width // 2) % frequencies(span)) + 1
    # Whole turns are taken off as integers: exact for any window.
    return np.pi * (np.arange(window)[:, None] * odd % (2 * span)) / span


def rope_angles(window: int, width: int, heads: int) -> Float[np.ndarray, "L pairs"]:
    """The frequencies of rotary position embedding, base 10,000, instead."""
    half = width // heads // 2
    theta = np.tile(10_000.0 ** (-np.arange(half) / half), heads)
    return np.arange(window)[:, None] * theta


def channels(width: int, span: int) -> Int[np.ndarray, " pairs"]:
    """The channel of each pair: one channel's pairs hold its whole spectrum, across heads."""
    return np.arange(width // 2) // frequencies(span)


def sizes(width: int, span: int) -> Float[np.ndarray, " pairs"]:
    """1, or sqrt(1/2) at the frequency pi, whose cosines have twice the norm: then the transform
    of a slice is orthogonal but for one factor."""
    odd = 2 * (np.arange(width // 2) % frequencies(span)) + 1
    return np.where(odd == span, 0.5**0.5, 1.0)


def place(width: int, heads: int) -> Int[np.ndarray, "2 pairs"]:
    """Where the two numbers of each pair stand in concatenated heads."""
    half = width // heads // 2
    head, k = np.divmod(np.arange(width // 2), half)
    first = head * 2 * half + k
    return np.stack([first, first + half])


def whole_pairs(width: int, heads: int, latent: int) -> Float[np.ndarray, "D Dz"]:
    """The identity; a narrower z takes the first pairs whole, and with them whole channels."""
    kept = np.sort(place(width, heads).T.reshape(-1)[:latent])
    matrix = np.zeros((width, latent), np.float32)
    matrix[kept, np.arange(len(kept))] = 1
    return matrix


def slices(window: int, latents: int) -> Int[np.ndarray, " L"]:
    """The latent whose slice a position is of: latent m has those from floor(m L / M) on."""
    edges = np.arange(1, latents) * window // latents
    return np.searchsorted(edges, np.arange(window), side="right")
