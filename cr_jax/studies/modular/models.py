"""What a run must offer of its language models, and what they have cost.

A context's `language_models` is anything with these fields; the recipe that trains them makes one.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from cr_jax.config import Experiment, LmConfig
from cr_jax.errors import UserError
from cr_jax.models.lm import count_lm_parameters
from cr_jax.studies.modular.nats import Facts

BRANCHES, SEED = "branches", "seed"  # arms that every run has: the experts, and their start
LABELLED = (BRANCHES, "noise")  # sets with one model per domain, by its name


@runtime_checkable
class ArmModels(Protocol):
    """Models of one shape, by name, and what they and the seed that they began as have cost."""

    config: LmConfig
    params: Mapping[str, Any]
    train_tokens: int
    train_flops: float


@runtime_checkable
class LanguageModels(Protocol):
    """The experts' language models by domain, the seed of which they are branches, and the arms:
    `BRANCHES`, `SEED`, "dense" and whatever else was trained to compare."""

    config: LmConfig
    seed: Any
    experts: Mapping[str, Any]
    arms: Mapping[str, ArmModels]


def check(experiment: Experiment | Any) -> None:
    """`UserError` before text is read, where the run trains no language models or too few domains
    to choose from."""
    if not getattr(getattr(experiment, "modular", None), "seed_tokens", 0):
        raise UserError(
            "config.studies: modular compares language models, and this run trains none: set "
            "config.modular.seed_tokens, or leave it out"
        )
    if len(experiment.data.domains) < 2:
        raise UserError(
            "config.studies: modular needs 2 or more of config.data.domains; leave it out"
        )


def of_run(context: Any) -> LanguageModels:
    """The context's language models.  `UserError` where there are none of all its experts."""
    trained = context.language_models
    if trained is None:
        raise UserError("the run has no language models: set config.modular.seed_tokens")
    if missing := [n for n in context.bank.names if n not in trained.experts]:
        raise UserError(f"no language model for {', '.join(missing)}: train the run's domains anew")
    return trained


def facts(models: LanguageModels) -> dict[str, Facts]:
    """By the names that arms count by: the branches are "experts"."""
    return {
        "experts" if name == BRANCHES else name: Facts(
            count_lm_parameters(arm.config), len(arm.params), arm.train_tokens, arm.train_flops
        )
        for name, arm in models.arms.items()
    }
