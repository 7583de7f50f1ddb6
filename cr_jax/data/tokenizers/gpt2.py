"""GPT-2's tokenizer from its two published files, without a download."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt32

from cr_jax.data.tokenizers.token_table import TokenTable
from cr_jax.errors import UserError
from cr_jax.host.files import expanded

_NAMES = {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"}  # OpenAI's, Hugging Face's


class Gpt2Tokenizer(TokenTable):
    """GPT-2's byte-level BPE through tiktoken (extra `gpt2`): the tokenizer of the paper.

    Args:
        folder: holds `encoder.json` and `vocab.bpe`, or the same files under Hugging Face's names,
            `vocab.json` and `merges.txt`; None: the environment variable CR_JAX_GPT2.
        read: gives the bytes of a file of that name; None: reads it in the folder.
    UserError when tiktoken or the files are missing or do not fit together.
    """

    kind = "gpt2"
    _PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

    def __init__(
        self, folder: str | Path | None = None, read: Callable[[str], bytes] | None = None
    ):
        try:
            import tiktoken
        except ImportError:
            raise UserError("the GPT-2 tokenizer needs tiktoken; install cr_jax[gpt2]") from None
        folder = folder or os.environ.get("CR_JAX_GPT2")
        if not folder:
            raise UserError(
                "the GPT-2 tokenizer needs a folder with encoder.json and vocab.bpe (or vocab.json "
                "and merges.txt); name it in the config or in CR_JAX_GPT2"
            )
        place = expanded(folder)
        read = read or (lambda name: (place / name).read_bytes())
        try:
            self._data = {name: _either(read, name, other) for name, other in _NAMES.items()}
        except OSError as error:
            raise UserError(f"cannot read {error.filename}: {error.strerror}") from None
        ranks, end = _gpt2_ranks(self._data, place)
        self._encoding = tiktoken.Encoding(
            "gpt2", pat_str=self._PATTERN, mergeable_ranks=ranks, special_tokens={}
        )
        table = [b""] * (end + 1)
        for piece, i in ranks.items():
            table[i] = piece
        digest = hashlib.sha256(self._data["encoder.json"] + b"\0" + self._data["vocab.bpe"])
        super().__init__(table, end, end, digest.hexdigest())

    def encode(self, text: str) -> UInt32[np.ndarray, " N"]:
        return np.array(self._encoding.encode_ordinary(text), np.uint32)

    def _files(self) -> dict[str, bytes]:
        return self._data


def _either(read: Callable[[str], bytes], name: str, other: str) -> bytes:
    """The file of one of two names; OSError for the first where there is neither."""
    try:
        return read(name)
    except FileNotFoundError as error:
        try:
            return read(other)
        except (OSError, UserError):
            raise error from None


def byte_of_character() -> dict[str, int]:
    """GPT-2's files write each byte as one printable character: that character -> the byte."""
    shown = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    hidden = [b for b in range(256) if b not in shown]
    return {chr(b): b for b in shown} | {chr(256 + n): b for n, b in enumerate(hidden)}


def _gpt2_ranks(data: dict[str, bytes], folder: str | Path) -> tuple[dict[bytes, int], int]:
    """Bytes -> id, and the end id."""
    byte_of = byte_of_character()
    try:
        ids = json.loads(data["encoder.json"])
        end = ids.pop("<|endoftext|>")
        ranks = {bytes(byte_of[c] for c in piece): i for piece, i in ids.items()}
        lines = data["vocab.bpe"].decode("utf-8").split("\n")[1:]
        merges = [line.split(" ") for line in lines if line]
        # tiktoken merges in the order of the ids, so vocab.bpe must list that same order.
        fits = all(ids[a + b] == 256 + n for n, (a, b) in enumerate(merges))
        fits &= all(0 <= ranks[bytes([b])] < 256 for b in range(256))
        fits &= all(type(i) is int for i in (*ranks.values(), end))
        fits &= len(set(ranks.values())) == len(ranks) == len(ids)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        fits = False
    if not fits or len(ranks) != 256 + len(merges) or end != len(ranks):
        raise UserError(f"encoder.json and vocab.bpe in {folder} are not a GPT-2 vocabulary")
    return ranks, end
