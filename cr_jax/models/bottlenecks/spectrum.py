"""Which frequency, channel and slice the numbers of rotary latent queries start with.

Letters as in `query`: D model width, H heads, K head width, L window, M latents, S = ceil(L / M).
The D/2 pairs (k, K/2 + k) of all heads are numbered together.  Pair g has frequency g mod F and
channel floor(g / F), F = ceil(S/2): where a head has fewer pairs, a spectrum is shared by heads.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def _odd(width: int, span: int) -> Int[np.ndarray, " pairs"]:
    """2k + 1 of each pair's frequency pi (2k + 1) / S."""
    return 2 * (np.arange(width // 2) % -(-span // 2)) + 1


def channels(width: int, span: int) -> Int[np.ndarray, " pairs"]:
    """The channel of each pair."""
    return np.arange(width // 2) // -(-span // 2)


def angles(window: int, width: int, span: int) -> Float[Array, "L pairs"]:
    """theta_k i of each position i and pair; whole turns are taken off as integers."""
    turned = jnp.arange(window)[:, None] * jnp.asarray(_odd(width, span))[None] % (2 * span)
    return np.pi / span * turned.astype(jnp.float32)


def rope_angles(window: int, width: int, heads: int) -> Float[Array, "L pairs"]:
    """The same with the frequencies of rotary position embedding, base 10,000."""
    half = width // heads // 2
    theta = jnp.tile(10_000.0 ** (-jnp.arange(half, dtype=jnp.float32) / half), heads)
    return jnp.arange(window, dtype=jnp.float32)[:, None] * theta[None]


def place(width: int, heads: int) -> Int[np.ndarray, "2 pairs"]:
    """Where the two numbers of each pair stand in concatenated heads."""
    half = width // heads // 2
    head, k = np.divmod(np.arange(width // 2), half)
    first = 2 * half * head + k
    return np.stack([first, first + half])


def whole_pairs(width: int, heads: int, latent: int) -> Float[Array, "D Dz"]:
    """The identity; a narrower z takes the first pairs whole, and with them whole channels."""
    kept = np.sort(place(width, heads).T.reshape(-1)[:latent])
    return jnp.zeros((width, latent)).at[kept, np.arange(len(kept))].set(1)


def one_direction_a_channel(heads: int, span: int):
    """Initialiser of W_v [D, D]: the pairs of a channel see h along one direction w_c ~ N(0, 1/D).

    A real signal, so their second numbers are 0.  At the frequency pi, which odd S have, cosines
    have twice the norm, and the signal is sqrt(1/2): then each slice's transform is orthogonal.
    """

    def init(key, shape, dtype=jnp.float32):
        width, _ = shape
        channel = channels(width, span)
        directions = jax.random.normal(key, (width, channel[-1] + 1), dtype) * width**-0.5
        size = np.where(_odd(width, span) == span, 0.5**0.5, 1.0).astype(dtype)
        first, _ = place(width, heads)
        return jnp.zeros(shape, dtype).at[:, first].set(directions[:, channel] * size[None])

    return init


def slices(window: int, latents: int) -> Int[np.ndarray, " L"]:
    """The latent whose slice a position is of: latent m has those from floor(m L / M) on."""
    edges = np.arange(1, latents) * window // latents
    return np.searchsorted(edges, np.arange(window), side="right")
