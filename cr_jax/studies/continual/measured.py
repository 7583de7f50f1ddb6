"""The experts' scores of a finished run."""

from cr_jax.studies.common import MOST_WINDOWS
from cr_jax.studies.continual.scores import Scores
from cr_jax.studies.interface import Context


def of_run(context: Context) -> Scores:
    """The experts' scores of their domains' windows; only validation windows are scored anew."""
    names = context.bank.names
    valid = context.measure({n: context.text.valid[n].spread(MOST_WINDOWS) for n in names})
    return Scores(
        names,
        {n: valid[n].residual for n in names},
        {n: context.scores[n].residual for n in names},
        {n: context.scores[n].tra for n in names},
        {n: context.scores[n].majority for n in names},
    )
