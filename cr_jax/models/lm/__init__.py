"""Language models of an expert's size, behind one interface.  Not in the paper.

    init(config, key) -> params
    apply(params, tokens [B, L]) -> states [B, L, D]; states[:, i] predicts token i
    apply(params, tokens, mask, length, method="prefill") -> states [B, L + 1, D], cache
    apply(params, token [B], cache, method="step") -> states [B, D], cache
    cache_bytes(config, length) -> bytes of one text's cache

A start vector stands before the first token, so all L tokens are predicted; a state is multiplied
by `head(config, params)` for logits.  Caches have a fixed shape, so that `step` is one program.
To add a kind: a module with these methods, named in `KINDS`.
"""

from cr_jax.models.lm.decoder import Cache, Decoder
from cr_jax.models.lm.interface import KINDS, cache_bytes, count_lm_parameters, head, init, make_lm

__all__ = [
    "KINDS",
    "Cache",
    "Decoder",
    "cache_bytes",
    "count_lm_parameters",
    "head",
    "init",
    "make_lm",
]
