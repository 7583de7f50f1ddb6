"""TConstFormer (arXiv 2509.00202): the window knows its past by the compressed positions alone.

TLinFormer without the window's attention to the raw history in the first layer of a stage, so that
the state between syncs is constant.  A sync compresses the whole history anew: it needs all ids,
and its cost grows with them.  What is kept across a sync is not defined in the paper: here the ids,
and nothing else.  `chunked` has the other decisions.
"""

from typing import ClassVar

from cr_jax.models.lm.chunked import Form
from cr_jax.models.lm.chunked_model import ChunkedModel

FORM = Form()


class TConstFormer(ChunkedModel):
    """State: 2 W positions a layer, W in the first layer of a stage, and the ids."""

    form: ClassVar[Form] = FORM
