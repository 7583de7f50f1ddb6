"""Windows that go from one domain to another at known places.

Real documents that mix prose and code are a domain of their own; of these the switches are known.
Not in the paper.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from cr_jax.data.windows import Windows
from cr_jax.errors import UserError

CODE = "code"  # with which the names of domains of code begin


def splices(
    domains: Mapping[str, Windows], count: int, seed: int = 0, shortest: int = 32
) -> tuple[Windows, Int[np.ndarray, "N L"]]:
    """(windows, the place of the domain that each token is of) of two domains in turn.

    One domain is of code and the other is not, where there are both; pieces are `shortest` to four
    times as many tokens, which keep their places in their window.  `UserError` for fewer than two
    domains with full windows.
    """
    full = {n: w.tokens[w.mask.all(-1)] for n, w in domains.items()}
    names = list(domains)
    usable = [n for n in names if len(full[n])]
    if len(usable) < 2:
        raise UserError("splices need full windows of two domains or more; give more test text")
    code = [n for n in usable if n.startswith(CODE)]
    other = [n for n in usable if n not in code]
    draw = np.random.default_rng([seed, count])
    tokens, label = [], []
    for _ in range(count):
        pair = (
            [str(draw.choice(code)), str(draw.choice(other))]
            if code and other
            else [str(n) for n in draw.choice(usable, 2, replace=False)]
        )
        draw.shuffle(pair)
        rows = [full[n][draw.integers(len(full[n]))] for n in pair]
        turn = _turns(len(rows[0]), shortest, draw)
        tokens.append(np.where(turn == 0, *rows))
        label.append(np.where(turn == 0, names.index(pair[0]), names.index(pair[1])))
    made = np.stack(tokens).astype(np.int32)
    windows = Windows(made, np.ones(made.shape, bool), np.arange(count, dtype=np.int64))
    return windows, np.stack(label)


def _turns(length: int, shortest: int, draw: np.random.Generator) -> Int[np.ndarray, " L"]:
    """0 and 1 in runs, two at least."""
    shortest = min(shortest, max(1, length // 4))
    longest = max(shortest, min(4 * shortest, length // 2))
    runs = draw.integers(shortest, longest + 1, -(-length // shortest))
    return np.repeat(np.arange(len(runs)) % 2, runs)[:length]
