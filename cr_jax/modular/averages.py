"""Experts that lean on each other: a branch's weights, moved towards the mean of several branches.

    branches {domain: params}, shares -> averaged -> {domain: params}

A branch forgets what its own text lacks, and pays for it on held-out text that is unlike what it
read.  Branches of one seed lie in one basin, so the mean of their weights is a model too, and knows
what they all have read.  Of each domain's branch w and the mean m, of all branches or of it and
those that need fewest nats for its text,

    (1 - s) w + s m

is tried with every share s, and valid chooses.  It has the size of one model and costs no training.
After model soups (arXiv 2203.05482) and WiSE-FT (arXiv 2109.01903).  Not in the paper.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cr_jax.data import Windows
from cr_jax.host.files import read_sealed, write_sealed
from cr_jax.modular.score import stacked, token_nats
from cr_jax.modular.training_stage import Finished, sha256_of

NEAR = 4  # other branches in the mean of the nearest
FILE = "averages.json"  # what was chosen, below the folder of the stages
# score(models, windows) -> nats/token of each
Score = Callable[[Sequence[Any], Windows], list[float]]


def averaged(
    branches: Finished,
    valid: Mapping[str, Windows],
    shares: Sequence[float],
    folder: Path,
    score: Score,
) -> Finished:
    """Of each domain the branch or average with the lowest loss on its valid windows.

    note: that of the branches and "averages": domain -> {"of": "all", "near" or "", "share",
    "near": names, "valid_nll", "own_nll"}.  The choice is kept in FOLDER/averages.json and read
    from there where branches and windows are the same, so that a run that goes on has the same
    experts.
    """
    names, place = tuple(branches.params), folder / FILE
    made_of = {
        "branches": sha256_of(branches.params),
        "shares": list(shares),
        "near": NEAR,
        "valid": sha256_of({n: (w.tokens, w.mask) for n, w in valid.items()}),
    }
    choices = None
    if place.exists():
        kept = read_sealed(place)
        choices = kept["averages"] if kept["made_of"] == made_of else None
    if choices is None:
        choices = _choices(branches.params, valid, shares, score)
        write_sealed(place, {"format": 1, "made_of": made_of, "averages": choices})
    params = {n: average(branches.params, n, choices[n]) for n in names}
    return Finished(branches.lm, params, {**branches.note, "averages": choices})


def average(branches: Mapping[str, Any], name: str, choice: Mapping[str, Any]) -> Any:
    """The weights of domain `name` that a choice stands for."""
    if not choice["share"]:
        return branches[name]
    others = tuple(branches) if choice["of"] == "all" else (name, *choice["near"])
    return _between(branches[name], _mean(branches, others), choice["share"])


def by_valid(config: Any, chunk: int, rows: int) -> Score:
    """`Score` by models of this config; chunk, rows: as `token_nats` has them."""

    def score(models, windows):
        nats = token_nats(config, stacked(models), windows.tokens, chunk, rows)
        return [float(x[windows.mask].mean(dtype=np.float64)) for x in nats]

    return score


def _choices(branches, valid, shares, score) -> dict[str, dict]:
    names = tuple(branches)
    of_all = _mean(branches, names)
    choices = {}
    for name in names:
        losses = dict(zip(names, score([branches[n] for n in names], valid[name]), strict=True))
        near = sorted((n for n in names if n != name), key=losses.__getitem__)[:NEAR]
        means = {"all": of_all, "near": _mean(branches, (name, *near))}
        tried = [(of, s) for of in means for s in shares]
        found = score([_between(branches[name], means[of], s) for of, s in tried], valid[name])
        # The branch itself where nothing is better than it.
        of, share, loss = "", 0.0, losses[name]
        for (its_of, its_share), its_loss in zip(tried, found, strict=True):
            if its_loss < loss:
                of, share, loss = its_of, its_share, its_loss
        choices[name] = {
            "of": of,
            "share": share,
            "near": near,
            "valid_nll": loss,
            "own_nll": losses[name],
        }
    return choices


def _mean(branches: Mapping[str, Any], names: Sequence[str]) -> Any:
    return jax.tree.map(
        lambda *x: np.mean(np.stack(x), axis=0, dtype=np.float32), *(branches[n] for n in names)
    )


def _between(own: Any, mean: Any, share: float) -> Any:
    own_share, share = np.float32(1 - share), np.float32(share)
    return jax.tree.map(lambda a, b: own_share * a + share * b, own, mean)
