"""What every expert makes of every domain's windows: all that the stages are computed from.

Letters: E experts, each named after its domain, N windows of a domain, n validation windows.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from cr_jax.errors import UserError

ByDomain = Mapping[str, Float[np.ndarray, "E _"]]


@dataclasses.dataclass(frozen=True)
class Scores:
    """Residuals, nats/token, by which experts are ranked; the lowest wins.

    valid: of each domain's validation windows [E, n]; test: of its test windows [E, N].  tra: share
    of each test window's tokens that each expert rebuilds exactly [E, N], None where that was not
    measured.  base: of each domain the TRA of always answering with its most frequent token.
    `UserError` for fewer than two experts, a domain without windows, or scores that are not finite.
    """

    names: tuple[str, ...]
    valid: ByDomain
    test: ByDomain
    tra: ByDomain | None = None
    base: Mapping[str, float] | None = None

    def __post_init__(self):
        if len(self.names) < 2:
            raise UserError("domains that arrive one after another: give two experts or more")
        for kind in filter(None, (self.valid, self.test, self.tra)):
            for name in self.names:
                found = np.asarray(kind.get(name, np.empty((0, 0))))
                if found.shape[:1] != (len(self.names),) or not found.shape[1:] or not found.size:
                    raise UserError(f"{name}: scores of all {len(self.names)} experts are needed")
                if not np.isfinite(found).all():
                    raise UserError(f"{name}: a score is not finite; score whole windows")

    def ordered(self, order: Sequence[str]) -> "Scores":
        """The same with experts and domains in the order of their arrival."""
        if sorted(order) != sorted(self.names):
            raise UserError(f"an order names each of {', '.join(self.names)} once")
        at = [self.names.index(name) for name in order]
        pick = lambda kind: kind and {n: np.asarray(kind[n], np.float64)[at] for n in order}
        return Scores(tuple(order), pick(self.valid), pick(self.test), pick(self.tra), self.base)

    def on_valid(self) -> "Scores":
        """What settings are chosen by: every second validation window in the place of the test
        windows, and rules are fitted on the others."""
        fit, tell = ({n: x[:, i::2] for n, x in self.valid.items()} for i in (0, 1))
        few = min(x.shape[1] for x in tell.values())
        return Scores(self.names, fit, tell if few else self.valid)
