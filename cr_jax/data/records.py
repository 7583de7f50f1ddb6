"""Records (dicts) out of JSON lines, plain or compressed, and out of TFDS data sources."""

import codecs
import decimal
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cr_jax.data import file_position
from cr_jax.data.encodings import as_utf8
from cr_jax.data.unpacking import HEAD, Damaged, told, unpacked
from cr_jax.errors import UserError
from cr_jax.host.files import expanded

MOST_BYTES = 1 << 27  # of a line, or of a text file: what is held in memory at once
PIECE = 1 << 16  # bytes of a line too long that are passed over at once
_NAMES = 12  # of fields in a message
_DEPTH = 64  # of nesting that is looked at where a line is nested too deeply for the reader
_STRINGS_AND_BRACKETS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)
# Python refuses to convert numbers of more digits to int (it takes quadratic time).
_MOST_DIGITS = 4000


def json_lines(
    path: Path, field: str = "text", most: int = MOST_BYTES
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number from 1, record) of a .jsonl[.zst|.xz|.gz|.bz2] file; skips blank lines.

    Only `field` is going to be read, and so must be there once; what other fields hold, bytes that
    are not UTF-8 for example, does not matter as long as the line is JSON.  A file is decompressed
    by what it begins with, whatever its name; UTF-16 and UTF-32 are read where a byte order mark
    says so.
    UserError names the file and the line of what is not a JSON object or is longer than `most`
    bytes; likewise for a compressed file that is damaged, ends early, or has something behind its
    end: nothing is left out silently.
    """
    for line in each_line(path, field, most=most):
        if isinstance(line.record, UserError):
            raise line.record
        yield line.number, line.record


class Line(NamedTuple):
    """A line of JSON lines: its number from 1, its bytes, and its record or what is wrong with it.

    data: without a byte order mark; empty where the line is too long.
    """

    number: int
    data: bytes
    record: dict[str, Any] | UserError


def each_line(
    path: Path, field: str = "text", *, name: str | None = None, most: int | None = None
) -> Iterator[Line]:
    """As `json_lines`, but a bad line has its `UserError` for a record, and the next ones follow.

    name: calls line 3 `NAME:3` in messages.  most: bytes of a line, `MOST_BYTES` where it is None.
    UserError is raised for what no line comes after: the file cannot be read, or is damaged.
    """
    number, most = 0, MOST_BYTES if most is None else most
    try:
        with file_position.opened(path) as raw:
            stream = as_utf8(unpacked(raw, path.suffix))
            while line := stream.readline(most + 1):
                number += 1
                where = f"{path} line {number}" if name is None else f"{name}:{number}"
                if len(line) > most:
                    how = "" if name else ", or raise config.data.max_document_bytes"
                    why = f"{where} is longer than {most:,} bytes: split its document{how}"
                    yield Line(number, b"", UserError(why))
                    while line and not line.endswith(b"\n"):
                        line = stream.readline(PIECE)
                    continue
                line = line.removeprefix(codecs.BOM_UTF8)
                if not line.strip():
                    continue
                record: dict[str, Any] | UserError
                try:
                    record = _record(line, where, field)
                except UserError as error:
                    record = error
                yield Line(number, line, record)
    except Damaged as error:
        raise UserError(error.line(str(path), _reached(number))) from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read{_reached(number, ' ')}: {error.strerror or error}"
        ) from None


def _reached(number: int, lead: str = "") -> str:
    return f"{lead}after line {number}" if number else ""


def _record(line: bytes, where: str, field: str) -> dict[str, Any]:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        # Bad bytes become half surrogate pairs, which `text_of` refuses in a field that is read.
        text = line.decode("utf-8", "surrogateescape")
    try:
        try:
            record = _DECODER.decode(text)
        except RecursionError:
            text = _shallow(text)
            record = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON: {_reason(line, text, error)}") from None
    if not isinstance(record, dict):
        raise UserError(f"{where} is not a JSON object but {_kind(record)}")
    if text.count(f'"{field}"') > 1 and _times(text, field) > 1:
        raise UserError(f"{where} has the field {field!r} twice; leave one of them")
    return record


def _integer(digits: str) -> int | decimal.Decimal:
    return int(digits) if len(digits) < _MOST_DIGITS else decimal.Decimal(digits)


_DECODER = json.JSONDecoder(parse_int=_integer)


def _times(text: str, field: str) -> int:
    """How often the outermost object names `field`."""
    pairs: list[tuple[str, Any]] = []

    def note(found):
        nonlocal pairs
        pairs = found  # that of the outermost object comes last
        return None

    json.JSONDecoder(parse_int=_integer, object_pairs_hook=note).decode(text)
    return sum(name == field for name, _ in pairs)


def _shallow(text: str) -> str:
    """JSON without what is nested more deeply than `_DEPTH`: nulls stand in its place."""
    kept, start, open_brackets = [], 0, []
    for match in _STRINGS_AND_BRACKETS.finditer(text):
        bracket = match[0]
        if bracket in "[{":
            open_brackets.append(bracket)
            if len(open_brackets) == _DEPTH:
                kept += [text[start : match.start()], "null"]
        elif bracket in "]}":
            if not open_brackets or open_brackets.pop() + bracket not in ("[]", "{}"):
                raise json.JSONDecodeError("a bracket that nothing opened", text, match.start())
            if len(open_brackets) == _DEPTH - 1:
                start = match.end()
    if open_brackets:
        raise json.JSONDecodeError("a bracket that nothing closes", text, len(text))
    return "".join([*kept, text[start:]])


def _reason(line: bytes, text: str, error: json.JSONDecodeError) -> str:
    """What is wrong with a line, and what the file may be instead."""
    if (kind := told(line[:HEAD])) is not None:
        return f"the file is {kind}; unpack or convert it first"
    if b"\0" in line:
        return (
            "it has NUL bytes; restore the file, or convert it to UTF-8 if it is UTF-16 "
            "without a byte order mark"
        )
    if text.lstrip().startswith("["):
        return "it begins an array; write one object per line, as jq -c '.[]' does"
    return f"{error.msg} at character {error.pos + 1}"


def _kind(value: Any) -> str:
    return {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
        decimal.Decimal: "a number",
        type(None): "null",
    }.get(type(value), type(value).__name__)


def text_of(record: Mapping[str, Any], field: str, where: str) -> str:
    """The text under `field` (str, or UTF-8 bytes). UserError when it is missing or is not text."""
    if field not in record:
        names = [name if name.isprintable() else repr(name) for name in sorted(record)]
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        raise UserError(
            f"{where} has no field {field!r}; it has {', '.join(names[:_NAMES]) or 'none'}{more}"
        )
    text = record[field]
    try:
        if isinstance(text, bytes):
            return text.decode("utf-8")
        if isinstance(text, str):
            text.encode("utf-8")  # JSON can spell half a surrogate pair, which is no character
            return text
    except UnicodeError as error:
        raise UserError(
            f"{where}: field {field!r} is not valid Unicode text: at character "
            f"{error.start + 1} stands a byte that is not UTF-8, or half a surrogate "
            "pair"
        ) from None
    raise UserError(f"{where}: field {field!r} is not text but {_kind(text)}")


def tfds_records(target: str) -> Iterator[Mapping[str, Any]]:
    """Yields the examples of a prepared TFDS data set, `NAME[/CONFIG]/SPLIT`, without TensorFlow.

    The order is that of the stored files (TFDS shuffles by hash when it writes them). UserError
    when tensorflow_datasets is missing, or the data set is not there in ArrayRecord form.
    """
    builder, split = _tfds_builder(target)
    try:
        source = builder.as_data_source(split=split)
        yield from (source[index] for index in range(len(source)))
    except (
        NotImplementedError,
        ValueError,
        AssertionError,
        OSError,
        KeyError,
        RuntimeError,
    ) as error:  # the last: a damaged file
        raise UserError(
            f"data source tfds:{target} cannot be read: {_first_line(error)}; prepare it with "
            "tfds build --file_format=array_record, and name a split that it has"
        ) from None


def tfds_identity(target: str) -> str:
    """What names the stored bytes of a prepared TFDS set: version, files with sizes and times."""
    builder, split = _tfds_builder(target)
    folder = Path(builder.data_path)
    if not folder.is_dir():
        return f"{builder.info.full_name} {split}"
    files = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir()]
    return json.dumps([builder.info.full_name, split, sorted(files)])


def _tfds_builder(target: str):
    name, slash, split = target.rpartition("/")
    if not slash or not name or not split:
        raise UserError(
            f"data source tfds:{target} must be tfds:NAME/SPLIT, for example tfds:wiki40b/en/test"
        )
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise UserError("tfds: needs the package tensorflow-datasets; install it first") from None
    try:
        # Named here too: TFDS reads the variable only once, when it is imported.
        data_dir = os.environ.get("TFDS_DATA_DIR")
        data_dir = str(expanded(data_dir)) if data_dir else None
        return tfds.builder(name, try_gcs=False, data_dir=data_dir), split
    except Exception as error:  # TFDS raises many kinds, none of them public
        raise UserError(
            f"data source tfds:{target} is not there: {_first_line(error)}; prepare it first, and "
            "set TFDS_DATA_DIR to its folder"
        ) from None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
