"""Text in parts on disk: one file of JSON lines per part and `parts.json`, all of it or nothing.

    OUT/part-00.jsonl ...   {"text", "origin", "group"} of each document
    OUT/parts.json          sealed: sources, options, rounds; size and SHA-256 of each file

Not in the paper.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cr_jax.data import Corpus, Document, Tokenizer, documents, load_corpus
from cr_jax.data.corpus import in_form
from cr_jax.data.sources import READING, check
from cr_jax.data.token_folder import TokenFolder
from cr_jax.errors import UserError
from cr_jax.host.files import FORMAT, expanded, fresh_folder, sha256, write_sealed
from cr_jax.modular.partition import Partition, PartitionOptions, need_documents, split_corpora

NOTE = "parts.json"


@dataclasses.dataclass(frozen=True)
class Text:
    """Tokenised text and its documents, read again in the same order."""

    sources: Sequence[str]
    tokenizer: Tokenizer
    corpora: Sequence[Corpus]
    documents: Callable[[], Iterable[Document]]


@contextlib.contextmanager
def text_of_sources(specs: Sequence[str], tokenizer: Tokenizer) -> Iterator[Text]:
    """Documents of source specs, tokenised into a folder that is gone after the `with`.

    `UserError` for a source that is bad or has no text.
    """
    for spec in specs:
        check(spec)
    with _temporary() as cache:
        corpus = load_corpus(specs, tokenizer, cache)

        def again():
            every = itertools.chain.from_iterable(documents(spec) for spec in specs)
            return in_form(every, READING.text_form)

        yield Text(specs, tokenizer, [corpus], again)


@contextlib.contextmanager
def text_of_tokens(folder: str | os.PathLike) -> Iterator[Text]:
    """Training text of a token folder; documents are decoded from their tokens.

    `UserError` as `TokenFolder` raises it.
    """
    source = TokenFolder(folder)
    specs, tokenizer = source.specs("train"), source.own_tokenizer()
    with _temporary() as cache:
        corpora = [source.corpus(spec, cache) for spec in specs]

        def again():
            for spec, corpus in zip(specs, corpora):
                for i, name in enumerate(corpus.names):
                    ids = corpus.tokens[corpus.starts[i] : corpus.starts[i + 1] - 1]
                    origin = f"{spec.domain}: {name}"
                    yield Document(tokenizer.decode(ids), origin, origin)

        yield Text([str(folder)], tokenizer, corpora, again)


def write_parts(
    text: Text, out: str | os.PathLike, options: PartitionOptions, say: Callable[[str], None]
) -> dict[str, Any]:
    """Splits the text and writes the folder `out`; -> what `parts.json` says.

    `UserError` when `out` is there and not empty, when there are fewer documents than parts, and
    when nothing can be written; nothing is then at `out`.
    """
    place = free_place(out)
    need_documents(sum(len(corpus.names) for corpus in text.corpora), options.parts)
    parts = split_corpora(text.corpora, options, say)
    with _new_folder(place) as folder:
        names = [f"part-{k:02d}.jsonl" for k in range(options.parts)]
        _write_lines(text, parts.partition, [folder / name for name in names])
        record = {
            "format": FORMAT,
            "sources": list(text.sources),
            "tokenizer": text.tokenizer.fingerprint,
            "options": dataclasses.asdict(options),
            "rounds": [dataclasses.asdict(each) for each in parts.partition.rounds],
            "kept_round": parts.partition.kept,
            "parts": [
                {
                    "file": name,
                    "documents": len(corpus.names),
                    "tokens": len(corpus.tokens),
                    "bytes": int(text.tokenizer.token_bytes[corpus.tokens].sum()),
                    "sha256": sha256(folder / name),
                }
                for name, corpus in zip(names, parts.corpora.values(), strict=True)
            ],
        }
        write_sealed(folder / NOTE, record)
    return record


def free_place(out: str | os.PathLike) -> Path:
    """The folder that may be written.  `UserError` when something is there already."""
    place = expanded(out)
    if not place.name:
        raise UserError(f"--out={out} has no name: give a new folder")
    try:
        empty = not os.listdir(place)
    except FileNotFoundError:
        return place
    except OSError as error:
        raise UserError(f"--out={out} cannot be used: {error.strerror}") from None
    if not empty:
        raise UserError(f"--out={out} is not empty: name a folder that is not there")
    return place


def _write_lines(text: Text, answer: Partition, paths: Sequence[Path]) -> None:
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(path, "xb")) for path in paths]
        count = -1
        for count, document in enumerate(text.documents()):
            if count == len(answer.part):
                break
            files[answer.part[count]].write(_line(document))
    if count + 1 != len(answer.part):
        raise UserError(
            f"{', '.join(text.sources)}: the text changed while it was read; run it again"
        )


def _line(document: Document) -> bytes:
    record = {"text": document.text, "origin": document.name, "group": document.group}
    try:
        return json.dumps(record, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(record).encode() + b"\n"


@contextlib.contextmanager
def _new_folder(place: Path) -> Iterator[Path]:
    """`with _new_folder(place) as folder:` what is written into `folder` is then at `place`."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = fresh_folder(place.parent, f".{place.name[:100]}.")
        try:
            yield folder
            os.replace(folder, place)  # an empty folder gives way
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise UserError(
            f"cannot write {place}: {error.strerror}; make room there or allow writing"
        ) from None


@contextlib.contextmanager
def _temporary() -> Iterator[Path]:
    try:
        made = tempfile.TemporaryDirectory(prefix="cr-jax-")
    except OSError as error:
        raise UserError(f"cannot write temporary files: {error.strerror}; set TMPDIR") from None
    with made as folder:
        yield Path(folder)
