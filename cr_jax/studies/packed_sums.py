"""Sums of residuals in half the space: float16 above the least of the experts, which stays float32.

Half precision of the sums themselves changes which of two near experts wins: between 2,048 and
4,096 nats it rounds to 2 nats.  What a window costs above its nearest expert is exact to 0.05 %, so
the winner stays the winner.  Letters: E experts, N windows.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

LEAST = ":least"


def pack(sums: Mapping[str, Shaped[np.ndarray, "E N"]]) -> dict[str, np.ndarray]:
    """{key: float16 [E, N] above key:least, key:least: float32 [N]}.  Counts of tokens, the keys
    that end in `:correct`, become uint16."""
    packed = {}
    for key, values in sums.items():
        if key.endswith(":correct"):
            packed[key] = values.astype(np.uint16)
            continue
        least = values.min(0).astype(np.float32)
        packed |= {key: (values - least).astype(np.float16), key + LEAST: least}
    return packed


def unpack(stored: Mapping[str, np.ndarray]) -> dict[str, Shaped[np.ndarray, "E N"]]:
    """The sums of `pack`, as float32; what was never packed comes back as it is."""
    return {
        key: (values + stored[key + LEAST] if key + LEAST in stored else values)
        for key, values in stored.items()
        if not key.endswith(LEAST)
    }
