"""Rows as records (dicts) out of Parquet, Arrow streams, CSV and lines of text.  Not in the paper.

All of them stream: a few rows, or one line, are held at a time.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cr_jax.data import file_position
from cr_jax.data.encodings import as_utf8, decoded
from cr_jax.data.groups import KEYS
from cr_jax.data.unpacking import Damaged, unpacked
from cr_jax.errors import UserError, turning

_ROWS = 64  # of a table that are decoded at once
_BUFFER = 1 << 20  # bytes of a column that are read at once
_DELIMITERS = ",;\t|"
_CELL = 1 << 17  # characters that a row of CSV may always have
_NAMES = 12  # of columns in a message


class Wanted(NamedTuple):
    """What is read of a row: the text in `field`, and the record's group (`groups.group_of`).

    key: the one that has the group; empty: the usual ones.  most: bytes of a document.
    """

    field: str = "text"
    key: str = ""
    most: int = 1 << 27

    def of(self, columns: Iterable[str]) -> list[str]:
        """Those of a table's columns that hold any of it."""
        usual = (self.key, self.key.partition(".")[0]) if self.key else (*KEYS, "meta", "metadata")
        return [name for name in columns if name == self.field or name in usual]


Rows = Iterator[tuple[int, dict[str, Any]]]


def parquet_rows(path: Path, wanted: Wanted) -> Rows:
    """Yields (row from 1, record) of a Parquet file.

    `UserError` names the file and its columns when it lacks the wanted one, and the row of what is
    no text; likewise for a file that is damaged, or no Parquet.
    """
    pyarrow = arrow(f"{path} is read with")
    from pyarrow import parquet

    with _readable(path, pyarrow), file_position.opened(path) as raw:
        # Without a buffer, or with `pre_buffer`, a column of a whole row group is read at once.
        table = parquet.ParquetFile(raw, buffer_size=_BUFFER, pre_buffer=False)
        columns = _columns(path, table.schema_arrow, wanted)
        yield from _rows(
            path, table.iter_batches(_ROWS, columns=columns, use_threads=False), wanted
        )


def arrow_rows(path: Path, wanted: Wanted) -> Rows:
    """Yields (row from 1, record) of an Arrow IPC stream; `UserError` as in `parquet_rows`."""
    pyarrow = arrow(f"{path} is read with")
    with _readable(path, pyarrow), file_position.opened(path) as raw:
        stream = pyarrow.ipc.open_stream(raw)
        columns = _columns(path, stream.schema, wanted)
        parts = (
            batch.slice(start, _ROWS).select(columns)
            for batch in stream
            for start in range(0, batch.num_rows, _ROWS)
        )
        yield from _rows(path, parts, wanted)


def csv_rows(path: Path, wanted: Wanted) -> Rows:
    """Yields (line from 1, record) of a CSV file, plain or compressed, whose first line names the
    columns, with commas, semicolons, tabs or `|` between them.

    `UserError` names the file and the line of what is no CSV, has another number of cells than the
    first line, or is a row longer than `wanted.most` and `_CELL` characters.
    """
    # A limit of the whole process; without it a cell has at most 131,072 characters.
    csv.field_size_limit(max(csv.field_size_limit(), wanted.most))
    number, held, most = 1, 0, max(wanted.most, _CELL)

    def lines(text: io.TextIOWrapper) -> Iterator[str]:
        """No more of a row than is allowed, be it one line or many."""
        nonlocal held
        while line := text.readline(most + 1 - held):
            held += len(line)
            if held > most:
                raise UserError(
                    f"{path} line {number + bool(header)}: a row is longer than {most:,} "
                    "characters; is a quote never closed? Otherwise split its document, or raise "
                    "config.data.max_document_bytes"
                )
            yield line

    try:
        with file_position.opened(path) as raw:
            data = as_utf8(unpacked(raw, path.suffix))
            text = io.TextIOWrapper(data, "utf-8-sig", newline="")
            rest, header = lines(text), []
            header, delimiter = _header(path, next(rest, ""), wanted)
            held = 0
            reader = csv.reader(rest, delimiter=delimiter, strict=True)
            for cells in reader:
                held = 0
                if cells and len(cells) != len(header):
                    raise UserError(
                        f"{path} line {number + 1} has {len(cells)} cells, the first line names "
                        f"{len(header)} columns; quote cells that hold a {delimiter!r}"
                    )
                if cells:
                    yield number + 1, dict(zip(header, cells))
                number = 1 + reader.line_num
    except UnicodeDecodeError:
        raise UserError(
            f"{path} is not UTF-8 after line {number}: convert it, say with "
            "iconv -f WINDOWS-1252 -t UTF-8"
        ) from None
    except csv.Error as error:
        raise UserError(
            f"{path} line {number + 1} is not CSV: {error}; is a quote never closed?"
        ) from None
    except Damaged as error:
        raise UserError(error.line(str(path), f"after line {number}")) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def text_rows(path: Path, wanted: Wanted) -> Rows:
    """Yields (line from 1, record) of a text file, plain or compressed.

    `wanted.field` is one of `specs.UNITS`: each line that is not blank, without its line end, what
    stands between blank lines, or all of it.  `UserError` as in `csv_rows`.
    """
    unit, held, first, size = wanted.field, [], 1, 0
    try:
        with file_position.opened(path) as raw:
            stream, offset = as_utf8(unpacked(raw, path.suffix)), 0
            for number, line in enumerate(iter(lambda: stream.readline(wanted.most + 1), b""), 1):
                blank = not line.strip()
                if held and (unit == "line" or (unit == "paragraph" and blank)):
                    yield first, {unit: _joined(held, unit)}
                    held, size = [], 0
                if not blank or unit == "document":
                    first, size = (first if held else number), size + len(line)
                    if size > wanted.most:
                        raise UserError(
                            f"{path} line {first}: a {unit} is longer than {wanted.most:,} bytes: "
                            "split it, or raise config.data.max_document_bytes"
                        )
                    held.append(decoded(line, str(path), offset))
                offset += len(line)
        if held:
            yield first, {unit: _joined(held, unit)}
    except Damaged as error:
        raise UserError(error.line(str(path))) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def check(kind: str, path: Path, field: str) -> None:
    """`UserError` unless the file of that kind has the column; reads no more than where it is
    named."""
    if kind == "csv":
        next(csv_rows(path, Wanted(field)), None)
    elif kind in ("parquet", "hf"):
        next((parquet_rows if kind == "parquet" else arrow_rows)(path, Wanted(field)), None)


def arrow(why: str) -> Any:
    """The module pyarrow.  `UserError` that begins with `why` where it is missing."""
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError:
        raise UserError(f"{why} the package pyarrow: install cr_jax[data]") from None
    return pyarrow


def no_column(path: Path, names: Iterable[str], field: str) -> UserError:
    """A table has no such column: which ones it has."""
    shown = [name if name.isprintable() else repr(name) for name in names]
    more = f" and {len(shown) - _NAMES} more" if len(shown) > _NAMES else ""
    return UserError(
        f"{path} has no column {field!r}; it has {', '.join(shown[:_NAMES]) or 'none'}{more}: "
        "name one behind #"
    )


def _columns(path: Path, schema: Any, wanted: Wanted) -> list[str]:
    if wanted.field not in schema.names:
        raise no_column(path, schema.names, wanted.field)
    columns = wanted.of(schema.names)
    _once(path, columns)
    return columns


def _once(path: Path, columns: list[str]) -> None:
    """`UserError` for a column of which there are two."""
    for name in columns:
        if columns.count(name) > 1:
            raise UserError(f"{path} has the column {name!r} twice; rename one of them")


def _rows(path: Path, batches: Iterable[Any], wanted: Wanted) -> Rows:
    number = 0
    for batch in batches:
        columns = dict(zip(batch.schema.names, batch.columns))
        for row in range(batch.num_rows):
            number += 1
            try:
                record = {name: column[row].as_py() for name, column in columns.items()}
            except UnicodeDecodeError:
                raise UserError(f"{path} row {number} has text that is not UTF-8") from None
            except OverflowError as error:
                raise UserError(
                    f"{path} row {number} has a date or a time span out of range ({error}): "
                    "write the table again without it"
                ) from None
            text = record[wanted.field]
            if isinstance(text, str | bytes) and 4 * len(text) > wanted.most:
                size = len(text.encode() if isinstance(text, str) else text)
                if size > wanted.most:
                    raise UserError(
                        f"{path} row {number} is longer than {wanted.most:,} bytes: split its "
                        "document, or raise config.data.max_document_bytes"
                    )
            yield number, record


def _readable(path: Path, pyarrow: Any) -> turning:
    def told(error: Exception) -> UserError | None:
        if isinstance(error, UserError):  # is a ValueError too
            return None
        said = " ".join((getattr(error, "strerror", None) or str(error)).split())
        return UserError(f"{path} cannot be read as a table: {said}")

    return turning(told, pyarrow.ArrowException, OSError, ValueError)


def _header(path: Path, line: str, wanted: Wanted) -> tuple[list[str], str]:
    """The columns of the first line, and what stands between them."""
    for delimiter in _DELIMITERS:
        header = next(csv.reader([line], delimiter=delimiter), [])
        if wanted.field in header:
            _once(path, wanted.of(header))
            return header, delimiter
    raise no_column(path, next(csv.reader([line]), []), wanted.field)


def _joined(lines: list[str], unit: str) -> str:
    return "".join(lines) if unit == "document" else "".join(lines).rstrip("\r\n")


READERS: dict[str, Callable[[Path, Wanted], Rows]] = {
    "parquet": parquet_rows,
    "hf": arrow_rows,
    "csv": csv_rows,
    "text": text_rows,
}
