"""The files a user names: checked before JAX starts."""

import itertools
import os


def checked(name: str) -> str:
    """`name`; `UserError` for what its first 2 MB show: missing, a folder, empty, not text."""
    from cr_jax.data.sources import read_text

    pipe = os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name)
    if name != "-" and not pipe:  # a pipe can be read only once
        for _ in itertools.islice(read_text(name), 2):
            pass
    return name


def whole_text(name: str):
    """The text in pieces, once all of it is known to be good: nothing is shown of a bad file."""
    from cr_jax.data.sources import read_text

    if not os.path.isfile(name):
        return list(read_text(name))
    for _ in read_text(name):
        pass
    return read_text(name)
