"""What a language model is given before the tokens that it predicts: pages, then the last tokens.

    memory, text so far -> pages + last tokens + (tokens to be scored, or to be said)

P positions of a model are shared out: half at most for pages, a quarter for the tokens that are
scored, the rest for the tokens before these.  Not in the paper.  Letters: P positions, S segments,
L tokens of a window.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int, Integer

from cr_jax.bank import ExpertBank
from cr_jax.data.windows import Tail, Windows
from cr_jax.errors import UserError
from cr_jax.modular import memory
from cr_jax.modular.decode import CHUNK
from cr_jax.modular.memory import Memory
from cr_jax.modular.memory_pages import Reader
from cr_jax.modular.options import LEAST, MemoryOptions
from cr_jax.routing.document import READ, Text, blocks
from cr_jax.scoring.batching import BatchSizes

LEAST_PAGED = 4 * LEAST + 2 * CHUNK  # half may be pages, and there is room for what is said
SEGMENTS = 256  # whose pages are decompressed at once


def segment_of(positions: int) -> int:
    """Tokens of a segment: a quarter of the positions."""
    return max(1, positions // 4)


def contexts(
    ids: Integer[np.ndarray, " N"],
    reader: Reader | None,
    options: MemoryOptions,
    positions: int,
    pad_id: int = 0,
    starts: Integer[np.ndarray, " S"] | None = None,
) -> tuple[Int[np.ndarray, "S P"], Bool[np.ndarray, "S P"]]:
    """(what a model reads for each segment of a text, where the segment's own tokens stand).

    Row by row the segments' tokens are the text.  Before them stand the pages that the last
    `options.query` tokens ask for, of windows that end before the last tokens begin, and then as
    many of these as there is room for; without a reader these alone.
    """
    segment, span = segment_of(positions), 0
    if reader is not None:
        span = options.span_of(reader.memory.model.window, positions)
    recent = positions - segment - span * options.pages
    starts = np.arange(0, len(ids), segment) if starts is None else np.asarray(starts)
    tokens = np.full((len(starts), positions), pad_id, np.int32)
    own = np.zeros(tokens.shape, bool)
    for i in range(0, len(starts), SEGMENTS):
        some = starts[i : i + SEGMENTS]
        pages = [np.zeros(0, np.int32)] * len(some)
        if reader is not None:
            before = np.maximum(0, some - recent) // reader.memory.model.window
            queries = [ids[max(0, s - options.query) : s] for s in some]
            pages = reader.attended(queries, span, before, options.pages)
        for row, mask, start, page in zip(tokens[i:], own[i:], some, pages, strict=False):
            room = positions - segment - len(page)
            last = ids[max(0, start - room) : start]
            said = ids[start : start + segment]
            whole = np.concatenate([page, last, said])
            row[: len(whole)] = whole
            mask[len(whole) - len(said) : len(whole)] = True
    return tokens, own


@dataclasses.dataclass(frozen=True, eq=False)
class Past:
    """What went before a prompt: a memory of it, and its last tokens as they are.

    span: tokens of a page; tail: none where the memory was read from a file.
    """

    reader: Reader
    options: MemoryOptions
    span: int
    tail: Int[np.ndarray, " T"]

    @classmethod
    def of(
        cls,
        bank: ExpertBank,
        context: Text | Memory,
        options: MemoryOptions,
        positions: int,
        sizes: BatchSizes | None = None,
    ) -> "Past":
        """Writes a text into a memory, or opens one.  `UserError`: `memory.write`, `Reader`."""
        if positions < LEAST_PAGED:
            raise UserError(
                f"positions={positions} are too few to read pages: give {LEAST_PAGED} at least"
            )
        span = options.span_of(bank.model.window, positions)
        if isinstance(context, Memory):
            if context.options.kind != options.kind:
                raise UserError(
                    f"the memory keeps {context.options.kind}: read it with "
                    f"memory={context.options.kind!r}, not {options.kind!r}"
                )
            return cls(Reader(bank, context, sizes), options, span, np.zeros(0, np.int32))
        tail = Tail(positions)

        def seen() -> Iterator[Windows]:
            for block in blocks(bank, context, READ):
                tail.add(block)
                yield block

        written = memory.write_windows(bank, seen(), options, sizes)
        return cls(Reader(bank, written, sizes), options, span, tail.ids)

    @property
    def whole(self) -> bool:
        """Whether the tail is all that went before."""
        return len(self.tail) == self.reader.memory.tokens

    @property
    def most(self) -> int:
        """Tokens of all pages together."""
        return self.span * self.options.pages

    def pages(self, text: Integer[np.ndarray, " N"], visible: int) -> Int[np.ndarray, " T"]:
        """What stands before a text whose first tokens are the tail; visible: of the tail's tokens,
        the last so many, which a model sees as they are."""
        kept = self.reader.memory
        end = len(kept) if not visible else (kept.tokens - visible) // kept.model.window
        query = text[-self.options.query :]
        found = self.reader.attended([query], self.span, np.array([end]), self.options.pages)
        return found[0]
