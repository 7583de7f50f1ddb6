"""Texts that are spoken by one model of several experts (`modular.merging`), for the study's table.

The temper of each prefix is chosen on validation windows.  Not in the paper.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cr_jax.config import LmConfig
from cr_jax.data.windows import Windows
from cr_jax.modular import merging
from cr_jax.modular.schedule import prefix_nats
from cr_jax.studies.modular.nats import DomainNats

TEMPERS = (0.1, 0.2, 0.4, 0.8)  # per nat; beside them the nearest expert alone
WINDOWS = 32  # of a domain, that choose


@dataclasses.dataclass(frozen=True)
class Merged:
    """The experts' models [E, ...] and how many windows are in one call of a program."""

    config: LmConfig
    params: Any
    rows: int = 64

    def nats(
        self, windows: Windows, d: DomainNats, prefix: int, temper: float
    ) -> Float[np.ndarray, "N L"]:
        """nats of each token by the window's merged model; the prefix chose it."""
        cost = prefix_nats(d.experts, d.mask, prefix)
        if np.isinf(temper):  # the nearest expert alone, who has been scored
            return d.experts[np.asarray(cost).argmin(0), np.arange(len(d.mask))]
        shares = merging.posterior(cost, temper)
        return merging.merged_nats(
            self.config, self.params, np.asarray(shares), windows.tokens, rows=self.rows
        )


def fit(
    models: Merged,
    windows: Mapping[str, Windows],
    nats: Mapping[str, DomainNats],
    prefixes: Sequence[int],
) -> dict[int, dict[str, float]]:
    """prefix -> {"temper", "valid_nll", "nearest_nll"}: the temper with the fewest nats/token after
    the prefix on validation windows, every domain weighing the same, and what the nearest expert
    alone needs.  An infinite temper is the nearest alone."""
    found = {}
    for prefix in prefixes:
        nll = {temper: [] for temper in (*TEMPERS, np.inf)}
        for name, d in nats.items():
            at = np.linspace(0, len(d.mask) - 1, min(WINDOWS, len(d.mask))).astype(int)
            some = d.take(at)
            late = some.mask & (np.arange(d.mask.shape[1]) >= prefix)[None]
            for temper, means in nll.items():
                said = models.nats(windows[name].take(at), some, prefix, temper)
                means.append(said[late].mean(dtype=np.float64))
        mean = {temper: float(np.mean(means)) for temper, means in nll.items()}
        best = min(mean, key=mean.__getitem__)
        found[prefix] = {"temper": best, "valid_nll": mean[best], "nearest_nll": mean[np.inf]}
    return found


def with_merged(
    models: Merged,
    windows: Mapping[str, Windows],
    nats: Mapping[str, DomainNats],
    chosen: Mapping[int, Mapping[str, float]],
) -> dict[str, DomainNats]:
    """The nats with what merged models need, by the prefix that chose each."""
    return {
        name: dataclasses.replace(
            d,
            merged={
                prefix: models.nats(windows[name], d, prefix, rule["temper"])
                for prefix, rule in chosen.items()
            },
        )
        for name, d in nats.items()
    }
