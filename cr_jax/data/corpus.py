"""Tokenised corpora, cached on disk by what they were made of. Not in the paper."""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt16, UInt32

from cr_jax.data import sources
from cr_jax.data.finding import LeftOut
from cr_jax.data.text_form import text_form
from cr_jax.data.tokenizers import Tokenizer
from cr_jax.errors import UserError
from cr_jax.paths import expanded

FORMAT = 2  # raise it when the tokenised form changes, so that old entries are not read
_TOKENS, _STARTS, _NOTE = "tokens.npy", "starts.npy", "corpus.json"
_PART = 1 << 20  # tokens per write


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Documents as one row of T token ids, each document followed by the tokenizer's `end_id`.

    `tokens` is a read-only memory map, uint16 when V <= 65,536. Document i is
    `tokens[starts[i]:starts[i + 1]]`, its last id is `end_id`. `bytes` counts the UTF-8 bytes that
    the tokens stand for. `fingerprint` is the SHA-256 of sources, tokenizer and limits.
    """

    tokens: UInt16[np.ndarray, " T"] | UInt32[np.ndarray, " T"]
    starts: Int64[np.ndarray, " documents_plus_1"]
    bytes: int
    fingerprint: str
    names: list[str]
    left_out: str = ""  # in words, what of the sources is no text and was not read


def load_corpus(
    specs: Sequence[str],
    tokenizer: Tokenizer,
    cache_dir: str | Path,
    max_tokens: int | None = None,
    reading: sources.Reading = sources.READING,
) -> Corpus:
    """The corpus of all documents of `specs`, in order; tokenised once, then read from the cache.

    The key covers the content of the source files, the specs, the tokenizer and `max_tokens` (the
    corpus is cut there, within a document if need be). An entry is written beside its place and
    then renamed; one that is truncated or damaged (SHA-256) is made anew.
    reading: as for `sources.documents`.
    UserError when there is no document, when a source is bad, or when the cache cannot be written.
    """
    if isinstance(specs, str):
        specs = [specs]
    if max_tokens is not None and max_tokens < 1:
        raise UserError(f"max_tokens is {max_tokens}; make it 1 or more, or leave it out")
    parts = [sources.fingerprint(spec) for spec in specs]
    key_of = [FORMAT, tokenizer.fingerprint, max_tokens, reading.group_key, reading.text_form,
              parts]
    key = hashlib.sha256(json.dumps(key_of).encode()).hexdigest()
    cache_dir = expanded(cache_dir)
    entry = Path(cache_dir) / key[:32]
    found = _read(entry, key)
    if found is not None:
        return found
    try:
        Path(cache_dir).mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".making-", dir=cache_dir))
        try:
            _write(folder, key, specs, tokenizer, max_tokens, reading)
            _put(folder, entry, key)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot write the token cache {cache_dir}: {error.strerror}") from None
    found = _read(entry, key)
    if found is None:
        raise UserError(f"the token cache entry {entry} cannot be read back; check the disk")
    return found


def _write(folder: Path, key: str, specs: Sequence[str], tokenizer: Tokenizer, most: int | None,
           reading: sources.Reading):
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    starts, names, total, size = [0], [], 0, 0
    left_out = LeftOut()
    with open(folder / _TOKENS, "wb") as file:
        # The header is padded for any length, so the right one fits over this one at the end.
        np.lib.format.write_array_header_1_0(file, _header(dtype, 0))
        begin = file.tell()
        waiting: list[np.ndarray] = []
        held = 0
        for spec in specs:
            for document in sources.documents(spec, reading, left_out):
                text = text_form(document.text, reading.text_form)
                if not text:
                    continue  # there was nothing but a byte order mark
                ids = np.append(tokenizer.encode(text), tokenizer.end_id)
                if most is not None and total + len(ids) > most:
                    ids = ids[: most - total]
                    ids[-1] = tokenizer.end_id
                total += len(ids)
                size += int(tokenizer.token_bytes[ids].sum())
                starts.append(total)
                names.append(document.name)
                waiting.append(ids.astype(dtype))
                held += len(ids)
                if held >= _PART:
                    file.write(np.concatenate(waiting).tobytes())
                    waiting, held = [], 0
                if total == most:
                    break
            if total == most:
                break
        if not size:
            raise UserError(f"no text in {', '.join(specs)}; check the sources and their split")
        file.write(np.concatenate([*waiting, np.zeros(0, dtype)]).tobytes())
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, _header(dtype, total))
        assert file.tell() == begin
    np.save(folder / _STARTS, np.array(starts, np.int64))
    sums = {name: _sha256(folder / name) for name in (_TOKENS, _STARTS)}
    note = {"key": key, "bytes": size, "specs": list(specs), "sha256": sums, "names": names,
            "left_out": left_out.line}
    (folder / _NOTE).write_text(json.dumps(note, ensure_ascii=False), "utf-8", "surrogatepass")


def _header(dtype: np.dtype, length: int) -> dict:
    descr = np.lib.format.dtype_to_descr(dtype)
    return {"descr": descr, "fortran_order": False, "shape": (length,)}


def _put(folder: Path, entry: Path, key: str) -> None:
    """Renames the finished folder into place; another process may have been quicker."""
    for _ in range(3):
        try:
            os.replace(folder, entry)
            return
        except OSError:
            if not entry.is_dir():
                raise
            if _read(entry, key) is not None:
                return
            shutil.rmtree(entry, ignore_errors=True)  # damaged


def _read(entry: Path, key: str) -> Corpus | None:
    """The cached corpus; None when it is not there or any of its bytes is not what was written."""
    try:
        note = json.loads((entry / _NOTE).read_text("utf-8", "surrogatepass"))
        sums = {name: _sha256(entry / name) for name in (_TOKENS, _STARTS)}
        if note["key"] != key or note["sha256"] != sums:
            return None
        tokens = np.load(entry / _TOKENS, mmap_mode="r", allow_pickle=False)
        starts = np.load(entry / _STARTS, allow_pickle=False)
        return Corpus(tokens, starts, int(note["bytes"]), key, list(note["names"]),
                      str(note.get("left_out", "")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
