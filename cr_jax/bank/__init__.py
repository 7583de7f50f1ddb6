"""A folder of sealed experts <-> parameters stacked on a leading expert axis E.

Names are imported on first use: the command line checks a bank's files before JAX starts.
"""

import importlib

__all__ = ["ExpertBank", "check_bigrams", "import_expert", "selected", "set_typicality_weight"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'cr_jax.bank' has no attribute {name!r}")
    return getattr(importlib.import_module("cr_jax.bank.bank"), name)


def __dir__():
    return sorted({*globals(), *__all__})
