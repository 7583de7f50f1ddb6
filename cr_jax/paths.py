"""Paths as users write them."""

import os

from cr_jax.errors import UserError


def expanded(path: str | os.PathLike) -> str:
    """A path with `~` or `~NAME` at its start replaced by that home folder, as a shell does it.

    Call it wherever a path enters: settings, flags, source specs, environment variables.
    `~NAME` of no user is a path as it stands.  `UserError` when `~` has no meaning here: no folder
    named `~` is ever made.

    >>> expanded("runs/~x")
    'runs/~x'
    """
    path = os.fspath(path)
    found = os.path.expanduser(path)
    home = path == "~" or path.startswith("~/")
    if home and (found == path or os.environ.get("HOME") == ""):
        raise UserError(f"{path}: the home folder is not known (HOME is not set); give the whole "
                        "path")
    return found
