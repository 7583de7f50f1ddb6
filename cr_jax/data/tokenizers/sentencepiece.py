"""SentencePiece BPE with byte fallback, set up to lose nothing. Not in the paper (GPT-2's)."""

import collections
import hashlib
import heapq
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import sentencepiece
from jaxtyping import UInt32

from cr_jax.data.tokenizers.token_table import TokenTable
from cr_jax.errors import UserError
from cr_jax.host.memory import usable_cores

SPACE_MARK = "\u2581"  # SentencePiece writes it for a space, so it cannot stand for itself
_CHUNK = 4096  # characters; SentencePiece slows down on long inputs
_BLOCK = 1 << 15  # characters per block of the sample
_FIXED = 261  # pad, unknown, end, line end, tab, 256 bytes
_SENTENCE = 4000  # characters; at most 4 bytes each, under max_sentence_length


class SentencePieceTokenizer(TokenTable):
    """A SentencePiece model with byte fallback and no normalisation. Not in the paper.

    Args:
        model: the bytes of a `.model` file. UserError when it is not one, or would lose text.
    """

    kind = "sentencepiece"

    def __init__(self, model: bytes):
        try:
            processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
        except (RuntimeError, UnicodeDecodeError):
            raise UserError("not a SentencePiece model; give a .model file") from None
        self._model, self._processor = model, processor
        table = []
        for i, piece in enumerate(pieces):
            if processor.is_byte(i):
                table.append(bytes([int(piece[3:5], 16)]))
            elif processor.is_control(i) or processor.is_unknown(i) or processor.is_unused(i):
                table.append(b"")
            else:
                table.append(piece.replace(SPACE_MARK, " ").encode("utf-8"))
        unknown, end = processor.unk_id(), processor.eos_id()
        end = end if end >= 0 else unknown
        pad = processor.pad_id() if processor.pad_id() >= 0 else end
        super().__init__(table, end, pad, hashlib.sha256(model).hexdigest())
        mark = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE_MARK.encode("utf-8")]
        self._mark = np.array(mark, np.uint32)
        probe = f" a  b\t\r\n\n\0\u00e9e\u0301 \U0001f600{SPACE_MARK} "
        if _rewrites(processor.serialized_model_proto()) or (
            self.decode(self.encode(probe)) != probe
        ):
            raise UserError(
                "this SentencePiece model loses text; train one with byte_fallback and "
                "the identity normalisation, without dummy prefix"
            )

    def encode(self, text: str) -> UInt32[np.ndarray, " N"]:
        if SPACE_MARK not in text:
            parts = self._encode(text)
        else:
            parts = []
            for i, part in enumerate(text.split(SPACE_MARK)):
                parts += ([self._mark] if i else []) + self._encode(part)
        return np.concatenate(parts) if parts else np.zeros(0, np.uint32)

    def encode_many(self, texts: Sequence[str]) -> list[UInt32[np.ndarray, " _"]]:
        """`encode` of each text, by as many threads as there are cores."""
        parts = [[] if SPACE_MARK in text else _line_chunks(text) for text in texts]
        every = list(itertools.chain(*parts))
        ids = iter(self._processor.encode(every, num_threads=usable_cores()))
        found = []
        for text, own in zip(texts, parts, strict=True):
            whole = list(itertools.chain.from_iterable(itertools.islice(ids, len(own))))
            found.append(np.array(whole, np.uint32) if own else self.encode(text))
        return found

    def _encode(self, text: str) -> list[np.ndarray]:
        encode = self._processor.encode
        return [np.array(encode(part), np.uint32) for part in _line_chunks(text)]

    def _files(self) -> dict[str, bytes]:
        return {"sentencepiece.model": self._model}


def _rewrites(model: bytes) -> bool:
    """Whether the model has rules that write other characters for some of a text.

    No probe could show them all.  They are `precompiled_charsmap`, field 2 of `normalizer_spec`,
    field 3 of the model.
    """
    specs = [data for number, data in _fields(model) if number == 3]
    return any(data for spec in specs for number, data in _fields(spec) if number == 2)


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Numbers and bytes of those fields of a protocol buffer that say how long they are."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            varint()
        else:
            size = {1: 8, 5: 4}.get(tag & 7) or varint()
            if tag & 7 == 2:
                yield tag >> 3, data[at : at + size]
            at += size


def _line_chunks(text: str) -> list[str]:
    """`text` cut after line ends into parts of about _CHUNK characters.

    A line end is a piece of its own (user_defined_symbols), so the cuts do not change the ids.
    """
    parts, start = [], 0
    while len(text) - start > _CHUNK:
        cut = text.find("\n", start + _CHUNK) + 1
        if not cut:
            break
        parts.append(text[start:cut])
        start = cut
    if start < len(text):
        parts.append(text[start:])
    return parts


def train_sentencepiece(
    texts: Iterable[str],
    vocab_size: int,
    folder: str | Path,
    seed: int = 0,
    max_bytes: int = 50_000_000,
) -> SentencePieceTokenizer:
    """Trains a BPE model with byte fallback, saves it in `folder` and returns it.

    The same texts, sizes and seed give the same model. `texts` is read once, as a stream; beyond
    `max_bytes` (UTF-8) an even random sample of its blocks (32,768 characters) is kept. 50 MB at
    16 k ids take about half a minute.
    UserError when there is no text, or when `vocab_size` is too small or too large for it.
    """
    sample = _sample(texts, seed, max_bytes)
    if not sample:
        raise UserError("no text to train a tokenizer on; check the data sources")
    try:
        # Rare characters are left to the byte pieces.
        model = _train(_sentences(sample), vocab_size, 0.9995)
    except RuntimeError as error:
        if "required_chars" not in str(error):
            raise UserError(f"cannot train {vocab_size} pieces: {_advice(str(error))}") from None
        model = _train_common(sample, vocab_size)
    tokenizer = SentencePieceTokenizer(model)
    tokenizer.save(Path(folder))
    return tokenizer


def _train(sentences: Iterator[str], vocab_size: int, coverage: float) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences,
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        character_coverage=coverage,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=["\n", "\t"],
        pad_id=0,
        unk_id=1,
        eos_id=2,
        bos_id=-1,
        max_sentence_length=4 * _SENTENCE + 1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _train_common(sample: list[str], vocab_size: int) -> bytes:
    """For scripts with more characters than ids: half of the free ids go to the commonest ones."""
    counts: collections.Counter[str] = collections.Counter()
    for block in sample:
        counts.update(block)
    ranked = sorted(counts, key=lambda c: (-counts[c], c))
    common = set(ranked[: max(0, vocab_size - _FIXED) // 2])
    blocks = ["".join(c if c in common else "\n" for c in block) for block in sample]
    try:
        return _train(_sentences(blocks), vocab_size, 1.0)
    except RuntimeError:
        raise UserError(
            f"a vocabulary of {vocab_size} is too small for 256 bytes and some "
            "characters; set vocab_size to 512 or more"
        ) from None


def _advice(problem: str) -> str:
    most = re.search(r"value <= (\d+)", problem)
    if most:
        return f"the texts give at most {most[1]}; set vocab_size lower or add text"
    return problem.splitlines()[0]


def _sample(texts: Iterable[str], seed: int, max_bytes: int) -> list[str]:
    """An even sample of blocks in their order: each gets a random rank, the highest are dropped."""
    random = np.random.default_rng(seed)
    heap: list[tuple[float, int, int, str]] = []
    total = number = 0
    for text in texts:
        for start in range(0, len(text), _BLOCK):
            block = text[start : start + _BLOCK]
            size = len(block.encode("utf-8"))
            heapq.heappush(heap, (-random.random(), number, size, block))
            total += size
            number += 1
            while total > max_bytes and len(heap) > 1:
                total -= heapq.heappop(heap)[2]
    return [block for _, _, _, block in sorted(heap, key=lambda entry: entry[1])]


def _sentences(blocks: list[str]) -> Iterator[str]:
    for block in blocks:
        # NUL ends a string inside SentencePiece's trainer; it has its byte piece anyway.
        for line in block.replace("\0", "").split("\n"):
            for start in range(0, len(line), _SENTENCE):
                yield line[start : start + _SENTENCE]
