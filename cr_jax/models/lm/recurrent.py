"""TConstFormer made recurrent: a sync reads the compressed positions before it and one chunk.

Not in the papers, whose state is constant between syncs only.  New compressed positions are made
of the old ones and of the last chunk (`chunked.advance`), so neither state nor time of a sync grows
with the text, and no ids are kept.  What is carried is the context as it enters a stage's last
layer: it has passed all layers that work on it.  Training goes chunk after chunk along the context
path; the window path, most of the work, is computed at once.
"""

from typing import ClassVar

from cr_jax.models.lm.chunked import Form
from cr_jax.models.lm.chunked_model import ChunkedModel

FORM = Form(recurrent=True)


class Recurrent(ChunkedModel):
    """State: as TConstFormer's and W states a stage; no ids but the window's."""

    form: ClassVar[Form] = FORM
