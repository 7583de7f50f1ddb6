"""The bottlenecks by name: what `config.model.bottleneck` may be.

To add one: `register_bottleneck(name, form)` with a subclass of `Bottleneck` (docs/extending.md).
"""

import dataclasses
from collections.abc import Callable

from cr_jax.config import ModelConfig
from cr_jax.errors import UserError
from cr_jax.models.bottlenecks.fold import Fold
from cr_jax.models.bottlenecks.fourier_query import FourierQuery
from cr_jax.models.bottlenecks.interface import Bottleneck
from cr_jax.models.bottlenecks.plain_query import PlainQuery
from cr_jax.models.bottlenecks.query import Query

BOTTLENECKS: dict[str, Callable[[ModelConfig], Bottleneck]] = {
    "query": lambda config: Query(config) if config.rotary_values else PlainQuery(config),
    "fold": Fold,
    "fourier_query": FourierQuery,
}


def register_bottleneck(name: str, form: Callable[[ModelConfig], Bottleneck]) -> None:
    """Makes `config.model.bottleneck` accept `name`.  `UserError` for a name that is taken."""
    if not name.isidentifier() or name in BOTTLENECKS:
        raise UserError(
            f"a bottleneck cannot be named {name!r}: a name is one word, and taken are "
            f"{', '.join(BOTTLENECKS)}"
        )
    BOTTLENECKS[name] = form


def make_bottleneck(config: ModelConfig) -> Bottleneck:
    """The form that the config names.  Raises `UserError` when there is none of that name."""
    if config.bottleneck not in BOTTLENECKS:
        raise UserError(
            f"config.model.bottleneck must be one of {', '.join(BOTTLENECKS)}; got "
            f"{config.bottleneck!r}; one of your own must be registered first, by importing its "
            "module (cr-jax --plugin MODULE)"
        )
    return BOTTLENECKS[config.bottleneck](config)


def check_bottleneck(config: ModelConfig, rate: int = 0) -> None:
    """Raises `UserError` when there is no such form, it has no such shape, or no such rate."""
    form = make_bottleneck(config)
    form.check()
    if rate > form.rates:
        raise UserError(
            f"config.scoring.rate={rate} must not exceed {form.rates}, the "
            f"{form.rate_unit} that {config.bottleneck} has; 0 gives the decoder all "
            "of them"
        )


def check_latents(config: ModelConfig, latents: int) -> None:
    """Raises `UserError` unless a decoder can be given the first `latents` of M alone; 0: all.

    It can where every latent reads the whole window, and not where a latent holds a slice of it.
    """
    form = make_bottleneck(config)
    if not latents:
        return
    if not form.nested_latents:
        able = ", ".join(
            name
            for name, make in BOTTLENECKS.items()
            if make(dataclasses.replace(config, bottleneck=name)).nested_latents
        )
        raise UserError(
            f"the latents of {config.bottleneck} hold a part of the window each, so some of them "
            f"alone do not rebuild it: train with config.model.bottleneck={able} and "
            "config.train.nested above 0"
        )
    if not 1 <= latents <= config.latents:
        raise UserError(f"latents must lie in [1, {config.latents}], got {latents}")
