"""In which order domains arrive: near ones after each other, far ones, or at random."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from cr_jax.studies.continual.scores import Scores

NEAR, FAR, RANDOM = "near", "far", "random"
SEEDS = (0, 1, 2)


def distance(scores: Scores) -> Float[np.ndarray, "E E"]:
    """How far two domains are: what each other's expert loses on their validation windows beside
    their own expert, nats/token, both ways added."""
    lost = np.array(
        [
            scores.valid[name].mean(1) - scores.valid[name][e].mean()
            for e, name in enumerate(scores.names)
        ]
    )
    return lost + lost.T


def orders(scores: Scores, seeds: Sequence[int] = SEEDS) -> dict[str, tuple[str, ...]]:
    """{"near", "far", "random_0", ...}: near: each domain follows the nearest that is left, from
    one of the nearest pair on; far: the farthest likewise."""
    apart = distance(scores)
    named = lambda places: tuple(scores.names[int(i)] for i in places)
    drawn = {
        f"{RANDOM}_{seed}": named(np.random.default_rng(seed).permutation(len(apart)))
        for seed in seeds
    }
    return {NEAR: named(_chain(apart)), FAR: named(_chain(-apart)), **drawn}


def _chain(cost) -> list[int]:
    """Greedy: from one of the cheapest pair always to what is cheapest."""
    cost = np.where(np.eye(len(cost), dtype=bool), np.inf, cost)
    at = int(cost.argmin() // len(cost))
    chain, left = [at], set(range(len(cost))) - {at}
    while left:
        at = min(left, key=lambda i: (cost[at, i], i))
        chain.append(at)
        left.remove(at)
    return chain
