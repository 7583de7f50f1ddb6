"""A bank by its folder, or the one that ships with the package."""

import os

from cr_jax.bank import pretrained
from cr_jax.bank.bank import ExpertBank


def load(folder: str | os.PathLike | None = None) -> ExpertBank:
    """The bank of a folder, by default the one that ships with the package, without language
    models.  Errors: `ExpertBank.load`.

    >>> load().names[:3]
    ('go', 'javascript', 'novels_de')
    """
    return ExpertBank.load(
        pretrained.folder() if folder is None else folder, lms=folder is not None
    )
