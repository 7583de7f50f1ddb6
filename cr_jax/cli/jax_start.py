"""JAX's start: quiet, with a compilation cache, and one line when it has no device.

JAX takes seconds to start, so it is imported only once the arguments are known to be good.
"""

import logging
import os
import sys

from cr_jax.errors import UserError
from cr_jax.parallel import compiled


def prepare() -> None:
    """Before JAX is imported: quiet, and what it compiles is kept in the user's own cache."""
    if "jax" in sys.modules:  # a caller's process: its settings are its own
        return
    cache, _ = compiled.folder()
    for name, value in {
        **({"JAX_COMPILATION_CACHE_DIR": cache} if cache else {}),
        "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",  # as parallel.compiled.keep
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }.items():
        os.environ.setdefault(name, value)
    logging.getLogger("jax").setLevel(logging.CRITICAL)


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
