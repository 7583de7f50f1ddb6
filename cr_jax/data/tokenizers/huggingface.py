"""Any lossless `tokenizer.json` of Hugging Face.  Not in the paper."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt32

from cr_jax.data.tokenizers.gpt2 import byte_of_character
from cr_jax.data.tokenizers.sentencepiece import SPACE_MARK
from cr_jax.data.tokenizers.token_table import NOTE, TokenTable
from cr_jax.errors import UserError, turning
from cr_jax.host.files import expanded

# What published tokenizers put behind a document.  The file itself does not say which id that is.
_ENDS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|end▁of▁sentence|>",
    "<|im_end|>",
    "<EOT>",
)
_HOLES = 2  # most ids for each token: files in use leave out few of them
_PROBES = (
    "a",
    " a",
    "  a  b ",
    "\n\n  x\t\r\n \r \0 ",
    " " * 40 + "\n" * 9,
    "A\u00c4\u00e9e\u0301\u1e9b\u0323 \ufb01 \u00bd \u00a0\u2003\u3000.",
    "don't I'LL 3,141.5e-10 __init__(self, *args):\n\treturn {x: [1]}",
    "\u7dda\u5f62\u4ee3\u6570 \u0440\u0443\u0441 \u0645\u0631\u062d\u0628\u0627 \u0e44\u0e17\u0e22 "
    "\uac00\u1112\u1161\u11ab",
    "\U0001f468\u200d\U0001f469\U0010ffff\ufeff\ufffd\u0085\u2028\x01\x7f",
    f"{SPACE_MARK}x {SPACE_MARK}{SPACE_MARK} \u0120 \u010a",
    "<unk> <0x0A> [UNK] ##a",
)


class HuggingFaceTokenizer(TokenTable):
    """A `tokenizer.json` through the package `tokenizers` (extra `hf`): byte-level BPE such as that
    of GPT-2, Llama 3 and Qwen, or pieces with byte fallback such as Gemma's.

    Special tokens are never read out of text, none is added, and what the text form does already
    (NFC) is left to it.  `end_id` is the special token that published tokenizers put behind a
    document, or an id of its own behind the others; `pad_id` is the same.

    Args:
        data: the bytes of the file.
        place: calls it so in messages.
    UserError when `tokenizers` is missing, or the file is no `tokenizer.json` or would lose text.
    """

    kind = "huggingface"

    def __init__(self, data: bytes, place: str | Path = NOTE):
        self._data, self._place = data, place
        with _sound(place):
            settings = _settings(data, place)
            self._tokenizer = _opened(settings, place)
            added = {token["content"]: token for token in settings.get("added_tokens") or ()}
            table = self._table_of(settings, added)
            special = {name: token["id"] for name, token in added.items() if token.get("special")}
            end = next((special[name] for name in _ENDS if name in special), len(table))
            if end == len(table):
                table.append(b"")
            super().__init__(table, end, end, hashlib.sha256(data).hexdigest())
            self._check(settings, list(added))

    @classmethod
    def load(cls, folder: str | Path) -> "HuggingFaceTokenizer":
        """That of FOLDER/tokenizer.json.  `UserError` as above, or when it cannot be read."""
        path = expanded(folder) / NOTE
        try:
            return cls(path.read_bytes(), path)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None

    def encode(self, text: str) -> UInt32[np.ndarray, " N"]:
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[UInt32[np.ndarray, " _"]]:
        """`encode` of each text, by several threads.

        `UserError` for a text that would not come back: what the file does to text is seen in its
        use alone.
        """
        # A space mark of the text itself would come back as a space: it is written in bytes.
        mark = None if self._byte_level else SPACE_MARK
        split = [text.split(mark) if mark else [text] for text in texts]
        every = [part for parts in split for part in parts]
        read = self._tokenizer.encode_batch_fast
        ids = iter(
            read(every, add_special_tokens=False) if len(every) > 1 else map(self._one, every)
        )
        between = [self._ids_of_bytes[bytes([b])] for b in SPACE_MARK.encode()] if mark else []
        found = []
        for text, parts in zip(texts, split, strict=True):
            own: list[int] = []
            for number in range(len(parts)):
                own += (between if number else []) + next(ids).ids
            array = np.array(own, np.uint32)
            if self.to_bytes(array) != text.encode("utf-8"):
                raise self._loss(text, self.decode(array))
            found.append(array)
        return found

    def _one(self, text: str) -> Any:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _table_of(self, settings: dict[str, Any], added: dict[str, Any]) -> list[bytes]:
        """The bytes of each id; none of special tokens, and of ids that the file leaves out."""
        self._byte_level = "ByteLevel" in {
            part.get("type")
            for key in ("pre_tokenizer", "normalizer", "decoder")
            for part in _parts(settings.get(key))
        }
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self._check_ids(vocabulary, added)
        table = [b""] * (max(vocabulary.values(), default=-1) + 1)
        for piece, i in vocabulary.items():
            token = added.get(piece)
            if token is None or not token.get("special"):
                table[i] = self._bytes_of(piece, token is not None)
        self._ids_of_bytes = {piece: i for i, piece in enumerate(table) if len(piece) == 1}
        return table

    def _check_ids(self, vocabulary: dict[str, int], added: dict[str, Any]) -> None:
        """`UserError` for ids of which a table would be too large, or wrong."""
        names: dict[int, str] = {}
        for name, i in vocabulary.items():
            if i >= _HOLES * len(vocabulary):
                raise UserError(
                    f"{self._place} gives {name!a} the id {i:,}, more than {_HOLES} times its "
                    f"{len(vocabulary):,} tokens: number them without holes"
                )
            if i in names:
                raise UserError(f"{self._place} gives {names[i]!a} and {name!a} the same id {i:,}")
            names[i] = name
        for name, token in added.items():
            if token["id"] != vocabulary[name]:
                raise UserError(
                    f"{self._place} gives the added token {name!a} the id {token['id']}, its "
                    f"vocabulary {vocabulary[name]:,}: let them agree"
                )

    def _bytes_of(self, piece: str, added: bool) -> bytes:
        """What an id stands for; of a token that was added to the vocabulary, its text itself."""
        if self._byte_level:
            if not added and all(c in _BYTE_OF for c in piece):
                return bytes(_BYTE_OF[c] for c in piece)
            return piece.encode("utf-8")
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes.fromhex(piece[3:5])
        return piece.replace(SPACE_MARK, " ").encode("utf-8")

    def _check(self, settings: dict[str, Any], added: list[str]) -> None:
        """`UserError` unless text comes back."""
        if (settings["model"].get("dropout") or 0) > 0:
            raise UserError(
                f'{self._place} splits a text at random ("dropout"): set it to null in the file'
            )
        missing = 256 - len(self._ids_of_bytes)
        if missing:
            raise UserError(
                f"{self._place} loses text: it has no token for {missing} of the 256 bytes; {_WAYS}"
            )
        # A text that is the name of a token is text too.
        for probe in [*_PROBES, *(f"x {name}y {name} {name}" for name in added)]:
            back = self.decode(self.encode(probe))
            if back != probe:
                raise self._loss(probe, back)

    def _loss(self, text: str, back: str) -> UserError:
        at = next((i for i, (a, b) in enumerate(zip(text, back)) if a != b), len(back))
        here, there = (ascii(part[max(0, at - 8) : at + 8]) for part in (text, back))
        return UserError(
            f"{self._place} loses text: {here} comes back as {there or 'nothing'}; {_WAYS}"
        )

    def _files(self) -> dict[str, bytes]:
        return {NOTE: self._data}

    def _note(self) -> dict[str, bytes]:
        return {}  # the file says itself what it is


_BYTE_OF = byte_of_character()
_WAYS = "give a byte-level tokenizer, or one with byte fallback that puts no space before a text"


def is_huggingface(note: Any) -> bool:
    """Whether a `tokenizer.json` is Hugging Face's and no note of this package."""
    return isinstance(note, dict) and isinstance(note.get("model"), dict) and "kind" not in note


def _sound(place: str | Path) -> turning:
    """Turns what a damaged file makes of our code, or of the package's, into a `UserError`."""

    def told(error: BaseException) -> UserError | None:
        panic = type(error).__name__ == "PanicException"  # of Rust; no other name is public
        bare = type(error) is Exception  # the package raises nothing narrower
        known = isinstance(error, LookupError | TypeError | ValueError | AttributeError)
        if isinstance(error, UserError) or not (panic or bare or known):
            return None
        said = " ".join(str(error).split()) or type(error).__name__
        return UserError(f"{place} is damaged ({said}): download it again")

    return turning(told)


def _settings(data: bytes, place: str | Path) -> dict[str, Any]:
    try:
        settings = json.loads(data)
    except (ValueError, RecursionError):
        settings = None
    if not is_huggingface(settings):
        raise UserError(f"{place} is no tokenizer.json of Hugging Face: it names no model")
    if settings["model"].get("continuing_subword_prefix"):
        # The package cuts it off merges unchecked, which can end the whole process.
        raise UserError(
            f"{place} loses text: it writes a prefix before pieces inside a word; {_WAYS}"
        )
    # The text form does this before; here it would change text that was asked for as it is.
    normalizer = settings.get("normalizer")
    if isinstance(normalizer, dict):
        if normalizer.get("type") == "Sequence":
            rest = [n for n in normalizer["normalizers"] if n["type"] != "NFC"]
            settings["normalizer"] = normalizer | {"normalizers": rest} if rest else None
        elif normalizer.get("type") == "NFC":
            settings["normalizer"] = None
    return settings


def _opened(settings: dict[str, Any], place: str | Path) -> Any:
    try:
        import tokenizers
    except ImportError:
        raise UserError(f"{place} needs the package tokenizers; install cr_jax[hf]") from None
    try:
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(settings))
    except Exception as error:  # the package raises nothing narrower
        said = " ".join(str(error).split())
        raise UserError(f"{place} is no tokenizer.json that `tokenizers` reads: {said}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # as plain text
    return tokenizer


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    """A step of the pipeline, or the steps of a sequence."""
    if isinstance(node, dict):
        yield node
        for key in ("pretokenizers", "normalizers", "decoders"):
            for inner in node.get(key) or ():
                yield from _parts(inner)
