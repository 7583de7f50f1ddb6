"""Three bottlenecks behind one interface: L token states -> M latents -> a decoder's start.

`compress(h [B, L, D]) -> z [B, M, Dz]`; `expand(z) -> [B, P + L, D]`, whose first P = `prefix`
positions are latents laid before the window (`query`) and whose last L positions start the
decoder.  Nothing else passes: strict isolation (paper section 1).  `rate_mask(rate)` says which
numbers of z a lower rate keeps, up to `rates`.  To add a form, write these five and name it in
`BOTTLENECKS`.
"""

from cr_jax.models.bottlenecks.fold import Fold
from cr_jax.models.bottlenecks.query import Query, QueryFold

BOTTLENECKS = {"fold": Fold, "query": Query, "query_fold": QueryFold}
