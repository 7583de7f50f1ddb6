"""JAX's start: quiet, with a compilation cache, and one line when it has no device.

JAX takes seconds to start, so it is imported only once the arguments are known to be good.
"""

import logging
import os
import sys

from cr_jax.errors import UserError


def prepare() -> None:
    """Before JAX is imported: quiet, and what it compiles is kept in the user's cache."""
    if "jax" in sys.modules:  # a caller's process: its settings are its own
        return
    cache = _cache()
    for name, value in {
        **({"JAX_COMPILATION_CACHE_DIR": cache} if cache else {}),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }.items():
        os.environ.setdefault(name, value)
    logging.getLogger("jax").setLevel(logging.CRITICAL)


def _cache() -> str:
    """The folder for compiled programs in the user's cache; "" where there is no such place.

    Without a home folder, or one that may not be written, every start compiles anew: a folder that
    others can write could give us their programs.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(cache, "cr-jax", "xla")
    if not os.path.isabs(folder):  # no home is known: never a folder named ~
        return ""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return ""
    return folder if os.access(folder, os.W_OK | os.X_OK) else ""


def start_jax() -> None:
    """`UserError` in one line when JAX finds no device to run on."""
    import jax

    try:
        jax.devices()
    except RuntimeError as error:
        where = os.environ.get("JAX_PLATFORMS", "")
        raise UserError(
            f"JAX cannot start (JAX_PLATFORMS={where!r}): "
            f"{str(error).splitlines()[0]}; try JAX_PLATFORMS=cpu"
        ) from error
