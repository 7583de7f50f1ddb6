"""The bottlenecks by name.  To add one: a file with a subclass of `Bottleneck`, named here."""

from collections.abc import Callable, Mapping

from cr_jax.config import ModelConfig
from cr_jax.errors import UserError
from cr_jax.models.bottlenecks.fold import Fold
from cr_jax.models.bottlenecks.fourier_query import FourierQuery
from cr_jax.models.bottlenecks.interface import Bottleneck
from cr_jax.models.bottlenecks.plain_query import PlainQuery
from cr_jax.models.bottlenecks.query import Query

BOTTLENECKS: Mapping[str, Callable[[ModelConfig], Bottleneck]] = {
    "query": lambda config: Query(config) if config.rotary_values else PlainQuery(config),
    "fold": Fold,
    "fourier_query": FourierQuery,
}


def make_bottleneck(config: ModelConfig) -> Bottleneck:
    """The form that the config names.  Raises `UserError` when there is none of that name."""
    if config.bottleneck not in BOTTLENECKS:
        raise UserError(f"config.model.bottleneck must be one of {', '.join(BOTTLENECKS)}; got "
                        f"{config.bottleneck!r}")
    return BOTTLENECKS[config.bottleneck](config)


def check_bottleneck(config: ModelConfig, rate: int = 0) -> None:
    """Raises `UserError` when there is no such form, it has no such shape, or no such rate."""
    form = make_bottleneck(config)
    form.check()
    if rate > form.rates:
        raise UserError(f"config.scoring.rate={rate} must not exceed {form.rates}, the "
                        f"{form.rate_unit} that {config.bottleneck} has; 0 gives the decoder all "
                        "of them")
