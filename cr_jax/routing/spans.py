"""The cheapest way to cut a text into spans, each of one expert.  Not in the paper.

    cost [E, T] nats of each token by each expert -> the spans with the least

    sum of cost + switch[a, b] for every change from expert a to b,   every span >= minimum tokens

A semi-Markov path, found exactly: F[t, e] is the least cost of the first t tokens whose last span
is expert e's and long enough, G[t, e] that of beginning a span of e at t,

    F[t, e] = min(F[t-1, e] + cost[e, t-1],  G[t-m, e] + sum(cost[e, t-m:t]))
    G[t, e] = min over other experts a of F[t, a] + switch[a, e]

Letters: E experts, T tokens, m the minimum.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Span(NamedTuple):
    """Tokens start..end (end left out) and the place of their expert."""

    start: int
    end: int
    expert: int


class Path(NamedTuple):
    """What a traceback needs, of one text; row t - 1 is after t tokens."""

    begun: Bool[Array, "T E"]  # the span that is open there began m tokens before
    origin: Int[Array, "T E"]  # whose span ends where one of e begins
    last: Int[Array, " T"]  # whose span ends the text best, were it to end there
    open: Bool[Array, " T"]  # whether a text may end there: some span is long enough


def spans(
    cost: Float[np.ndarray, "E T"],
    switch: Float[np.ndarray, "E E"],
    minimum: int,
    before: int | None = None,
) -> list[Span]:
    """The spans of the cheapest path, in order; they cover all tokens.

    switch: nats of going from one expert (row) to another.  before: the expert whose span the text
    goes on with, if any; that first span may have any length.  A text shorter than `minimum` is one
    span of the expert with the least cost.
    """
    experts, length = cost.shape
    if not length:
        return []
    if experts == 1 or (length < minimum and before is None):
        return [Span(0, length, int(np.argmin(cost.sum(1))))]
    # Few lengths are compiled; what follows the text changes nothing before its end.
    room = max(minimum, 1 << (length - 1).bit_length()) - length
    padded = np.pad(np.asarray(cost, np.float32), ((0, 0), (0, room)))
    path = _forward(padded, switch, minimum, -1 if before is None else before)
    path = Path(*map(np.asarray, path))
    return traced(path, length, minimum, before)


def traced(path: Path, length: int, minimum: int, before: int | None = None) -> list[Span]:
    """The spans of a text's first `length` tokens, from the last one back."""
    number = np.arange(len(path.begun))[:, None]
    latest = np.maximum.accumulate(np.where(path.begun, number, -1), axis=0) + 1  # tokens read then
    end, expert, found = length, int(path.last[length - 1]), []
    while end > 0:
        start = int(latest[end - 1, expert]) - minimum
        if start < 0:  # the span that the text goes on with
            start, expert = 0, expert if before is None else before
        found.append(Span(start, end, expert))
        if start:
            expert = int(path.origin[start - 1, expert])
        end = start
    return found[::-1]


@functools.partial(jax.jit, static_argnames="minimum")
def _forward(cost, switch, minimum, before):
    experts = cost.shape[0]
    cost = jnp.asarray(cost, jnp.float32)
    # Of other experts only: staying is no switch.
    between = jnp.where(jnp.eye(experts, dtype=bool), jnp.inf, jnp.asarray(switch, jnp.float32))
    own = jnp.arange(experts) == before
    free = before < 0
    whole = jax.lax.reduce_window(  # sums of the last `minimum` costs, exact where many are added
        cost, 0.0, jax.lax.add, (1, minimum), (1, 1), [(0, 0), (minimum - 1, 0)]
    )
    begin = jnp.where(free, 0.0, jnp.where(own, jnp.inf, between[jnp.maximum(before, 0)]))
    f = jnp.where(free, jnp.inf, jnp.where(own, 0.0, jnp.inf))
    ring = jnp.full((minimum, experts), jnp.inf).at[0].set(begin)

    def step(carry, at):
        f, ring = carry
        number, one, many = at  # tokens read with this one, its cost, the last m costs
        slot = number % minimum
        kept, new = f + one, ring[slot] + many
        begun = new < kept
        f = jnp.minimum(kept, new)
        # Costs are relative to the best path, so that sums stay small however long the text is.
        least = jnp.where(jnp.isfinite(jnp.min(f)), jnp.min(f), 0.0)
        f, ring = f - least, ring - least
        paths = f[:, None] + between
        ring = ring.at[slot].set(jnp.min(paths, axis=0))
        rest = (begun, jnp.argmin(paths, axis=0), jnp.argmin(f), jnp.isfinite(f).any())
        return (f, ring), rest

    numbers = jnp.arange(1, cost.shape[1] + 1)
    return jax.lax.scan(step, (f, ring), (numbers, cost.T, whole.T))[1]


def saved(
    cost: Float[np.ndarray, "E T"], switch: Float[np.ndarray, "E E"], found: list[Span]
) -> list[float]:
    """nats that each switch saves: what both spans cost under one of their two experts alone, less
    what they cost as they are with the switch.  One number per boundary."""
    out = []
    for a, b in itertools.pairwise(found):
        both = cost[:, a.start : b.end].sum(1, dtype=np.float64)
        as_is = cost[a.expert, a.start : a.end].sum(dtype=np.float64)
        as_is += cost[b.expert, b.start : b.end].sum(dtype=np.float64)
        out.append(float(min(both[a.expert], both[b.expert]) - as_is - switch[a.expert, b.expert]))
    return out
