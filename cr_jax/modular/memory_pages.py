"""Paging: which windows of a memory a query needs, and their tokens.

    query ids -> keys that share most -> windows -> their own experts' decoders, side by side -> ids

Pages are decompressed in one parallel pass, vmapped over the experts that wrote them.  A language
model sees them as tokens before the current window: of each page the `span` tokens where the query
matches best and what follows there, pages in the order of the text, numbered on from one to the
next; there is no gap of positions, so the model needs none longer than those it was trained on.
Not in the paper.  Letters: B queries, Q tokens of one, K pages, L tokens of a window, N windows,
G groups of R windows by one expert.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from cr_jax.bank import ExpertBank
from cr_jax.config import ModelConfig
from cr_jax.errors import UserError
from cr_jax.models.lm import grouped
from cr_jax.modular import memory_index
from cr_jax.modular.memory import Memory
from cr_jax.modular.memory_codes import Codes
from cr_jax.modular.memory_experts import compressor_hash, decompress
from cr_jax.scoring.batching import BatchSizes


class Reader:
    """A memory, opened with the bank that wrote it.

    `UserError` when the bank has another tokenizer or other shapes, lacks an expert that wrote some
    of it, or has another one under that name.
    """

    weighted = True  # as of `memory_index.tables`

    def __init__(self, bank: ExpertBank, memory: Memory, sizes: BatchSizes | None = None):
        check_fits(bank, memory)
        self.bank, self.memory = bank, memory
        self._sizes = sizes or BatchSizes.for_device()
        places = [bank.index(name) for name in memory.writers]
        self._experts = np.array(places, int)[memory.expert] if places else memory.expert
        self._keys = jnp.asarray(memory.keys)

    def best(
        self,
        queries: Sequence[Integer[np.ndarray, " Q"]],
        before: Integer[np.ndarray, " B"] | None = None,
        pages: int = 4,
    ) -> Int[np.ndarray, "B K"]:
        """The windows that share most with each query, best first; -1 where no more share any.

        before: windows from this one on are left out; None: none.
        """
        ends = self._ends(queries, before)
        return self._best(self._tables(queries, ends), ends, pages)

    def tokens(self, windows: Integer[np.ndarray, " N"]) -> Int[np.ndarray, "N L"]:
        """The ids of whole windows; what stands beyond a window's length means nothing."""
        windows = np.asarray(windows, int)
        if self.memory.ids is not None:
            return self.memory.ids[windows].astype(np.int32)
        out = np.zeros((len(windows), self.memory.model.window), np.int32)
        rows = self._sizes.rows(len(windows)) if len(windows) else 1
        for start in range(0, len(windows), rows):
            some = windows[start : start + rows]
            filled = np.pad(some, (0, rows - len(some)), "edge")
            out[start : start + rows] = self._decompressed(filled)[: len(some)]
        fixes = self.memory.fixes
        for row, w in zip(out, windows.tolist(), strict=True):
            own = slice(int(fixes.start[w]), int(fixes.start[w + 1]))
            row[fixes.at[own]] = fixes.ids[own]
        return out

    def attended(
        self,
        queries: Sequence[Integer[np.ndarray, " Q"]],
        span: int,
        before: Integer[np.ndarray, " B"] | None = None,
        pages: int = 4,
    ) -> list[Int[np.ndarray, " T"]]:
        """Of each query, the tokens of its pages, `span` at most of each, in the order of the text.

        Where a match stands at a page's end, its span runs on into the next window.
        """
        if not len(self.memory):
            return [np.zeros(0, np.int32) for _ in queries]
        ends = self._ends(queries, before)
        tables = self._tables(queries, ends)
        windows = np.sort(self._best(tables, ends, pages), 1)
        ids, place = self._some(np.unique(windows[windows >= 0]))
        start = np.zeros(windows.shape, int)
        for b, k in np.argwhere(windows >= 0).tolist():
            w = windows[b, k]
            size = int(self.memory.length[w])
            start[b, k] = self._start(ids[place[w]][:size], tables[b], span)
        over = (windows >= 0) & (start + span > self.memory.length[windows])
        more = np.unique(windows[over & (windows + 1 < ends[:, None])] + 1)
        next_ids, next_place = self._some(more)

        def one(b, k):
            w, at = int(windows[b, k]), int(start[b, k])
            own = ids[place[w]][: self.memory.length[w]]
            left = at + span - len(own)
            if left <= 0:
                return own[at : at + span]
            if w + 1 in next_place and w + 1 < ends[b]:
                follows = next_ids[next_place[w + 1]][: self.memory.length[w + 1]]
                return np.concatenate([own[at:], follows[:left]])
            return own[max(0, len(own) - span) :]

        empty = np.zeros(0, np.int32)
        return [
            np.concatenate([empty, *(one(b, k) for k in range(pages) if windows[b, k] >= 0)])
            for b in range(len(windows))
        ]

    def _start(self, ids, table, span: int) -> int:
        """Where in a page the span begins: a little before the stretch of a quarter span that
        shares most with the query, of equal ones the last.  What follows there is what a text like
        the query goes on with.
        """
        mask = np.ones((1, len(ids)), bool)
        shared = table[memory_index.hashes_of(ids[None], mask)[0]]
        sums = np.cumsum([0.0, *shared])
        end = np.minimum(np.arange(len(ids)) + max(1, span // 4), len(ids))
        score = np.round(sums[end] - sums[:-1], 3)  # sums of the same terms are equal
        return max(0, len(ids) - 1 - int(np.argmax(score[::-1])) - span // 16)

    def _some(self, windows) -> tuple[Int[np.ndarray, "N L"], dict[int, int]]:
        return self.tokens(windows), {w: i for i, w in enumerate(windows.tolist())}

    def _ends(self, queries, before) -> Int[np.ndarray, " B"]:
        most = len(self.memory)
        return np.full(len(queries), most) if before is None else np.minimum(before, most)

    def _tables(self, queries, ends) -> Float[np.ndarray, "B 65536"]:
        width = max(1, *map(len, queries))
        ids = np.zeros((len(queries), width), np.int32)
        mask = np.zeros(ids.shape, bool)
        for i, query in enumerate(queries):
            ids[i, : len(query)], mask[i, : len(query)] = query, True
        found = memory_index.features(ids, mask, self._nats(ids))
        return memory_index.tables(found, self.memory.keys, ends, self.weighted)

    def _nats(self, tokens) -> Float[np.ndarray, "B L"]:
        return memory_index.surprise(self.bank, tokens)

    def _best(self, tables, ends, pages: int) -> Int[np.ndarray, "B K"]:
        most = min(pages, len(self.memory))
        out = np.full((len(tables), pages), -1)
        if most:
            rows = self._sizes.rows(len(tables))
            for i in range(0, len(tables), rows):
                fill = rows - len(tables[i : i + rows])
                weights = np.pad(tables[i : i + rows], ((0, fill), (0, 0)))
                end = np.pad(ends[i : i + rows], (0, fill)).astype(np.int32)
                found, _ = memory_index.nearest(self._keys, weights, end, most)
                out[i : i + rows, :most] = np.asarray(found)[: rows - fill]
        return out

    def _decompressed(self, windows) -> Int[np.ndarray, "N L"]:
        memory, model = self.memory, self.memory.model
        experts, seats = grouped.seat(self._experts[windows], len(self.bank.names))
        codes = Codes(*(x[windows] for x in memory.codes))
        mask = np.arange(model.window) < memory.length[windows][:, None].astype(int)
        kept = memory.options.dtype
        found = _side_by_side(
            model, self.bank.params, experts, seats, codes, mask, kept, self._sizes.tokens
        )
        return np.asarray(found)


@functools.partial(jax.jit, static_argnames=("model", "dtype", "chunk"))
def _side_by_side(
    model: ModelConfig,
    params: Any,
    experts: Int[Array, " G"],
    seats: grouped.Seats,
    codes: Codes,
    mask: Bool[Array, "N L"],
    dtype: str,
    chunk: int,
) -> Int[Array, "N L"]:
    """Ids of windows by their own experts, params [E, ...]: `decompress` vmapped over G experts."""
    own = jax.tree.map(lambda x: x[experts], params)
    seated = jax.tree.map(lambda x: x[seats.slots], (codes, mask))
    one = lambda params, codes, mask: decompress(
        model, params, codes, mask, dtype, max(1, chunk // len(experts))
    )[0]
    found = jax.vmap(one)(own, *seated)
    return found.reshape(-1, found.shape[-1])[seats.place]


def check_fits(bank: ExpertBank, memory: Memory) -> None:
    """`UserError` unless the bank's experts are those that wrote the memory."""
    if memory.fingerprint != bank.tokenizer.fingerprint:
        raise UserError(
            "the memory was written with another tokenizer than the bank's: write it again"
        )
    mine = (bank.model.window, bank.model.latents, bank.model.d_latent, bank.model.vocab_size)
    own = memory.model
    its = (own.window, own.latents, own.d_latent, own.vocab_size)
    if its != mine:
        raise UserError(
            f"the memory has windows of {its[0]} tokens in {its[1]} latents of {its[2]}, the bank "
            f"{mine[0]} in {mine[1]} of {mine[2]}: write it again with this bank"
        )
    for name, digest in memory.writers.items():
        if name not in bank.names:
            raise UserError(
                f"the memory was written by expert {name!r}, which the bank has no more: load the "
                "bank with it, or write the memory again"
            )
        if compressor_hash(bank.expert(name)) != digest:
            raise UserError(
                f"the memory was written by another expert {name!r} than the bank's (its SHA-256 "
                "differs): write the memory again"
            )
