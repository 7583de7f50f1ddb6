"""Compression is Routing (arXiv 2512.16963): domain compressors whose residuals route text.

>>> import cr_jax
>>> cr_jax.__version__
'0.1.0'

    bank = cr_jax.load()                       # the bank that ships, or that of a folder
    found = cr_jax.route(bank, "def f(x): return x")
    found.expert, found.margin, found.p_values

A str is the text itself; a file is given as `pathlib.Path("f.py")`.  `route_many` routes a list of
texts, much faster than one by one (docs/files.md); `residual_matrix` gives every expert's residuals
of a list, `encode` and `decode` its latents and back.  `score` takes one text and gives the
residuals behind its route, token by token; `route_windows` routes windows one by one; `segment`
cuts a text where its domain changes (docs/segments.md).  `generate` goes on with a text and
`perplexity` says what one costs, by the experts' language models (docs/modular.md).
`RouteOptions`, `SegmentOptions`, `GenerateOptions`, `PerplexityOptions` and `MemoryOptions` say
how, `BatchSizes` how much is computed at once.  Bad input raises `UserError`.  Names are imported
on first use, so that `import cr_jax` stays light.
"""

import importlib
from typing import TYPE_CHECKING

from cr_jax.errors import UserError

if TYPE_CHECKING:
    from cr_jax.bank.bank import ExpertBank
    from cr_jax.bank.expert import Expert
    from cr_jax.bank.opening import load
    from cr_jax.modular.generate import generate
    from cr_jax.modular.options import GenerateOptions, MemoryOptions, PerplexityOptions
    from cr_jax.modular.perplexity import perplexity
    from cr_jax.router import route, route_windows, score
    from cr_jax.routing.latents import decode, encode, residual_matrix
    from cr_jax.routing.many import route_many
    from cr_jax.routing.options import RouteOptions, SegmentOptions
    from cr_jax.routing.segment import segment
    from cr_jax.scoring.batching import BatchSizes

__version__ = "0.1.0"
__all__ = [
    "BatchSizes",
    "Expert",
    "ExpertBank",
    "GenerateOptions",
    "MemoryOptions",
    "PerplexityOptions",
    "RouteOptions",
    "SegmentOptions",
    "UserError",
    "__version__",
    "decode",
    "encode",
    "generate",
    "load",
    "perplexity",
    "residual_matrix",
    "route",
    "route_many",
    "route_windows",
    "score",
    "segment",
]

_HOMES = {
    "BatchSizes": "cr_jax.scoring.batching",
    **dict.fromkeys(("Expert", "ExpertBank", "load"), "cr_jax.bank"),
    **dict.fromkeys(("decode", "encode", "residual_matrix"), "cr_jax.routing.latents"),
    "route_many": "cr_jax.routing.many",
    **dict.fromkeys(
        ("GenerateOptions", "MemoryOptions", "PerplexityOptions"), "cr_jax.modular.options"
    ),
    **dict.fromkeys(("RouteOptions", "SegmentOptions"), "cr_jax.routing.options"),
    "segment": "cr_jax.routing.segment",
    "generate": "cr_jax.modular.generate",
    "perplexity": "cr_jax.modular.perplexity",
    **dict.fromkeys(("route", "route_windows", "score"), "cr_jax.router"),
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'cr_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return sorted({*globals(), *_HOMES})
