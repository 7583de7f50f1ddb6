"""TLinFormer (arXiv 2508.20407): compressed history, and a window that also reads all of it.

`chunked` says what attends to what and what was decided where the paper leaves a choice.  As
reported: `stages=2`, `blocks=8` (2 blocks of depth 4).  `stages=1` (1 block of depth 8) has no
restore layer: training costs what a Transformer's does, and the history's keys and values depend
on embeddings alone, so that they are appended to and never made anew.
"""

from typing import ClassVar

from cr_jax.models.lm.chunked import Form
from cr_jax.models.lm.chunked_model import ChunkedModel

FORM = Form(reads_history=True)


class TLinFormer(ChunkedModel):
    """State: keys and values of all N positions, once a stage, and 2 W positions of the others."""

    form: ClassVar[Form] = FORM
