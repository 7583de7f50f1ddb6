"""Tokenised corpora, cached on disk by what they were made of. Not in the paper."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt16, UInt32

from cr_jax.data import file_position, sources
from cr_jax.data.corpus_draft import NOTE, STARTS, TOKENS, Draft, file_sum, locked_folder
from cr_jax.data.encode_worker import Stopped, id_type
from cr_jax.data.encoding import Encoder
from cr_jax.data.finding import LeftOut
from cr_jax.data.text_form import Form, text_form
from cr_jax.data.tokenizers import Tokenizer
from cr_jax.errors import UserError
from cr_jax.host.files import expanded

FORMAT = 2  # raise it when the tokenised form changes, so that old entries are not read


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
    tokenizer: Tokenizer | Encoder,
    cache_dir: str | Path,
    max_tokens: int | None = None,
    reading: sources.Reading = sources.READING,
    on_tokens: Callable[[int, int], None] = lambda new, total: None,
) -> Corpus:
    """The corpus of all documents of `specs`, in order; tokenised once, then read from the cache.

    The key covers the content of the source files, the specs, the tokenizer, the key of groups and
    `max_tokens` (the corpus is cut there, within a document if need be). An entry is written beside
    its place and then renamed; one that is truncated or damaged (SHA-256) is made anew.  What a
    kill leaves beside its place is gone on with.
    tokenizer: or an `Encoder` of one, whose processes then encode; else all cores do.
    reading: as for `sources.documents`.
    on_tokens: called with the tokens of each finished chunk and of the corpus so far.
    UserError when there is no document, when a source is bad, or when the cache cannot be written.
    """
    if isinstance(specs, str):
        specs = [specs]
    if max_tokens is not None and max_tokens < 1:
        raise UserError(f"max_tokens is {max_tokens}; make it 1 or more, or leave it out")
    with file_position.told(None):  # a bar shows what is tokenised
        parts = [sources.fingerprint(spec) for spec in specs]
    encoder = tokenizer if isinstance(tokenizer, Encoder) else None
    key_of = [
        FORMAT,
        (encoder.tokenizer if encoder else tokenizer).fingerprint,
        max_tokens,
        reading.group_key,
        reading.text_form,
        parts,
    ]
    key = hashlib.sha256(json.dumps(key_of).encode()).hexdigest()
    entry = entry_of(expanded(cache_dir), key)
    corpus = _read(entry, key)
    if corpus is not None:
        return corpus
    with contextlib.ExitStack() as stack:
        if encoder is None:
            encoder = stack.enter_context(Encoder(tokenizer))
        with making(entry, key) as folder:
            if _read(entry, key) is None:  # or another process has made it meanwhile
                _write(folder, key, specs, encoder, max_tokens, reading, on_tokens)
    corpus = _read(entry, key)
    if corpus is None:
        raise UserError(f"the token cache entry {entry} cannot be read back; check the disk")
    return corpus


def entry_of(cache_dir: str | Path, key: str) -> Path:
    """Where the cache has a corpus."""
    return Path(cache_dir) / key[:32]


@contextlib.contextmanager
def making(entry: Path, key: str) -> Iterator[Path]:
    """`with making(entry, key) as folder:` write the corpus into `folder`; it is then renamed.

    The folder keeps what was written before a kill, Ctrl-C, a full disk or `Stopped`.  When another
    process was quicker, its entry stands.  `UserError` when nothing can be written there.
    """
    try:
        with locked_folder(entry.with_name(f".making-{entry.name}")) as folder:
            try:
                yield folder
            except Stopped:
                raise
            except UserError:  # the text is bad: what was made of it is of no use
                shutil.rmtree(folder, ignore_errors=True)
                raise
            _put(folder, entry, key)
    except OSError as error:
        raise UserError(f"cannot write the token cache {entry.parent}: {error.strerror}") from None


def _write(
    folder: Path,
    key: str,
    specs: Sequence[str],
    encoder: Encoder,
    most: int | None,
    reading: sources.Reading,
    on_tokens: Callable[[int, int], None],
) -> None:
    left_out = LeftOut()
    documents = in_form(
        itertools.chain.from_iterable(sources.documents(spec, reading, left_out) for spec in specs),
        reading.text_form,
    )
    with Draft(folder, id_type(encoder.tokenizer)) as draft:
        if draft.total != most:
            left = itertools.islice(documents, len(draft.names), None)
            with contextlib.closing(encoder(left, left_out)) as parts:
                for part in parts:
                    if most is not None:
                        part = part.cut(most - draft.total, encoder.tokenizer)
                    draft.add(part)
                    on_tokens(len(part.tokens), draft.total)
                    if draft.total == most:
                        break
                else:
                    draft.left_out = left_out.line  # also what comes after the last document
        if not draft.bytes:
            raise UserError(f"no text in {', '.join(specs)}; check the sources and their split")
        draft.finish(key)


def in_form(documents: Iterable[sources.Document], form: Form) -> Iterator[sources.Document]:
    """Documents with their text in a form; those that were nothing but a byte order mark go."""
    for document in documents:
        if text := text_form(document.text, form):
            yield dataclasses.replace(document, text=text)


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
                shutil.rmtree(folder, ignore_errors=True)
                return
            shutil.rmtree(entry, ignore_errors=True)  # damaged


def _read(entry: Path, key: str) -> Corpus | None:
    """The cached corpus; None when it is not there or any of its bytes is not what was written."""
    try:
        note = _note(entry)
        sums = {name: file_sum(entry / name) for name in (TOKENS, STARTS)}
        if note["key"] != key or note["sha256"] != sums:
            return None
        return stored(entry)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stored(entry: Path) -> Corpus:
    """The corpus in a folder whose bytes are known to be right."""
    note = _note(entry)
    tokens = np.load(entry / TOKENS, mmap_mode="r", allow_pickle=False)
    starts = np.load(entry / STARTS, allow_pickle=False)
    return Corpus(
        tokens,
        starts,
        int(note["bytes"]),
        note["key"],
        list(note["names"]),
        str(note.get("left_out", "")),
    )


def _note(entry: Path) -> dict:
    return json.loads((entry / NOTE).read_text("utf-8", "surrogatepass"))
