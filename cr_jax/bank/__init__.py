"""A folder of sealed experts <-> parameters stacked on a leading expert axis E.

Names are imported on first use: looking into a bank's folder (`bank.files`) needs no JAX.
"""

import importlib

__all__ = ["ExpertBank", "check_scouts", "import_expert", "selected", "set_excess"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'cr_jax.bank' has no attribute {name!r}")
    return getattr(importlib.import_module("cr_jax.bank.bank"), name)


def __dir__():
    return sorted({*globals(), *__all__})
