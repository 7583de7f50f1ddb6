"""Random permutations that are computed, not stored. Not in the paper."""

import math

import numpy as np
from jaxtyping import Int64, Integer, UInt64

_ROUNDS = 6
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTOR_1 = np.uint64(0xBF58476D1CE4E5B9)
_FACTOR_2 = np.uint64(0x94D049BB133111EB)
_SHIFT = np.uint64(31)


def mix(*values: Integer[np.ndarray, "..."] | int) -> UInt64[np.ndarray, "..."]:
    """A well-mixed 64-bit number for each tuple of integers (arrays broadcast); always the same."""
    shape = np.broadcast_shapes(*(np.shape(value) for value in values))
    state = np.zeros((*shape, 1), np.uint64)  # an array: uint64 scalars warn when they wrap around
    for value in values:
        # The finaliser of SplitMix64 (Steele, Lea and Flood 2014); uint64 wraps around, as it must.
        state = state + _unsigned(value)[..., None] + _STEP
        state = (state ^ (state >> np.uint64(30))) * _FACTOR_1
        state = (state ^ (state >> np.uint64(27))) * _FACTOR_2
        state = state ^ (state >> np.uint64(31))
    return state[..., 0]


def _unsigned(value: Integer[np.ndarray, "..."] | int) -> UInt64[np.ndarray, "..."]:
    if isinstance(value, int):
        return np.array(value & (1 << 64) - 1, np.uint64)
    return np.asarray(value).astype(np.uint64)


def permute(
    index: Int64[np.ndarray, " N"], size: int, key: UInt64[np.ndarray, "..."]
) -> Int64[np.ndarray, " N"]:
    """Where a random permutation of range(`size`) sends each index; one permutation per key.

    A Feistel network on Z_a x Z_b with a * b just above `size`; what falls outside range(size) goes
    through again (cycle walking), which few do, so the map is one to one.
    """
    a = max(1, math.isqrt(size - 1) + 1)
    moduli = (np.uint64(a), np.uint64(-(-size // a)))
    value = np.array(index, np.uint64)
    key = np.array(np.broadcast_to(key, value.shape))
    wrong = slice(None)
    while value[wrong].size:
        halves = list(np.divmod(value[wrong], moduli[1]))
        turn_key = key[wrong]
        for turn in range(_ROUNDS):
            turn_key = turn_key + _STEP
            noise = (halves[1 - turn % 2] + turn_key) * _FACTOR_1
            noise ^= noise >> _SHIFT
            noise *= _FACTOR_2
            noise ^= noise >> _SHIFT
            noise %= moduli[turn % 2]
            noise += halves[turn % 2]
            halves[turn % 2] = noise % moduli[turn % 2]
        value[wrong] = halves[0] * moduli[1] + halves[1]
        wrong = np.flatnonzero(value >= np.uint64(size))
    return value.astype(np.int64)
