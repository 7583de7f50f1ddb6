"""`--config=FILE[:VARIANT]` and `--config.group.field=value`, wherever a command takes them."""

from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from cr_jax.config.files import blame, check_file, config_files, with_homes, with_shipped
from cr_jax.errors import UserError


def parse(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Reads `argv` (its first word is the program) into `values`; -> what is left over.

    `values` has a flag `config` that was defined by `config_flags.DEFINE_config_file`.
    `UserError` in one line for a file that cannot be run and for a flag that cannot be understood.
    """
    argv = with_shipped(with_homes(argv))
    files = list(config_files(argv[1:]))
    for file in files:
        check_file(file)
    try:
        rest = values(list(argv))
        _ = values.config.name  # a file that could not be loaded raises here, not before
        return rest
    except Exception as error:  # absl and ml_collections raise a dozen kinds for a bad flag
        for file in files:
            if said := blame(file, error):
                raise UserError(said) from error
        while error.args and isinstance(error.args[0], BaseException):
            error = error.args[0]
        if isinstance(error, KeyError):  # the name and, on a second line, a similar one
            named = "; ".join(str(error.args[0] if error.args else "").splitlines())
            raise UserError(
                f"there is no setting {named}; all of them are in cr_jax/config/schema.py"
            ) from error
        lines = [line.strip() for line in str(error.args[0] if error.args else error).splitlines()]
        raise UserError(" ".join(line for line in lines[-2:] if line)) from error


def load(config: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """The settings of FILE or FILE:VARIANT, changed by `--config.field=value` words.

    For commands with flags of their own: nothing is read from `sys.argv` or left in absl's flags.
    `UserError` as `parse` gives it, and for a word that is no setting.
    """
    argv = ["cr-jax", f"--config={config}", *overrides]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, lock_config=True, flag_values=values, sys_argv=argv
    )
    no_words(parse(argv, values))
    return values.config


def no_words(argv: Sequence[str]) -> None:
    """`UserError` where more than the program's name is left over."""
    if len(argv) > 1:
        raise UserError(
            f"unexpected argument '{argv[1]}': settings look like --config.train.steps=100"
        )
