"""A file of configs/ for a program that is not main.py: load it, change fields of it."""

import runpy
from collections.abc import Sequence

import ml_collections

from cr_jax.config.files import blame, check_file
from cr_jax.errors import UserError


def load(path: str) -> ml_collections.ConfigDict:
    """`get_config()` of a file in configs/, of `FILE:VARIANT` its variant.  Raises `UserError`."""
    check_file(path)
    file, _, variant = path.partition(":")
    try:
        return runpy.run_path(file)["get_config"](*([variant] if variant else []))
    except Exception as error:  # whatever the file does
        said = blame(path, error) or f"--config={path}: {' '.join(str(error).split())}"
        raise UserError(said) from error


def change(config: ml_collections.ConfigDict, changes: Sequence[str]) -> ml_collections.ConfigDict:
    """Applies `group.field=value`.  Raises `UserError` naming a change that cannot be meant."""
    for text in changes:
        name, _, value = text.partition("=")
        group, _, field = name.partition(".")
        if (
            not isinstance(config.get(group), ml_collections.ConfigDict)
            or (field not in config[group])
            or not value
        ):
            raise UserError(f"--set: '{text}' must be GROUP.FIELD=VALUE with a setting that exists")
        kind = type(config[group][field])
        try:
            if kind is bool and value not in ("True", "False"):
                raise ValueError
            config[group][field] = value == "True" if kind is bool else kind(value)
        except (TypeError, ValueError):
            raise UserError(f"--set: {name} must be {kind.__name__}, got {value}") from None
    return config
