"""A folder of sealed experts <-> parameters stacked on a leading expert axis E.

Names are imported on first use: the command line checks a bank's files before JAX starts.
"""

import importlib

_HOMES = {
    **dict.fromkeys(("Expert", "LanguageModels"), "expert"),
    **dict.fromkeys(("check_bigrams", "selected"), "stacks"),
    "ExpertBank": "bank",
    "load": "opening",
    **dict.fromkeys(("import_expert", "import_lms", "set_typicality_weight"), "changes"),
    "import_experts": "joining",
    **dict.fromkeys(("export", "import_exports"), "exchange"),
    "store_lms": "language_models",
}
__all__ = [
    "Expert",
    "ExpertBank",
    "LanguageModels",
    "check_bigrams",
    "export",
    "import_expert",
    "import_experts",
    "import_exports",
    "import_lms",
    "load",
    "selected",
    "set_typicality_weight",
    "store_lms",
]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'cr_jax.bank' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cr_jax.bank.{_HOMES[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})
