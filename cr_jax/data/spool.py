"""A document's blocks of windows, to be read more than once in bounded memory."""

import itertools
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np

from cr_jax.data.windows import Windows
from cr_jax.errors import UserError

MOST = 1 << 26  # bytes of a text's tokens kept in memory, the rest in a temporary file


class Spool:
    """`with Spool(blocks) as text:` each loop over `text` gives the same blocks from the first on.

    Blocks are drawn from `blocks` when a loop first needs them; later loops read them again.
    `UserError` when a text needs a temporary file and there is no room for one.
    """

    def __init__(self, blocks: Iterable[Windows]):
        self._source, self._count, self._passed = iter(blocks), 0, False

    def __enter__(self) -> "Spool":
        self._file = tempfile.SpooledTemporaryFile(max_size=MOST)
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Windows]:
        place, done = 0, 0
        while True:
            if done < self._count:
                self._file.seek(place)
                block = Windows(*(np.load(self._file, allow_pickle=False) for _ in range(3)))
            elif self._passed:
                raise RuntimeError("blocks that were passed by cannot be read again")
            elif (block := next(self._source, None)) is None:
                return
            else:
                self._add(block)
            place, done = self._file.tell(), done + 1
            yield block

    def rest(self, done: int) -> Iterator[Windows]:
        """The blocks after the first `done`, for the last time: what is new is not stored.

        Later loops reach no further than what was stored before.
        """
        yield from itertools.islice(self, done, max(done, self._count))
        self._passed = True
        yield from self._source

    def _add(self, block: Windows) -> None:
        self._file.seek(0, 2)
        try:
            for array in (block.tokens, block.mask, block.document):
                np.save(self._file, array, allow_pickle=False)
        except OSError as error:
            raise UserError(
                f"a text of this size needs a temporary file, but {error.strerror}: "
                "make room or set TMPDIR"
            ) from error
        self._count += 1
