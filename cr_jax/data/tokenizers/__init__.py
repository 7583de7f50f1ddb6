"""Text <-> token ids without loss: SentencePiece (byte fallback), GPT-2 byte-level BPE, bytes, and
any lossless `tokenizer.json` of Hugging Face.

The paper uses GPT-2's tokenizer (50,257 ids). The others are not in the paper: SentencePiece is
small enough to train in seconds, bytes need no training.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt32

from cr_jax.data.tokenizers.gpt2 import Gpt2Tokenizer
from cr_jax.data.tokenizers.huggingface import HuggingFaceTokenizer, is_huggingface
from cr_jax.data.tokenizers.sentencepiece import SentencePieceTokenizer, train_sentencepiece
from cr_jax.data.tokenizers.token_table import NOTE, Tokenizer, TokenTable
from cr_jax.errors import UserError
from cr_jax.host.files import expanded

__all__ = [
    "SHIPPED",
    "ByteTokenizer",
    "Gpt2Tokenizer",
    "HuggingFaceTokenizer",
    "SentencePieceTokenizer",
    "Tokenizer",
    "load_tokenizer",
    "read_tokenizer",
    "train_sentencepiece",
]


class ByteTokenizer(TokenTable):
    """One id per UTF-8 byte, then `pad` (256) and `end` (257). Not in the paper."""

    kind = "bytes"

    def __init__(self):
        table = [bytes([byte]) for byte in range(256)] + [b"", b""]
        super().__init__(table, 257, 256, hashlib.sha256(b"cr_jax bytes 1").hexdigest())

    def encode(self, text: str) -> UInt32[np.ndarray, " N"]:
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.uint32)


# The kinds that `load_tokenizer` reads, also in another process.
SHIPPED = (ByteTokenizer, Gpt2Tokenizer, HuggingFaceTokenizer, SentencePieceTokenizer)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Reads what `save` wrote, or a folder with a `tokenizer.json` of Hugging Face.

    UserError when it is missing, damaged, or its bytes were changed.
    """
    place = expanded(folder)
    return read_tokenizer(lambda name: (place / name).read_bytes(), place)


def read_tokenizer(read: Callable[[str], bytes], folder: Path) -> Tokenizer:
    """The same by a function that reads a file by its name; folder: for messages."""
    try:
        data = read(NOTE)
        note = json.loads(data)
        if is_huggingface(note):
            return HuggingFaceTokenizer(data, folder / NOTE)
        kind, wanted = note["kind"], note["fingerprint"]
        if kind == "bytes":
            made: Tokenizer = ByteTokenizer()
        elif kind == "sentencepiece":
            model = read("sentencepiece.model")
            if hashlib.sha256(model).hexdigest() != wanted:
                raise UserError(f"the tokenizer in {folder} was changed; restore or retrain it")
            made = SentencePieceTokenizer(model)
        elif kind == "gpt2":
            made = Gpt2Tokenizer(folder, read)
        else:
            raise UserError(f"{folder / NOTE} names an unknown kind of tokenizer, {kind!r}")
    except OSError as error:
        raise UserError(f"no tokenizer in {folder}: {error.filename} cannot be read") from None
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{folder / NOTE} is damaged; restore or retrain the tokenizer") from None
    if made.fingerprint != wanted:
        raise UserError(f"the tokenizer in {folder} was changed; restore or retrain it")
    return made
