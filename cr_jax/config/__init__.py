"""Settings: a locked ConfigDict outside, frozen typed dataclasses inside.

`configs/*.py` start from `default()`, change fields and are overridden by
`--config.field=value`.  `build()` turns the result into an `Experiment` once; every check of a
setting is made there, so a misspelt or impossible value dies at start-up with one clear line.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

import ml_collections

from cr_jax.config.checks import check, check_model, check_scoring, profile_steps, validation_period
from cr_jax.config.checks_lm import check_lm, partition_parts
from cr_jax.config.schema import (
    DOCUMENT_WINDOWS,
    RIVALS,
    SEEN,
    BranchConfig,
    ContinualConfig,
    DataConfig,
    DomainConfig,
    EvalConfig,
    Experiment,
    LmConfig,
    ModelConfig,
    ModularConfig,
    OptimizerConfig,
    Scoring,
    TokenizerConfig,
    TrainConfig,
    TransformerConfig,
)
from cr_jax.errors import UserError

__all__ = [
    "DOCUMENT_WINDOWS",
    "RIVALS",
    "SEEN",
    "BranchConfig",
    "ContinualConfig",
    "DataConfig",
    "DomainConfig",
    "EvalConfig",
    "Experiment",
    "LmConfig",
    "ModelConfig",
    "ModularConfig",
    "OptimizerConfig",
    "Scoring",
    "TokenizerConfig",
    "TrainConfig",
    "TransformerConfig",
    "build",
    "check_lm",
    "check_model",
    "check_scoring",
    "completed",
    "default",
    "domain",
    "lm_config",
    "model_config",
    "partition_parts",
    "profile_steps",
    "scoring_rule",
    "to_dict",
    "validation_period",
]

# Fields of `Scoring` in version 0.1; stored rules that have them are read for one version more.
_RENAMED = {"excess": "typicality_weight", "pairs": "bigram_weight"}


def default() -> ml_collections.ConfigDict:
    """All settings at their defaults, locked: unknown names raise at once, new domains do not.

    >>> config = default()
    >>> config.train.steps = 1
    >>> config.data.domains = {"code": domain("stdlib@train", "stdlib@valid", "stdlib@test")}
    >>> config.data.domains.more = domain("files:more/*.txt", "files:v.txt", "files:t.txt")
    >>> build(config).model.latents
    8
    """
    config = ml_collections.ConfigDict(_as_mapping(Experiment()), type_safe=True)
    # Domains are open-ended: configs add their own names below these.
    config.data.domains = ml_collections.ConfigDict()
    config.data.unseen = ml_collections.ConfigDict()
    config.modular.domains = ml_collections.ConfigDict()
    config.modular.tries = ml_collections.ConfigDict()
    config.lock()
    for open_ended in (
        config.data.domains,
        config.data.unseen,
        config.modular.domains,
        config.modular.tries,
    ):
        open_ended.unlock()
    return config


def domain(train=(), valid=(), test=()) -> ml_collections.ConfigDict:
    """One entry of `config.data.domains` or `config.data.unseen`; see `DomainConfig`."""
    listed = {
        k: (v,) if isinstance(v, str) else tuple(v)
        for k, v in dict(train=train, valid=valid, test=test).items()
    }
    return ml_collections.ConfigDict(listed)


def build(config: ml_collections.ConfigDict | Mapping[str, Any]) -> Experiment:
    """Checks every field and freezes the settings.  Raises `UserError` naming the bad field."""
    raw = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
    experiment = _make(Experiment, raw, "config")
    check(experiment)
    return experiment


def model_config(raw: Mapping[str, Any]) -> ModelConfig:
    """A stored model description -> `ModelConfig`.  Raises `UserError` naming the bad field."""
    model = _make(ModelConfig, completed(raw), "model")
    check_model(model)
    return model


def lm_config(raw: Mapping[str, Any]) -> LmConfig:
    """A stored description of language models -> `LmConfig`.  Raises `UserError` likewise."""
    lm = _make(LmConfig, raw, "lm")
    check_lm(lm)
    return lm


def completed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A stored model description with the fields that its writer's version did not have.

    They were at their defaults, but for latent queries, which were plain before there was a choice.
    """
    plain = raw.get("bottleneck") == "query"
    return {**to_dict(ModelConfig()), **({"rotary_values": False} if plain else {}), **raw}


def scoring_rule(raw: Mapping[str, Any], model: ModelConfig) -> Scoring:
    """A stored rule -> `Scoring`.  Raises `UserError` naming the bad field."""
    scoring = _make(Scoring, raw, "scoring")
    check_scoring(scoring, model)
    return scoring


def to_dict(value) -> dict:
    """A dataclass of settings -> plain JSON types."""
    return _as_mapping(value)


def _as_mapping(value):
    if dataclasses.is_dataclass(value):
        return {f.name: _as_mapping(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {k: _as_mapping(v) for k, v in value.items()}
    return value


def _make(cls, raw: Any, where: str):
    """Recursively builds dataclass `cls` from `raw`; `where` is the dotted path for messages."""
    hints = typing.get_type_hints(cls)
    if not isinstance(raw, Mapping):
        raise UserError(f"{where} must be a group of fields, got {raw!r}")
    if cls is Scoring:
        raw = _of_this_version(raw, where)
    for name in raw:
        if name not in hints:
            close = difflib.get_close_matches(name, hints, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(hints)}"
            raise UserError(f"{where} has no field '{name}'{hint}")
    return cls(**{n: _convert(hints[n], v, f"{where}.{n}") for n, v in raw.items()})


def _of_this_version(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A rule of version 0.1, which also had `passes`: 0 wherever all positions were scored."""
    if raw.get("passes", 0) != 0:
        raise UserError(
            f"{where}.passes={raw['passes']!r}: a rule that scores a sample of the positions is "
            "no longer read; store the experts again with a rule that scores all"
        )
    return {_RENAMED.get(name, name): value for name, value in raw.items() if name != "passes"}


def _convert(kind, value, where: str):
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(value, int) and value.bit_length() > 1023:  # no float, and too long to be shown
        raise UserError(f"{where} is a number of more than 300 digits: that cannot be meant")
    if dataclasses.is_dataclass(kind):
        return _make(kind, value, where)
    if origin is Literal:
        if value not in args:
            raise UserError(f"{where} must be one of {', '.join(map(str, args))}; got {value!r}")
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise UserError(f"{where} must be a list, got {value!r}")
        return tuple(_convert(args[0], v, where) for v in value)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise UserError(f"{where} must be a group of names, got {value!r}")
        items = {k: _convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
        return types.MappingProxyType(items)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{where} must be {kind.__name__}, got {value!r}")
    return value
