"""Latents as memory: the past windows of a text, each kept as its expert's compressor wrote it.

    text -> windows -> the router's expert -> z, a label, a key     `write`
    query -> the best keys -> z -> that expert's decoder -> ids     `memory_pages.Reader`

A window of L tokens becomes M latents in one of four formats (`memory_codes`), a key by which it is
found again (`memory_index`), the expert whose latents these are, and the tokens that this expert
would rebuild wrongly, as far as `corrections` go: with them a page is the text itself.  The honest
rival keeps ids in place of latents, under the same keys.  Nothing depends on windows that come
later.  Paper, outlook: long contexts as latents; keys, corrections and paging are Not in the paper.
Letters: W windows, L tokens of one, M latents, Dz their width, F hashes of a key, E experts.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer, UInt16

from cr_jax.bank import ExpertBank
from cr_jax.config import ModelConfig
from cr_jax.data.windows import Windows
from cr_jax.errors import UserError
from cr_jax.modular import memory_codes, memory_index
from cr_jax.modular.memory_codes import Codes
from cr_jax.modular.memory_experts import CANDIDATES as CANDIDATES
from cr_jax.modular.memory_experts import chosen, compress, compressor_hash
from cr_jax.modular.options import IDS, LATENTS, MemoryOptions
from cr_jax.routing.document import READ, Text, blocks
from cr_jax.scoring.batching import BatchSizes, check_bank, in_batches

# Pages are rebuilt in other batches than the window was written in: below this probability
# rounding could make another token of it.
SURE = 0.6


class Fixes(NamedTuple):
    """Tokens that an expert would rebuild wrongly, or hardly: window w has those from start[w] to
    start[w + 1], each its place in the window and its id."""

    start: Integer[np.ndarray, " W1"]
    at: Integer[np.ndarray, " C"]
    ids: Integer[np.ndarray, " C"]


@dataclasses.dataclass(frozen=True, eq=False)
class Memory:
    """W windows of a text that was read.

    options: how it was written; model: shapes of window and latents; fingerprint: of the tokenizer;
    writers: an expert's name -> SHA-256 of its compressor, in the order of the labels.  expert: the
    label of each window, -1 where ids are kept; length: its tokens; keys: of the index.  codes and
    fixes: of latents; ids: [W, L] where these are kept, otherwise None.
    """

    options: MemoryOptions
    model: ModelConfig
    fingerprint: str
    writers: Mapping[str, str]
    expert: Integer[np.ndarray, " W"]
    length: Integer[np.ndarray, " W"]
    keys: UInt16[np.ndarray, "W F"]
    codes: Codes | None = None
    fixes: Fixes | None = None
    ids: Integer[np.ndarray, "W L"] | None = None

    def __len__(self) -> int:
        return len(self.length)

    @property
    def tokens(self) -> int:
        """That it holds."""
        return int(self.length.sum(dtype=np.int64))

    @property
    def bytes(self) -> dict[str, int]:
        """Of its arrays: latents, corrections, ids, keys, and labels with lengths."""
        size = lambda *arrays: sum(np.asarray(x).nbytes for x in arrays if x is not None)
        return {
            "latents": size(*(self.codes or ())),
            "corrections": size(*(self.fixes or ())),
            "ids": size(self.ids),
            "keys": size(self.keys),
            "labels": size(self.expert, self.length),
        }

    @property
    def nbytes(self) -> int:
        """All of them."""
        return sum(self.bytes.values())

    def to_json(self) -> dict[str, Any]:
        """What it holds and what that takes, plain JSON types."""
        return {
            "kind": self.options.kind,
            "dtype": self.options.dtype if self.codes is not None else None,
            "windows": len(self),
            "tokens": self.tokens,
            "bytes": self.nbytes,
            "bytes_of": self.bytes,
            "experts": {n: int((self.expert == i).sum()) for i, n in enumerate(self.writers)},
        }

    def __str__(self) -> str:
        kept = f"{self.options.kind} in {self.options.dtype}" if self.codes else self.options.kind
        each = f", {self.nbytes / len(self):,.0f} a window" if len(self) else ""
        return (
            f"{kept}, {self.tokens:,} tokens in {len(self):,} windows of {self.model.window}, "
            f"{self.nbytes:,} bytes{each}"
        )

    def take(self, windows: int) -> "Memory":
        """Its first windows, as if nothing had come after."""
        fixes = self.fixes
        if fixes is not None:
            end = int(fixes.start[windows])
            fixes = Fixes(fixes.start[: windows + 1], fixes.at[:end], fixes.ids[:end])
        some = lambda x: None if x is None else x[:windows]
        return dataclasses.replace(
            self,
            expert=self.expert[:windows],
            length=self.length[:windows],
            keys=self.keys[:windows],
            codes=None if self.codes is None else Codes(*map(some, self.codes)),
            fixes=fixes,
            ids=some(self.ids),
        )


def write(
    bank: ExpertBank,
    text: Text | Windows,
    options: MemoryOptions | None = None,
    sizes: BatchSizes | None = None,
) -> Memory:
    """Reads a text of any length, a block of windows at a time.  text: as of `cr_jax.route`.

    An empty text gives an empty memory.  `UserError` when the text is longer than `options.limit`
    windows, or the bank has no experts.
    """
    options = options or MemoryOptions(LATENTS)
    if not options.pages_in:
        raise UserError(f"memory={options.kind!r} keeps nothing: use {LATENTS} or {IDS}")
    check_bank(bank)
    return write_windows(bank, blocks(bank, text, READ), options, sizes)


def write_windows(
    bank: ExpertBank,
    windows: Iterable[Windows],
    options: MemoryOptions,
    sizes: BatchSizes | None = None,
) -> Memory:
    """`write` of a text that comes as blocks of windows."""
    sizes = sizes or BatchSizes.for_device()
    parts, count = [], 0
    for block in windows:
        count += len(block)
        if count > options.limit:
            raise UserError(
                f"the context is longer than the memory's limit of {options.limit:,} windows "
                f"({options.limit * bank.model.window:,} tokens): give less of it, or raise limit"
            )
        parts.append(_part(bank, block, options, sizes))
    if not parts:
        none = np.zeros((0, bank.model.window), np.int32)
        nothing = Windows(none, none > 0, np.zeros(0, np.int64))
        parts = [_part(bank, nothing, options, sizes)]
    return _joined(bank, options, parts)


def _part(bank, block: Windows, options: MemoryOptions, sizes) -> dict[str, Any]:
    """What is kept of a block's windows."""
    nats = memory_index.surprise(bank, block.tokens)
    found = memory_index.features(block.tokens, block.mask, nats)
    part = {
        "length": block.mask.sum(-1).astype(narrow(bank.model.window)),
        "keys": memory_index.keys_of(found, options.features_of(bank.model.window)),
    }
    if options.kind != IDS:
        return part | _compressed(bank, block, nats, options, sizes)
    ids = block.tokens.astype(narrow(bank.model.vocab_size - 1))
    return part | {"ids": ids, "expert": np.full(len(block), -1, np.int16)}


def _compressed(bank, block: Windows, nats, options: MemoryOptions, sizes) -> dict[str, Any]:
    """Latents and corrections of a block's windows, each by its own expert."""
    expert = chosen(bank, block, sizes)
    shapes = memory_codes.shapes(options.dtype, bank.model.latents, bank.model.d_latent)
    part = {n: np.zeros((len(block), *s), np.dtype(jnp.dtype(t))) for n, (s, t) in shapes.items()}
    doubt, fix = np.zeros(block.tokens.shape), options.corrections > 0
    for e in np.unique(expert).tolist():
        at = np.flatnonzero(expert == e)
        params = jax.tree.map(lambda x, e=e: x[e], bank.params)
        chunk = sizes.tokens if fix else 0
        run = functools.partial(compress, bank.model, params, dtype=options.dtype, chunk=chunk)
        codes, back, sure = in_batches(run, block.take(at), sizes.rows(len(at)), axis=0)
        part["numbers"][at], part["scale"][at] = codes
        if fix:
            doubt[at] = np.where(back != block.tokens[at], 2, sure < SURE)
    wrong = (doubt > 0) & block.mask
    for row, unsure, surprise in zip(wrong, doubt, nats, strict=True):
        if row.sum() > options.corrections:  # what surprises is what a text is asked for
            order = np.lexsort((-surprise, -unsure * row))
            row[order[options.corrections :]] = False
    window, at = np.nonzero(wrong)
    return part | {
        "expert": expert.astype(np.int16),
        "fixed": wrong.sum(-1),
        "at": at.astype(narrow(bank.model.window)),
        "fix_ids": block.tokens[window, at].astype(narrow(bank.model.vocab_size - 1)),
    }


def _joined(bank: ExpertBank, options: MemoryOptions, parts: list[dict[str, Any]]) -> Memory:
    """Labels count the experts that wrote, in the bank's order."""
    whole = {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}
    places = np.unique(whole["expert"][whole["expert"] >= 0])
    writers = {bank.names[e]: compressor_hash(bank.experts[e]) for e in places.tolist()}
    label = np.searchsorted(places, whole["expert"]).astype(np.int16)
    shared = (options, bank.model, bank.tokenizer.fingerprint, writers)
    if options.kind == IDS:
        return Memory(*shared, whole["expert"], whole["length"], whole["keys"], ids=whole["ids"])
    starts = np.cumsum([0, *whole["fixed"]], dtype=np.uint32)
    return Memory(
        *shared,
        label,
        whole["length"],
        whole["keys"],
        Codes(whole["numbers"], whole["scale"]),
        Fixes(starts, whole["at"], whole["fix_ids"]),
    )


def narrow(most: int) -> type:
    """The unsigned dtype that numbers up to `most` are kept in."""
    return np.uint16 if most < 1 << 16 else np.uint32
