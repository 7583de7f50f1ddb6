"""What safetensors files say of themselves before a number is read.  Knows no JAX."""

import math
from pathlib import Path

import safetensors

from cr_jax.errors import UserError
from cr_jax.files import readable

_NAMES = {"F32": "float32", "BF16": "bfloat16", "I8": "int8"}
SCALE = ".scale"  # behind an int8 matrix's path: what one step of each of its rows is worth


def opened(file: Path):
    """A safetensors file to read from.  `UserError` when it is missing or not a whole one."""
    with readable(file):
        try:
            return safetensors.safe_open(file, "numpy")
        except safetensors.SafetensorError as error:
            raise UserError(
                f"{file} is not a whole safetensors file: restore it from a copy or write it again"
            ) from error


def count_parameters(file: Path) -> int:
    """How many parameters the file's header lists.  `UserError` as in `opened`."""
    with opened(file) as stored:
        paths = [k for k in stored.keys() if not k.endswith(SCALE)]  # noqa: SIM118 (not a dict)
        return sum(math.prod(stored.get_slice(k).get_shape()) for k in paths)


def stored_dtype(file: Path) -> str:
    """float32, bfloat16 or int8: in what its matrices are stored.  `UserError` as in `opened`, and
    for another one."""
    with opened(file) as stored:
        slices = [stored.get_slice(k) for k in stored.keys()]  # noqa: SIM118 (not a dict)
        kinds = {s.get_dtype() for s in slices}
    # Vectors and scales stay float32 in all.
    kind = next(iter(kinds - {"F32"}), "F32")
    if kind not in _NAMES:
        raise UserError(f"{file} stores {kind}: store {', '.join(_NAMES.values())}")
    return _NAMES[kind]
