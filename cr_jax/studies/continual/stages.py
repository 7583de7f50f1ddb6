"""A rule over an order of domains: who wins each window after each mount.

Letters: T domains in the order of arrival, N windows of all of them.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Int

from cr_jax.studies.continual.rules import Rule
from cr_jax.studies.continual.scores import Scores


@dataclasses.dataclass(frozen=True)
class History:
    """winners[i, n]: who wins window n once domain i has arrived, by the place in the order;
    domain[n]: whose text the window is, sorted.  tra: as in `Scores`, of all windows; None: not
    measured.  stored: bytes that the rule keeps of all domains at the end."""

    names: tuple[str, ...]
    winners: Int[np.ndarray, "T N"]
    domain: Int[np.ndarray, " N"]
    residual: Float[np.ndarray, "T N"] | None = None
    tra: Float[np.ndarray, "T N"] | None = None
    stored: int = 0

    def by_domain(self, values: np.ndarray) -> np.ndarray:
        """Means over each domain's windows: [..., N] -> [..., T]."""
        starts = np.searchsorted(self.domain, np.arange(len(self.names)))
        counts = np.bincount(self.domain, minlength=len(self.names))
        return np.add.reduceat(values, starts, axis=-1, dtype=np.float64) / counts

    @functools.cached_property
    def routed(self) -> Float[np.ndarray, "T T"]:
        """R[i, j]: the share of domain j's windows that go to its own expert after mount i."""
        return self.by_domain((self.winners == self.domain).astype(np.float64))

    def of_winner(self, values: Float[np.ndarray, "T N"]) -> Float[np.ndarray, "T T"]:
        """R[i, j]: the mean of what the winner after mount i makes of domain j's windows."""
        return self.by_domain(np.take_along_axis(values, self.winners, 0))

    def of_label(self, values: Float[np.ndarray, "T N"]) -> Float[np.ndarray, "T T"]:
        """R[i, j] of the label's expert, which is there from i = j on; NaN before.

        Of frozen experts each column is one number: what there is to lose lies in routing.
        """
        own = self.by_domain(values[self.domain, np.arange(len(self.domain))])
        there = np.tri(len(own), dtype=bool)
        return np.where(there, own[None], np.nan)


def walk(scores: Scores, rule: Rule) -> History:
    """The stages of one rule; scores: in the order of arrival (`Scores.ordered`)."""
    names = scores.names
    residual = np.concatenate([scores.test[n] for n in names], 1)
    router, winners = rule.make(), []
    for k, name in enumerate(names):
        old = [scores.valid[n][k] for n in names[:k]] if rule.keeps_text else ()
        router.mount(scores.valid[name][: k + 1].copy(), old)
        winners.append(router.route(residual[: k + 1], winners[-1] if winners else None))
    domain = np.repeat(np.arange(len(names)), [scores.test[n].shape[1] for n in names])
    tra = None if scores.tra is None else np.concatenate([scores.tra[n] for n in names], 1)
    return History(names, np.stack(winners), domain, residual, tra, router.stored_bytes())


def peeks(scores: Scores, rule: Rule, seed: int = 0) -> bool:
    """Whether a rule's decisions depend on experts that have not come yet, or on text that it may
    not see: other scores of those must leave every earlier decision as it was."""
    draw = np.random.default_rng(seed)
    told = walk(scores, rule).winners
    for stage in range(1, len(scores.names)):
        later = scores.names[stage:]

        def other(kind, unseen, stage=stage):
            changed = {n: np.array(x) for n, x in kind.items()}
            for name, x in changed.items():
                at = slice(None) if name in unseen else slice(stage, None)
                x[at] = draw.uniform(0, 10, x[at].shape)
            return changed

        changed = Scores(scores.names, other(scores.valid, later), other(scores.test, ()))
        if (walk(changed, rule).winners[:stage] != told[:stage]).any():
            return True
    return False
