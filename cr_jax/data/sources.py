"""Documents from short specs: the standard library, samples, random text, files, tables and data
sets.

Not in the paper, which trains on one corpus (codeparrot-clean). Everything here streams: at most
one document (or one piece of about 1 MB) is held at a time.
"""

import dataclasses
import hashlib
import os
import random
from collections.abc import Callable, Iterable, Iterator

from cr_jax.data import hub, records, tables
from cr_jax.data.encodings import NotText
from cr_jax.data.finding import LeftOut
from cr_jax.data.groups import group_of
from cr_jax.data.source_files import source_files
from cr_jax.data.specs import REGISTERED, SPLITS, Source, located, parse, split_of
from cr_jax.data.text_files import opened, read_text, readable, whole_file
from cr_jax.data.text_form import LF_NFC, Form
from cr_jax.errors import UserError

__all__ = [
    "SPLITS",
    "Document",
    "Reading",
    "check",
    "documents",
    "fingerprint",
    "parse",
    "read_text",
    "register_source",
    "size",
    "split_of",
]

RANDOM_DOCUMENTS, RANDOM_CHARACTERS = 512, 4096  # of each


@dataclasses.dataclass(frozen=True)
class Document:
    """One text. `name` is for people; `group` (file, author, project) is what a split holds out."""

    text: str
    name: str
    group: str


@dataclasses.dataclass(frozen=True)
class Reading:
    """How sources are read.

    max_document_bytes: of a line of JSON or of a text file, at most.  group_key: under which a
    record has its group, which a split keeps whole (`groups.group_of`); empty: the usual ones.
    text_form: that tokens are made of; documents themselves are always as they were written.
    """

    max_document_bytes: int = 1 << 27
    group_key: str = ""
    text_form: Form = LF_NFC


READING = Reading()


def documents(
    spec: str, reading: Reading = READING, left_out: LeftOut | None = None
) -> Iterator[Document]:
    """Yields the documents of `spec` in a fixed order, one at a time; empty ones are left out.

    Specs: `stdlib`, `samples/NAME`, `random:SYMBOLS` (2 MB of characters drawn uniformly from so
    many, log2(SYMBOLS) bits each), `files:GLOB` (a folder: all its files but hidden ones),
    `text:PATH[#line]` (or `#paragraph`, `#document`), and those with fields: `jsonl:PATH[#field]`,
    `csv:PATH[#field]` (these three also .zst, .xz, .gz, .bz2), `parquet:PATH[#field]`,
    `hf:FOLDER[#field]` (saved with `datasets`), `hf:NAME/SPLIT[#field]` (streamed from the Hub),
    `tfds:NAME/SPLIT[#field]`.  PATH may be a glob.  A field may have `&group=KEY` behind it where
    records have their group under an unusual key.  A suffix `@train`, `@valid` or `@test` keeps one
    part of an 80/10/10 split by a hash of the group (samples: by their `split` key).  `~` is the
    home folder, and an existing path wins over `*`, `?`, `[...]`, `#field` and `@split`
    (`specs.located`).  Text is UTF-8, or UTF-16 or UTF-32 with a byte order mark.
    left_out: counts what is no file or, in a `files:` source, not text (images, archives); that is
    passed over as long as there is something else.
    UserError when the spec is not understood, nothing matches, or a file is damaged, ends early, is
    too large for `reading` or is text in another encoding.
    """
    source = located(parse(spec))
    if source.kind in REGISTERED:
        return _keep(source, ((found, None) for found in REGISTERED[source.kind](source.target)))
    return _keep(
        source, _READERS[source.kind](source, reading, LeftOut() if left_out is None else left_out)
    )


def register_source(kind: str, read: Callable[[str], Iterable[Document]]) -> None:
    """Makes the spec "KIND:TARGET" a source: the documents of `read(TARGET)`, each time the same.

    Raises `UserError` when the kind is taken or no word.  `fingerprint` reads all documents, so
    that tokens are cached for these texts and no others.
    """
    if not kind.isidentifier() or kind in {*_READERS, *REGISTERED}:
        raise UserError(
            f"a data source cannot be named {kind!r}: a name is one word, and taken "
            f"are {', '.join([*_READERS, *REGISTERED])}"
        )
    REGISTERED[kind] = read


def check(spec: str) -> None:
    """`UserError` unless the spec is understood and what it names is there; reads no text.

    A registered source is not called: what it has is known once it is read.
    """
    source = located(parse(spec))
    if not _has_files(source):
        _identity(source)
    else:
        for path, _ in source_files(source, LeftOut()):
            if not os.access(path, os.R_OK):
                raise UserError(f"{path} cannot be read: check its permissions")
            tables.check(source.kind, path, source.field)


def fingerprint(spec: str) -> str:
    """SHA-256 (hex) of the spec and of the bytes of the files behind it.

    Of a data set of TFDS their sizes and times count, of one of the Hub its files' versions.
    """
    source = located(parse(spec))
    digest = hashlib.sha256(spec.encode("utf-8", "surrogatepass"))
    if source.kind in REGISTERED:
        for document in documents(spec):
            for part in (document.name, document.text):
                digest.update(hashlib.sha256(part.encode("utf-8", "surrogatepass")).digest())
    if not _has_files(source):
        digest.update(_identity(source).encode())
        return digest.hexdigest()
    for path, name in source_files(source, LeftOut()):
        digest.update(b"\0" + name.encode("utf-8", "surrogatepass") + b"\0")
        with opened(path) as stream, readable(str(path)):
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def size(spec: str) -> int:
    """Bytes on the disk of the files behind `spec`; 0 where it has none of its own."""
    source = located(parse(spec))
    if not _has_files(source):
        return 0
    total = 0
    for path, _ in source_files(source, LeftOut()):
        with readable(str(path)):
            total += path.stat().st_size
    return total


def _keep(source: Source, found: Iterator[tuple[Document, str | None]]) -> Iterator[Document]:
    for document, given_split in found:
        if not document.text:
            continue
        if source.split is None or source.split == (given_split or split_of(document.group)):
            yield document


def _stdlib(
    source: Source, reading: Reading, left_out: LeftOut
) -> Iterator[tuple[Document, str | None]]:
    for path, name in source_files(source, left_out):
        with opened(path) as stream, readable(str(path)):
            data = stream.read()
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            continue  # the interpreter's own file in another encoding: not the user's mistake
        yield Document(text, name, name.split("/")[0].removesuffix(".py")), None


def _text_files(
    source: Source, reading: Reading, left_out: LeftOut
) -> Iterator[tuple[Document, str | None]]:
    files, texts = source_files(source, left_out), 0
    first: NotText | None = None
    for path, name in files:
        try:
            text = whole_file(path, reading.max_document_bytes)
        except NotText as error:  # an image beside the texts is no mistake, an image alone is one
            first = first or error
            left_out.add(name, "file that is not text")
            continue
        texts += 1
        yield Document(text, name, name), None
    if not texts:
        if first is not None and len(files) == 1:
            raise first
        raise UserError(
            f"data source {source.spec!r}: none of its {len(files):,} files is text; {first}"
        )


def _stored_records(
    source: Source, reading: Reading, left_out: LeftOut
) -> Iterator[tuple[Document, str | None]]:
    if not _has_files(source):
        yield from _online_records(source, reading, left_out)
        return
    key = _group_key(source, reading)
    unit = "row" if source.kind in ("parquet", "hf") else "line"
    for path, name in source_files(source, left_out):
        if source.kind in tables.READERS:
            wanted = tables.Wanted(source.field, key, reading.max_document_bytes)
            rows = tables.READERS[source.kind](path, wanted)
        else:
            rows = records.json_lines(path, source.field, reading.max_document_bytes)
        for number, record in rows:
            where = f"{path} {unit} {number}"
            text = records.text_of(record, source.field, where)
            split = record.get("split") if source.kind == "samples" else None
            group = group_of(record, "" if split else key, where) or f"{name}:{number}"
            yield Document(text, f"{name}:{number}", group), split


def _group_key(source: Source, reading: Reading) -> str:
    """The key that every record must have; without a split no group is needed."""
    return (source.group_key or reading.group_key) if source.split else ""


def _random(
    source: Source, reading: Reading, left_out: LeftOut
) -> Iterator[tuple[Document, str | None]]:
    symbols = [chr(33 + n) for n in range(int(source.target))]
    for number in range(RANDOM_DOCUMENTS):
        name = f"random:{number}"
        text = "".join(random.Random(name).choices(symbols, k=RANDOM_CHARACTERS))
        yield Document(text, name, name), None


def _online_records(
    source: Source, reading: Reading, left_out: LeftOut
) -> Iterator[tuple[Document, str | None]]:
    key = _group_key(source, reading)
    read = records.tfds_records if source.kind == "tfds" else hub.streamed
    for number, record in enumerate(read(source.target)):
        where, name = f"{source.spec} record {number}", f"{source.target}:{number}"
        text = records.text_of(record, source.field, where)
        yield Document(text, name, group_of(record, key, where) or name), None


def _has_files(source: Source) -> bool:
    if source.kind == "hf":
        return hub.saved_files(source.target) is not None
    return source.kind not in ("tfds", "random")


def _identity(source: Source) -> str:
    """What names the bytes of a source without files of its own."""
    identities = {"tfds": records.tfds_identity, "hf": hub.identity, "random": lambda target: ""}
    return identities[source.kind](source.target)


_Read = Callable[[Source, Reading, LeftOut], Iterator[tuple[Document, str | None]]]
_READERS: dict[str, _Read] = {
    "stdlib": _stdlib,
    "samples": _stored_records,
    "random": _random,
    "files": _text_files,
    "text": _stored_records,
    "jsonl": _stored_records,
    "csv": _stored_records,
    "parquet": _stored_records,
    "hf": _stored_records,
    "tfds": _online_records,
}
