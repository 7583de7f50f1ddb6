"""The bank that ships with the package: `cr-jax route FILE` needs no training and no network.

What it was trained on, by which command, and how well it does: README.md beside this file.
"""

from pathlib import Path


def folder() -> Path:
    """The folder to give to `ExpertBank.load`; do not write into it.  Not in the paper."""
    return Path(__file__).parent / "bank"
