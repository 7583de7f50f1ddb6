"""Source specs: what a string such as `jsonl:a.jsonl#content@train` says.  Not in the paper."""

import dataclasses
import hashlib
import os
from typing import Any

from cr_jax.errors import UserError
from cr_jax.host.files import expanded

SPLITS = ("train", "valid", "test")
_KINDS = (
    "stdlib, samples/NAME, random:SYMBOLS, files:GLOB, text:PATH[#line|#paragraph|#document], and, "
    "each with [#field][&group=KEY], jsonl:PATH, csv:PATH, parquet:PATH, hf:FOLDER, "
    "hf:NAME/SPLIT, tfds:NAME/SPLIT"
)
RECORDS = ("jsonl", "csv", "parquet", "hf", "tfds")  # kinds that have fields
PATHS = ("files", "text", "jsonl", "csv", "parquet", "hf")  # kinds whose target is a path
UNITS = ("line", "paragraph", "document")  # what of a `text:` file is a document
REGISTERED: dict[str, Any] = {}  # kind -> what `sources.register_source` was given
_NO_FIELD = frozenset("/*?[")  # they belong to a path


@dataclasses.dataclass(frozen=True)
class Source:
    """A parsed spec: `kind` and `target` say where, `field` is the text's key, `split` a part.

    field: of `text`, what is a document, one of `UNITS`.
    group_key: the key of a record's group; empty: as the settings say.
    """

    spec: str
    kind: str
    target: str
    field: str = "text"
    split: str | None = None
    group_key: str = ""


def parse(spec: str) -> Source:
    """Reads a spec without touching the disk. UserError when its form is unknown.

    A field stands after the last `#` and holds none of `/*?[`, so that a path with `#` in it need
    not be written otherwise.

    >>> parse("jsonl:C#/a.jsonl#content&group=owner@test")  # doctest: +ELLIPSIS
    Source(... target='C#/a.jsonl', field='content', split='test', group_key='owner')
    """
    body, split = _without_split(spec.strip())
    head, at, tail = body.rpartition("@")
    if split is None and at and (head == "stdlib" or head.startswith("samples/")):
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
    if colon and target and kind == "text":
        path, mark, unit = target.rpartition("#")
        if not mark or not path or _NO_FIELD & set(unit):
            return Source(spec, kind, target, UNITS[0], split)
        if unit not in UNITS:
            raise UserError(
                f"data source {spec!r}: a document is a #line, a #paragraph or a #document, not "
                f"{unit!r}"
            )
        return Source(spec, kind, path, unit, split)
    if colon and target and kind in RECORDS:
        path, mark, tail = target.rpartition("#")
        if not mark or not path or _NO_FIELD & set(tail):
            return Source(spec, kind, target, split=split)
        field, *options = tail.split("&")
        keys = [option.removeprefix("group=") for option in options]
        if len(keys) > 1 or any(
            not key or key == option for key, option in zip(keys, options, strict=True)
        ):
            raise UserError(
                f"data source {spec!r}: after the field comes &group=KEY or nothing, "
                f"not &{'&'.join(options)}"
            )
        return Source(spec, kind, path, field or "text", split, "".join(keys))
    if colon and kind in REGISTERED:
        return Source(spec, kind, target, split=split)
    raise UserError(f"data source {spec!r} is not understood; write one of: {_KINDS}")


def located(source: Source) -> Source:
    """The source with its path as the file system has it.

    `~` is expanded.  An existing path wins: what looks like a split or a field (`mail@test`,
    `a#b.jsonl`) is part of the path where a file or folder of that whole name is there.
    """
    if source.kind not in PATHS:
        return source
    field = UNITS[0] if source.kind == "text" else "text"
    whole = source.spec.lstrip().partition(":")[2]
    for path, split in ((whole, None), (whole.rstrip(), None), _without_split(whole.rstrip())):
        path = os.fspath(expanded(path))
        if os.path.lexists(path):
            return dataclasses.replace(source, target=path, field=field, split=split, group_key="")
    return dataclasses.replace(source, target=os.fspath(expanded(source.target)))


def split_of(group: str) -> str:
    """The part ("train" 80 %, "valid" 10 %, "test" 10 %) of a group, by a hash of its name.

    >>> [split_of(name) for name in ("asyncio", "json", "typing")]
    ['valid', 'train', 'test']
    """
    digest = hashlib.sha256(group.encode("utf-8", "surrogatepass")).digest()
    digit = int.from_bytes(digest[:8], "big") % 10
    return "train" if digit < 8 else SPLITS[digit - 7]


def _without_split(body: str) -> tuple[str, str | None]:
    head, at, tail = body.rpartition("@")
    return (head, tail) if at and tail in SPLITS else (body, None)
