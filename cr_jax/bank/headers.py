"""Safetensors files: what the header says, and arrays that are views of the bytes.  Knows no JAX.

Our own reader: it takes bytes that were read once and hashed, and trusts no number of a header.
    8 bytes: size N of the header; N bytes: JSON, name -> dtype, shape, [start, end); then the data
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from cr_jax.errors import UserError
from cr_jax.host.inside import Inside

_NAMES = {"F32": "float32", "BF16": "bfloat16", "I8": "int8"}
SCALE = ".scale"  # behind an int8 matrix's path: what one step of each of its rows is worth
HEADER_MOST = 1 << 24  # bytes
_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    **{f"I{8 * np.dtype(t).itemsize}": t for t in (np.int8, np.int16, np.int32, np.int64)},
    **{f"U{8 * np.dtype(t).itemsize}": t for t in (np.uint8, np.uint16, np.uint32, np.uint64)},
}


class Tensor(NamedTuple):
    """dtype as safetensors writes it; start and end: bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(first: bytes, size: int, where: Path) -> Mapping[str, Tensor]:
    """Name -> tensor, of a file of `size` bytes that begins with `first`, its whole header.

    `UserError` unless the tensors fill the rest of the file exactly, one after another.
    """
    try:
        length = header_size(first)
        raw = json.loads(first[8 : 8 + length])
        found = {n: _tensor(x) for n, x in raw.items() if n != "__metadata__"}
        filled = _filled(found.values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        filled = None
    if filled is None or 8 + length + filled != size:
        raise _not_whole(where)
    return found


def header_size(first: bytes) -> int:
    """Bytes of the header, by the 8 bytes before it.  ValueError for none."""
    size = int.from_bytes(first[:8], "little")
    if len(first) < 8 or size > HEADER_MOST:
        raise ValueError("no safetensors file")
    return size


def read_arrays(data: bytes, where: Path) -> Mapping[str, np.ndarray]:
    """All arrays of a file's bytes, as views of them.  `UserError` as in `read_header`."""
    header = read_header(data, len(data), where)
    begin = 8 + header_size(data)
    return {
        name: np.frombuffer(data, _TYPES[x.dtype], math.prod(x.shape), begin + x.start).reshape(
            x.shape
        )
        for name, x in header.items()
    }


def count_parameters(folder: Inside, name: str) -> int:
    """How many parameters a file's header lists.  `UserError` as in `read_header`."""
    header = _header_of(folder, name)
    return sum(math.prod(x.shape) for path, x in header.items() if not path.endswith(SCALE))


def stored_dtype(folder: Inside, name: str) -> str:
    """float32, bfloat16 or int8: in what a file's matrices are stored.  `UserError` as in
    `read_header`, and for another one."""
    kinds = {x.dtype for x in _header_of(folder, name).values()}
    # Vectors and scales stay float32 in all.
    kind = next(iter(kinds - {"F32"}), "F32")
    if kind not in _NAMES:
        raise UserError(f"{folder.path / name} stores {kind}: store {', '.join(_NAMES.values())}")
    return _NAMES[kind]


def _header_of(folder: Inside, name: str) -> Mapping[str, Tensor]:
    with folder.reading(name) as stream:
        first = stream.read(8)
        try:
            first += stream.read(header_size(first))
        except ValueError:
            raise _not_whole(folder.path / name) from None
        size = stream.seek(0, 2)
    return read_header(first, size, folder.path / name)


def _tensor(raw) -> Tensor:
    shape, (start, end) = tuple(raw["shape"]), raw["data_offsets"]
    if len(shape) > 8 or not all(type(n) is int and 0 <= n < 1 << 62 for n in (*shape, start, end)):
        raise ValueError("no sizes")
    if end - start != math.prod(shape) * np.dtype(_TYPES[raw["dtype"]]).itemsize:
        raise ValueError("other sizes")
    return Tensor(raw["dtype"], shape, start, end)


def _filled(tensors) -> int:
    """Bytes up to which the tensors lie one after another.  ValueError where they do not."""
    end = 0
    for x in sorted(tensors, key=lambda x: (x.start, x.end)):
        if x.start != end:
            raise ValueError("a gap")
        end = x.end
    return end


def _not_whole(where: Path) -> UserError:
    return UserError(
        f"{where} is not a whole safetensors file: restore it from a copy or write it again"
    )
