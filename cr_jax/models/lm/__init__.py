"""Language models of an expert's size, behind one interface.  Not in the paper.

    init(config, key) -> params
    apply(params, tokens [B, L]) -> states [B, L, D]; states[:, i] predicts token i
    apply(params, tokens, mask, length, method="prefill") -> states [B, L + 1, D], cache
    apply(params, token [B], cache, method="step") -> states [B, D], cache
    cache_bytes(config, length) -> bytes of one text's cache

A start vector stands before the first token, so all L tokens are predicted; a state is multiplied
by `head(config, params)` for logits.  Caches have a fixed shape, so that `step` is one program.
Kinds that compress their past (`chunked`) have `fill`, which makes a cache of a long text, and
`sync`, which is due where `full(config, cache)`.

    decoder        plain: all earlier tokens; what the router's experts speak with
    sliding        the first positions and the last ones; all of them with chunk=0
    tlinformer     compressed positions, and once a stage all of the history
    tconstformer   compressed positions alone
    recurrent      the same, made of the ones before them

To add a kind: `interface.register_lm`.
"""

from cr_jax.models.lm.chunk_cache import ChunkCache, full, state_bytes
from cr_jax.models.lm.decoder import Cache, Decoder
from cr_jax.models.lm.interface import (
    KINDS,
    Kind,
    cache_bytes,
    count_lm_parameters,
    forward_flops,
    head,
    init,
    make_lm,
    register_lm,
)

__all__ = [
    "KINDS",
    "Cache",
    "ChunkCache",
    "Decoder",
    "Kind",
    "cache_bytes",
    "count_lm_parameters",
    "forward_flops",
    "full",
    "head",
    "init",
    "make_lm",
    "register_lm",
    "state_bytes",
]
