"""What every bottleneck offers."""

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from cr_jax.config import ModelConfig


class Bottleneck(nn.Module):
    """L token states -> M latents -> what the decoder starts from.

    Nothing but z passes from `compress` to `expand`: strict isolation (paper section 1).  The
    other members also work on a bare `Form(config)`, outside `apply`.
    """

    config: ModelConfig

    # What a rate counts, in the plural, for messages.
    rate_unit = "numbers"
    # Whether the first k latents alone are a smaller code of the whole window.
    nested_latents = False

    @property
    def prefix(self) -> int:
        """P, how many positions `expand` lays before the window."""
        return 0

    @property
    def rates(self) -> int:
        """The full rate; rate k keeps the first k of so many parts of z."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises `UserError` for shapes that cannot work, and says which numbers would."""

    def forward_flops(self) -> float:
        """Operations of one window's forward pass, 2 m k n for a product [m, k] x [k, n]."""
        raise NotImplementedError

    def training_flops(self) -> float:
        """The same of a training step: the backward pass forms one product per operand."""
        return 3.0 * self.forward_flops()

    def compress(
        self, h: Float[Array, "B L D"], mask: Bool[Array, "B L"] | None = None
    ) -> Float[Array, "B M Dz"]:
        """The encoder's states -> z; states under a False mask change nothing."""
        raise NotImplementedError

    def expand(
        self, z: Float[Array, "B M Dz"], rate: Int[Array, " B"] | None = None
    ) -> Float[Array, "B T D"]:
        """z -> the decoder's T = P + L first states.

        rate: z is zero outside `rate_mask(rate)` already; a form that can leave it unread does.
        """
        raise NotImplementedError

    def rate_mask(self, rate: Int[Array, " B"]) -> Bool[Array, " B #M #Dz"]:
        """Which numbers of z each window keeps."""
        raise NotImplementedError
