"""Which expert should speak when a beginning does not say for certain whose text it is.

    nats of a prefix by every expert [E, B], Expectation -> expected_nats [E, B], the fewest speaks

The nearest expert is the best one where the text is its domain's, and can be a costly one where it
is not.  With C[e, d] the nats/token that expert e needs on text of expert d's domain after the
prefix, and the tempered posterior

    p(d | prefix)  proportional to  exp(-temper n_d),    n_d: nats of the prefix by expert d,

expert e is expected to need sum_d p(d | prefix) C[e, d].  A small temper doubts the prefix.  C and
temper come from validation text; nothing is trained by gradients.  Not in the paper.
Letters: E experts, B texts, N validation texts, L tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from cr_jax.errors import UserError

# An infinite temper is the nearest expert alone.
TEMPERS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, float("inf"))


class Expectation(NamedTuple):
    """costs: C above, nats/token; temper: of the posterior, per nat."""

    costs: Float[np.ndarray, "E E"]
    temper: float


@jax.jit
def expected_nats(
    prefix: Float[Array, "E B"], costs: Float[Array, "E E"], temper: Any
) -> Float[Array, "E B"]:
    """nats/token that each expert is expected to need after the prefix.

    An expert whose nats are not finite is not chosen; where all have such, none is finite.
    """
    return jnp.where(jnp.isfinite(prefix), costs @ tempered_posterior(prefix, temper), jnp.inf)


def tempered_posterior(prefix: Float[Array, "E B"], temper: Any) -> Float[Array, "E B"]:
    """p(d | prefix) above, which sums to 1 over the experts whose nats are finite; NaN where none
    has such."""
    usable = jnp.isfinite(prefix)
    nats = jnp.where(usable, prefix, jnp.inf)
    ahead = nats - jnp.min(nats, axis=0, keepdims=True)
    # Infinity times nothing is no number: the nearest has distance 0 at any temper.
    log_p = jnp.where(ahead == 0, 0.0, -temper * ahead)
    return jax.nn.softmax(jnp.where(usable, log_p, -jnp.inf), axis=0)


def cost_table(
    nats: Sequence[Float[np.ndarray, "E _ L"]], masks: Sequence[Bool[np.ndarray, "_ L"]], after: int
) -> Float[np.ndarray, "E E"]:
    """C: of validation texts of each expert's domain, in the order of E, the mean nats/token by
    every expert after the first `after` tokens.  `UserError` where a domain has none."""
    columns = []
    for own, mask in zip(nats, masks, strict=True):
        late = mask & (np.arange(mask.shape[1]) >= after)[None]
        if not late.any():
            raise UserError(f"no validation text of a domain has more than {after} tokens")
        columns.append(own[:, late].mean(-1, dtype=np.float64))
    return np.stack(columns, axis=1).astype(np.float32)


def fitted(
    prefixes: Mapping[str, Float[np.ndarray, "E _"]],
    later: Mapping[str, Float[np.ndarray, "E _"]],
    costs: Float[np.ndarray, "E E"],
    tempers: Sequence[float] = TEMPERS,
) -> tuple[Expectation, float]:
    """(the temper whose choices need fewest nats on validation text, those nats/token).

    prefixes: nats of the prefix of each domain's texts; later: mean nats/token after it.  Every
    domain weighs the same; of equal tempers the largest, which is nearest to the plain rule.
    """
    best, least = tempers[-1], np.inf
    for temper in sorted(tempers, reverse=True):
        needed = []
        for name, prefix in prefixes.items():
            winner = np.asarray(expected_nats(prefix, costs, temper)).argmin(0)
            needed.append(later[name][winner, np.arange(len(winner))].mean(dtype=np.float64))
        if np.mean(needed) < least - 1e-9:
            best, least = temper, float(np.mean(needed))
    return Expectation(costs, best), least
