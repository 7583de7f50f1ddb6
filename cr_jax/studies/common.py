"""What several studies share: how many windows they score, the lengths that these are cut to, how
many domains they need, and how a share is written."""

from collections.abc import Callable

from cr_jax.config import Experiment
from cr_jax.errors import UserError
from cr_jax.studies import lengths

MOST_WINDOWS = 256  # of a domain, where a study scores windows of its own
ATTACKS = 32  # windows of each kind of easy input


def percent(share: float | None) -> str:
    """A share with one decimal."""
    return "–" if share is None else f"{share:.1%}"


def at_least(domains: int) -> Callable[[Experiment], None]:
    """A check that the run has so many experts."""

    def check(experiment: Experiment) -> None:
        have = len(experiment.data.domains)
        if have < domains:
            raise UserError(
                f"config.studies: this study needs {domains} or more of "
                f"config.data.domains, and there are {have}; leave it out"
            )

    return check


def lengths_of(window: int) -> tuple[int, ...]:
    """The lengths that texts are cut to: the usual ones below a window, and the window."""
    return (*(n for n in lengths.LENGTHS if n < window), window)
