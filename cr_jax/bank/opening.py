"""A bank by its folder, or the one that ships with the package."""

import os

from cr_jax.bank import pretrained
from cr_jax.bank.bank import ExpertBank
from cr_jax.bank.exchange import is_export, opened
from cr_jax.host.files import expanded


def load(folder: str | os.PathLike | None = None) -> ExpertBank:
    """The bank of a folder, by default the one that ships with the package, without language
    models.  A folder for the Hugging Face Hub (`cr-jax bank export`) is opened in memory.

    Errors: `ExpertBank.load`.

    >>> load().names[:3]
    ('go', 'javascript', 'novels_de')
    """
    if folder is not None and is_export(expanded(folder)):
        return opened(folder)
    return ExpertBank.load(
        pretrained.folder() if folder is None else folder, lms=folder is not None
    )
