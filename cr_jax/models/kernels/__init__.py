"""Row operations of a training step in two forms: plain JAX, and Triton kernels for GPUs.

A form is named by the caller: "xla", or "triton", which reads and writes every row of activations
once where the compiler makes several passes.  `models.layers.row_kernels` chooses one for a
config.  The Triton forms are written in Pallas, are imported when first used, and are interpreted
on a CPU.  They know no mesh: arrays that a `jit` splits over devices want the plain form, a step
that each device runs by itself (`shard_map`) takes both, and so does `vmap` over experts.  Not in
the paper.
"""

from cr_jax.models.kernels import trial
from cr_jax.models.kernels.rows import (
    Form,
    add_norm,
    cross_entropy,
    gated,
    heads,
    missing,
    project,
    rms_norm,
    rotate,
    softmax_terms,
)

__all__ = [
    "Form",
    "add_norm",
    "cross_entropy",
    "gated",
    "heads",
    "missing",
    "project",
    "rms_norm",
    "rotate",
    "softmax_terms",
    "trial",
]
