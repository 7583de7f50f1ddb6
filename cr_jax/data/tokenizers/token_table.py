"""What every tokenizer offers, and decoding by a table of the bytes of each id."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, Integer, UInt32

from cr_jax.errors import UserError
from cr_jax.host.files import write_whole

NOTE = "tokenizer.json"


@runtime_checkable
class Tokenizer(Protocol):
    """What the rest of the project asks of a tokenizer.

    `decode(encode(text)) == text` for every str that UTF-8 can write (no half surrogate pairs).
    """

    kind: str
    vocab_size: int
    end_id: int  # put after every document of a corpus
    pad_id: int
    fingerprint: str  # SHA-256 (hex) of what defines the tokenizer
    token_bytes: Int32[np.ndarray, " V"]  # UTF-8 bytes that each id stands for; 0 for special ids

    def encode(self, text: str) -> UInt32[np.ndarray, " N"]:
        """Token ids of `text`, without special ids."""

    def decode(self, ids: Integer[np.ndarray, " N"]) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD, special ids nothing."""

    def to_bytes(self, ids: Integer[np.ndarray, " N"]) -> bytes:
        """The UTF-8 of `ids`, which may begin or end inside a character."""

    def pieces(self, ids: Integer[np.ndarray, " N"]) -> list[str]:
        """The text of each id alone, to show: `<0xE2>` (part of a character), `<end>`, `<pad>`."""

    def save(self, folder: Path) -> None:
        """Writes the tokenizer to `folder`, for `load_tokenizer`."""


def encode_many(tokenizer: Tokenizer, texts: Sequence[str]) -> list[UInt32[np.ndarray, " _"]]:
    """`encode` of each text, at once where the tokenizer can."""
    if isinstance(tokenizer, TokenTable):
        return tokenizer.encode_many(texts)
    return [tokenizer.encode(text) for text in texts]


class TokenTable:
    """Decoding by a table of the bytes of each id, the same for all kinds."""

    kind = ""

    def __init__(self, table: list[bytes], end_id: int, pad_id: int, fingerprint: str):
        self._table = table
        self.vocab_size = len(table)
        self.end_id = end_id
        self.pad_id = pad_id
        self.fingerprint = fingerprint
        self.token_bytes = np.array([len(piece) for piece in table], np.int32)

    def encode(self, text: str) -> UInt32[np.ndarray, " N"]:
        raise NotImplementedError

    def encode_many(self, texts: Sequence[str]) -> list[UInt32[np.ndarray, " _"]]:
        """`encode` of each text."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Integer[np.ndarray, " N"]) -> str:
        return self.to_bytes(ids).decode("utf-8", "replace")

    def to_bytes(self, ids: Integer[np.ndarray, " N"]) -> bytes:
        table = self._table
        return b"".join([table[i] for i in np.asarray(ids).tolist()])

    def pieces(self, ids: Integer[np.ndarray, " N"]) -> list[str]:
        return [self._piece(i) for i in np.asarray(ids).tolist()]

    def _piece(self, i: int) -> str:
        data = self._table[i]
        if not data:
            return "<end>" if i == self.end_id else "<pad>" if i == self.pad_id else "<unk>"
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return "".join(f"<0x{byte:02X}>" for byte in data)

    def _files(self) -> dict[str, bytes]:
        return {}

    def _note(self) -> dict[str, bytes]:
        """The file by which `load_tokenizer` tells the kind; it is written last."""
        note = {"kind": self.kind, "fingerprint": self.fingerprint, "vocab_size": self.vocab_size}
        return {NOTE: (json.dumps(note, indent=2) + "\n").encode()}

    def save(self, folder: Path) -> None:
        folder = Path(folder)
        files = self._files() | self._note()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, data in files.items():
                write_whole(folder / name, data)
        except OSError as error:
            raise UserError(f"cannot write the tokenizer to {folder}: {error.strerror}") from None
