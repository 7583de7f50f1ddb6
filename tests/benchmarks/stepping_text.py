"""Text of three made-up domains: each goes on by a step of its own."""

import numpy as np

from cr_jax.data import Windows

WINDOW, STEPS = 32, {"up": 1, "down": -1, "leaps": 5}
NAMES = tuple(STEPS)


def text(name, count, seed):
    """Ids that go on by the domain's step from anywhere: [count, WINDOW]."""
    first = np.random.default_rng(seed).integers(0, 256, (count, 1))
    return ((first + np.arange(WINDOW) * STEPS[name]) % 256).astype(np.int32)


def windows(tokens, length=WINDOW):
    mask = np.broadcast_to(np.arange(WINDOW) < length, tokens.shape)
    return Windows(tokens, mask, np.arange(len(tokens)))
