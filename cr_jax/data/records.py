"""Records (dicts) out of JSON lines, plain or compressed, and out of TFDS data sources."""

import gzip
import io
import json
import lzma
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zstandard

from cr_jax.data import file_position
from cr_jax.errors import UserError

GROUP_KEYS = ("group", "repo", "path")


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number from 1, record) of a .jsonl[.zst|.xz|.gz] file; skips blank lines.

    UserError names the file, and the line of what is not a JSON object.
    """
    number = 0
    try:
        with file_position.opened(path) as raw, _decompressed(raw, path.suffix) as stream:
            lines = io.TextIOWrapper(stream, encoding="utf-8", newline="\n")
            for number, line in enumerate(lines, 1):
                if line.isspace():
                    continue
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise UserError(f"{path} line {number} is not a JSON object")
                yield number, record
    except json.JSONDecodeError as error:
        raise UserError(f"{path} line {number} is not JSON: {error.msg}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 after line {number}; convert it first") from None
    except (zstandard.ZstdError, lzma.LZMAError, gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"{path} cannot be decompressed after line {number}: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def _decompressed(raw, suffix: str):
    if suffix == ".zst":
        # 2**31: files written with --long; several frames in one file are one text.
        reader = zstandard.ZstdDecompressor(max_window_size=2**31)
        return reader.stream_reader(raw, read_across_frames=True)
    if suffix == ".xz":
        return lzma.open(raw)
    if suffix == ".gz":
        return gzip.open(raw)
    return raw


def text_of(record: Mapping[str, Any], field: str, where: str) -> str:
    """The text under `field` (str, or UTF-8 bytes). UserError when it is missing or is not text."""
    if field not in record:
        raise UserError(f"{where} has no field {field!r}; it has {', '.join(sorted(record))}")
    text = record[field]
    try:
        if isinstance(text, bytes):
            return text.decode("utf-8")
        if isinstance(text, str):
            text.encode("utf-8")  # JSON can spell half a surrogate pair, which is no character
            return text
    except UnicodeError:
        raise UserError(f"{where}: field {field!r} is not valid Unicode text") from None
    raise UserError(f"{where}: field {field!r} is not text but {type(text).__name__}")


def group_of(record: Mapping[str, Any]) -> str | None:
    """The record's group: its `group`, else `repo`, else `path`; None when it has none of them."""
    for key in GROUP_KEYS:
        value = record.get(key)
        if value is not None and str(value):
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return None


def tfds_records(target: str) -> Iterator[Mapping[str, Any]]:
    """Yields the examples of a prepared TFDS data set, `NAME[/CONFIG]/SPLIT`, without TensorFlow.

    The order is that of the stored files (TFDS shuffles by hash when it writes them). UserError
    when tensorflow_datasets is missing, or the data set is not there in ArrayRecord form.
    """
    builder, split = _tfds_builder(target)
    try:
        source = builder.as_data_source(split=split)
        yield from (source[index] for index in range(len(source)))
    except (NotImplementedError, ValueError, AssertionError, OSError, KeyError) as error:
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
        return tfds.builder(name, try_gcs=False, data_dir=data_dir), split
    except Exception as error:  # TFDS raises many kinds, none of them public
        raise UserError(
            f"data source tfds:{target} is not there: {_first_line(error)}; prepare it first, and "
            "set TFDS_DATA_DIR to its folder"
        ) from None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
