"""The Triton forms of `cr_jax.models.kernels`, one file each; `launch` starts them.

D and K must be powers of two on a GPU (Triton's blocks are); an odd F is slow.  JAX marks Pallas
for Triton as deprecated (0.11.2): only this folder imports it, and the plain forms do without.
"""

from cr_jax.models.kernels.triton.gate import gated
from cr_jax.models.kernels.triton.loss import cross_entropy
from cr_jax.models.kernels.triton.norm import add_norm, rms_norm
from cr_jax.models.kernels.triton.rotary import heads

__all__ = ["add_norm", "cross_entropy", "gated", "heads", "rms_norm"]
