"""Documents dealt into parts of equal size so that they cost little there.  numpy only.

    cost [N, k], sizes [N] -> assign_balanced -> part [N]

The constraint of SmallTalk LM (arXiv 2410.03529), whose parts are balanced so that every expert
sees as much text.  Not in the paper.  Letters: N documents, k parts.
"""

import numpy as np
from jaxtyping import Float, Int, Integer

from cr_jax.errors import UserError

PRICED = 20_000  # documents that prices are found with
HARDENINGS, STEPS = 10, 60  # of the choice, and of the prices at each


def capacity(sizes: Integer[np.ndarray, " N"], parts: int, slack: float = 0.0) -> int:
    """The most that a part may hold: ceil(sum of sizes / parts) (1 + slack), rounded down."""
    return int(-(-int(sizes.sum()) // parts) * (1 + slack))


def assign_balanced(
    cost: Float[np.ndarray, "N k"], sizes: Integer[np.ndarray, " N"], slack: float = 0.0
) -> Int[np.ndarray, " N"]:
    """The part of each document: cheap, and no part larger than `capacity`.

    cost: of each document in each part, of all of it (nats).  sizes: tokens, or ones to count
    documents.  Parts that too many want get a price per token (the dual of the constraint), then
    each keeps the documents that would lose most elsewhere, and the others take the cheapest part
    with room.  Where a document fits nowhere it joins the smallest part: documents of one size
    always fit.  No part stays empty while another has two documents.  `UserError` for costs that
    are not finite, or sizes below 1.
    """
    parts = cost.shape[1]
    if not np.isfinite(cost).all() or sizes.min() < 1 or slack < 0:
        raise UserError("costs must be finite, sizes at least 1 and slack at least 0")
    most = capacity(sizes, parts, slack)
    rate = cost / sizes[:, None]
    priced = rate + _prices(rate, sizes, most)[None]
    part = priced.argmin(1)
    loads = np.bincount(part, sizes, parts)
    loads = _shed(part, priced, sizes, loads, most)
    _settle(part, priced, sizes, loads, most)
    _improve(part, rate, sizes, loads, most)
    _fill(part, cost)
    return part


def _prices(rate, sizes, most):
    """nats per token that each part charges, so that about `most` tokens want it.

    Sinkhorn's scaling with inequalities: documents choose softly, prices follow the loads, and the
    choice hardens.  At most `PRICED` documents, evenly spread, stand for all.
    """
    some = np.unique(np.linspace(0, len(rate) - 1, min(PRICED, len(rate))).astype(int))
    rate, weight = rate[some], sizes[some] / sizes[some].sum()
    share, prices = most / sizes.sum(), np.zeros(rate.shape[1])
    scale = float(np.mean(rate.max(1) - rate.min(1))) or 1.0
    for softness in np.geomspace(0.5, 0.005, HARDENINGS) * scale:
        for _ in range(STEPS):
            score = -(rate + prices[None]) / softness
            chosen = np.exp(score - score.max(1, keepdims=True))
            load = weight @ (chosen / chosen.sum(1, keepdims=True))
            before = prices
            prices = np.maximum(0, prices + softness * np.log(np.maximum(load, 1e-9) / share))
            if np.abs(prices - before).max() < 1e-3 * softness:
                break
    return prices


def _shed(part, priced, sizes, loads, most):
    """Full parts give away (-1) the documents that lose least elsewhere; -> the new loads."""
    two = np.partition(priced, 1, axis=1)[:, :2]
    regret = two[:, 1] - two[:, 0]
    for k in np.flatnonzero(loads > most):
        own = np.flatnonzero(part == k)
        own = own[np.argsort(-regret[own], kind="stable")]
        part[own[np.cumsum(sizes[own]) > most]] = -1
    held = part >= 0
    return np.bincount(part[held], sizes[held], priced.shape[1])


def _settle(part, priced, sizes, loads, most):
    """Each document without a part takes the cheapest with room, the dearest choice first."""
    homeless = np.flatnonzero(part < 0)
    spread = priced[homeless].max(1) - priced[homeless].min(1)
    for n in homeless[np.argsort(-spread * sizes[homeless], kind="stable")]:
        room = loads + sizes[n] <= most
        k = np.where(room, priced[n], np.inf).argmin() if room.any() else loads.argmin()
        part[n] = k
        loads[k] += sizes[n]


def _improve(part, rate, sizes, loads, most):
    """Documents move to a cheaper part that has room, those that gain most first."""
    everyone = np.arange(len(part))
    gain = (rate[everyone, part] - rate.min(1)) * sizes
    for n in np.flatnonzero(gain > 0)[np.argsort(-gain[gain > 0], kind="stable")]:
        room = (loads + sizes[n] <= most) & (rate[n] < rate[n, part[n]])
        if room.any():
            k = np.where(room, rate[n], np.inf).argmin()
            loads[part[n]] -= sizes[n]
            loads[k] += sizes[n]
            part[n] = k


def _fill(part, cost):
    """A part that got nothing (its documents are all larger than the others') takes the document
    that loses least, of a part that has two or more."""
    for k in np.flatnonzero(np.bincount(part, minlength=cost.shape[1]) == 0):
        counts = np.bincount(part, minlength=cost.shape[1])
        free = np.flatnonzero(counts[part] > 1)
        if not free.size:
            return
        n = free[(cost[free, k] - cost[free, part[free]]).argmin()]
        part[n] = k
