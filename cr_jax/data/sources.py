"""Documents from short specs: the standard library, samples, random text, files, JSONL and TFDS.

Not in the paper, which trains on one corpus (codeparrot-clean). Everything here streams: at most
one document (or one piece of about 1 MB) is held at a time.
"""

import dataclasses
import glob
import hashlib
import os
import random
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from cr_jax.data import file_position, records
from cr_jax.errors import UserError

SPLITS = ("train", "valid", "test")
SAMPLES = Path(__file__).parent / "samples"
PIECE_BYTES = 1 << 20

# Not program text: test data, character tables, and the help texts of `help()`.
_STDLIB_SKIP = {
    "site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "encodings",
    "pydoc_data", "ensurepip", "turtledemo", "__pycache__", "__phello__",
}
RANDOM_DOCUMENTS, RANDOM_CHARACTERS = 512, 4096  # of each
_KINDS = ("stdlib, samples/NAME, random:SYMBOLS, files:GLOB, jsonl:PATH[#field], "
          "tfds:NAME/SPLIT[#field]")


@dataclasses.dataclass(frozen=True)
class Document:
    """One text. `name` is for people; `group` (file, author, project) is what a split holds out."""

    text: str
    name: str
    group: str


@dataclasses.dataclass(frozen=True)
class Source:
    """A parsed spec: `kind` and `target` say where, `field` is the text's key, `split` a part."""

    spec: str
    kind: str
    target: str
    field: str = "text"
    split: str | None = None


def parse(spec: str) -> Source:
    """Reads a spec without touching the disk. UserError when its form is unknown."""
    body, split = spec.strip(), None
    head, at, tail = body.rpartition("@")
    if at and tail in SPLITS:
        body, split = head, tail
    elif at and (head == "stdlib" or head.startswith("samples/")):
        raise UserError(f"data source {spec!r}: unknown split {tail!r}; use {', '.join(SPLITS)}")
    if body == "stdlib":
        return Source(spec, "stdlib", "", split=split)
    if body.startswith("samples/"):
        return Source(spec, "samples", body.removeprefix("samples/"), split=split)
    kind, colon, target = body.partition(":")
    if colon and kind == "random":
        if not target.isdecimal() or not 2 <= int(target) <= 94:
            raise UserError(f"data source {spec!r}: random:SYMBOLS takes 2 to 94 printable symbols")
        return Source(spec, kind, target, split=split)
    if colon and target and kind == "files":
        return Source(spec, kind, target, split=split)
    if colon and target and kind in ("jsonl", "tfds"):
        target, _, field = target.partition("#")
        return Source(spec, kind, target, field or "text", split)
    raise UserError(f"data source {spec!r} is not understood; write one of: {_KINDS}")


def split_of(group: str) -> str:
    """The part ("train" 80 %, "valid" 10 %, "test" 10 %) of a group, by a hash of its name."""
    digest = hashlib.sha256(group.encode("utf-8", "surrogatepass")).digest()
    digit = int.from_bytes(digest[:8], "big") % 10
    return "train" if digit < 8 else SPLITS[digit - 7]


def documents(spec: str) -> Iterator[Document]:
    """Yields the documents of `spec` in a fixed order, one at a time; empty ones are left out.

    Specs: `stdlib`, `samples/NAME`, `random:SYMBOLS` (2 MB of characters drawn uniformly from so
    many, log2(SYMBOLS) bits each), `files:GLOB` (a folder: all its files but hidden ones),
    `jsonl:PATH[#field]` (.jsonl, .zst, .xz, .gz, or a glob), `tfds:NAME/SPLIT[#field]`; a suffix
    `@train`, `@valid` or `@test` keeps one part of an 80/10/10 split by a hash of the group
    (samples: by their `split` key). UserError when the spec is not understood, nothing matches, or
    a file is damaged or is not UTF-8 text.
    """
    source = parse(spec)
    return _keep(source, _READERS[source.kind](source))


def fingerprint(spec: str) -> str:
    """SHA-256 (hex) of the spec and of the bytes of the files behind it (TFDS: sizes and times)."""
    source = parse(spec)
    digest = hashlib.sha256(spec.encode("utf-8", "surrogatepass"))
    if source.kind == "tfds":
        digest.update(records.tfds_identity(source.target).encode())
        return digest.hexdigest()
    if source.kind == "random":
        return digest.hexdigest()
    for path, name in _files(source):
        digest.update(b"\0" + name.encode("utf-8", "surrogatepass") + b"\0")
        with _opened(path) as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def size(spec: str) -> int:
    """Bytes on the disk of the files behind `spec`; 0 where it has none of its own."""
    source = parse(spec)
    return 0 if source.kind in ("tfds", "random") else sum(
        path.stat().st_size for path, _ in _files(source))


def _keep(source: Source, found: Iterator[tuple[Document, str | None]]) -> Iterator[Document]:
    for document, given_split in found:
        if not document.text:
            continue
        if source.split is None or source.split == (given_split or split_of(document.group)):
            yield document


def _files(source: Source) -> list[tuple[Path, str]]:
    """Sorted (path, name) pairs; a name does not depend on where the project or the folder lies."""
    if source.kind == "stdlib":
        root = Path(sysconfig.get_path("stdlib"))
        found = _walk(root, lambda name: name in _STDLIB_SKIP or name.startswith("config-"), ".py")
        if not found:
            raise UserError(f"data source stdlib: no *.py files in {root}; use files:GLOB")
        return found
    if source.kind == "samples":
        path = SAMPLES / f"{source.target}.jsonl.xz"
        known = sorted(p.name.removesuffix(".jsonl.xz") for p in SAMPLES.glob("*.jsonl.xz"))
        if source.target not in known:
            raise UserError(f"data source {source.spec!r}: the samples are {', '.join(known)}")
        return [(path, path.name)]
    pattern = os.path.expanduser(source.target)
    if source.kind == "files" and os.path.isdir(pattern):
        found = _walk(Path(pattern), lambda name: name.startswith("."), "")
    else:
        fixed = pattern if os.path.exists(pattern) else re.split(r"[*?\[]", pattern, maxsplit=1)[0]
        root = os.path.dirname(fixed)
        matches = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
        found = [(Path(m), Path(os.path.relpath(m, root or ".")).as_posix())
                 for m in sorted(matches) if os.path.isfile(m)]
    if not found:
        raise UserError(f"data source {source.spec!r} matches no file; check the path")
    return found


def _walk(root: Path, skip: Callable[[str], bool], suffix: str) -> list[tuple[Path, str]]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not skip(name))
        for name in names:
            if name.endswith(suffix) and not skip(name):
                path = Path(folder) / name
                found.append((path, path.relative_to(root).as_posix()))
    return sorted(found, key=lambda pair: pair[1])


def _stdlib(source: Source) -> Iterator[tuple[Document, str | None]]:
    for path, name in _files(source):
        data = path.read_bytes()
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            continue  # the interpreter's own file in another encoding: not the user's mistake
        yield Document(text, name, name.split("/")[0].removesuffix(".py")), None


def _text_files(source: Source) -> Iterator[tuple[Document, str | None]]:
    for path, name in _files(source):
        with _opened(path) as stream:
            data = stream.read()
        yield Document(_decode(data, str(path), 0), name, name), None


def _jsonl(source: Source) -> Iterator[tuple[Document, str | None]]:
    for path, name in _files(source):
        for number, record in records.json_lines(path):
            text = records.text_of(record, source.field, f"{path} line {number}")
            group = records.group_of(record) or f"{name}:{number}"
            split = record.get("split") if source.kind == "samples" else None
            yield Document(text, f"{name}:{number}", group), split


def _random(source: Source) -> Iterator[tuple[Document, str | None]]:
    symbols = [chr(33 + n) for n in range(int(source.target))]
    for number in range(RANDOM_DOCUMENTS):
        name = f"random:{number}"
        text = "".join(random.Random(name).choices(symbols, k=RANDOM_CHARACTERS))
        yield Document(text, name, name), None


def _tfds(source: Source) -> Iterator[tuple[Document, str | None]]:
    for number, record in enumerate(records.tfds_records(source.target)):
        text = records.text_of(record, source.field, f"{source.spec} record {number}")
        name = f"{source.target}:{number}"
        yield Document(text, name, records.group_of(record) or name), None


_READERS = {
    "stdlib": _stdlib, "samples": _jsonl, "random": _random, "files": _text_files,
    "jsonl": _jsonl, "tfds": _tfds,
}


def read_text(path: str | os.PathLike) -> Iterator[str]:
    """Streams a user's UTF-8 text file (`-` is standard input) in pieces of at most 1 MiB.

    Pieces end at a line's end where there is one in their second half, else between two characters;
    together they are exactly the file, line ends included.
    UserError for a file that is missing, empty, binary (a NUL byte) or not UTF-8: it names the file
    and, for the last two, the byte offset. Pieces before the bad byte may be out by then.
    """
    name = "standard input" if str(path) == "-" else str(path)
    if str(path) == "-":
        yield from _pieces(sys.stdin.buffer, name)
        return
    with _opened(Path(path)) as stream:
        yield from _pieces(stream, name)


def _pieces(stream, name: str) -> Iterator[str]:
    carry, offset = b"", 0
    while True:
        block = stream.read(PIECE_BYTES - len(carry))
        data = carry + block
        if not block:
            break
        cut = data.rfind(b"\n") + 1
        if cut <= len(data) // 2:
            cut = len(data)
            while cut > len(data) - 4 and cut > 0 and not _whole(data[:cut]):
                cut -= 1
        yield _decode(data[:cut], name, offset)
        offset += cut
        carry = data[cut:]
    if data:
        yield _decode(data, name, offset)
    elif offset == 0:
        raise UserError(f"{name} is empty; give a file with text")


def _whole(data: bytes) -> bool:
    """Whether `data` does not stop inside a UTF-8 character."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            need = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back >= need
    return True


def _decode(data: bytes, name: str, offset: int) -> str:
    nul = data.find(b"\0")
    if nul >= 0:
        raise UserError(f"{name} is not a text file: NUL byte at offset {offset + nul}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name} is not UTF-8: bad byte at offset {offset + error.start}; convert it first"
        ) from None


def _opened(path: Path):
    try:
        return file_position.opened(path)
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; give a file") from None
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
