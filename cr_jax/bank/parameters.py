"""One expert's parameters as a safetensors file, and many such files as one stacked pytree.

Keys are '/'-joined paths.  Shapes come from the model, never from a file: a header that claims
other shapes is refused before anything is allocated.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from cr_jax import models
from cr_jax.bank.files import readable
from cr_jax.config import ModelConfig
from cr_jax.errors import UserError
from cr_jax.files import give_usual_mode

FILE = "params.safetensors"
DTYPES = ("float32", "bfloat16", "int8")
_STORED = {"F32", "BF16", "I8"}
_SCALE = ".scale"  # behind an int8 matrix's path: what one step of each of its rows is worth


def checked(where: str, params: Any, model: ModelConfig) -> Any:
    """`params` as float32 numpy arrays; `UserError`, starting with `where`, if they do not fit.

    Their paths and shapes must be the model's and every number finite.
    """
    try:
        flat = {k: np.asarray(v) for k, v in _flat(params).items()}
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"{where}: parameters must be nested dicts of arrays") from error
    _compare(where, {k: v.shape for k, v in flat.items()}, model)
    flat = {k: v.astype(np.float32) for k, v in flat.items()}
    for path, x in flat.items():
        if not np.isfinite(x).all():
            raise UserError(
                f"{where}: parameter {path} has NaN or infinite numbers: train it "
                "again from its last good checkpoint"
            )
    return _nested(flat)


def rounded(params: Any, dtype: str) -> Any:
    """`params` (float32) as a file of that dtype gives them back."""
    return jax.tree.map(lambda x: _value(*_stored(x, dtype)), params)


def write(file: Path, params: Any, dtype: str = "float32") -> None:
    """Stores parameters as one of `DTYPES`.

    int8: every row of a matrix in steps of 1/127 of its largest number; vectors stay float32.
    """
    flat = {}
    for path, x in _flat(params).items():
        numbers, scale = _stored(np.asarray(x), dtype)
        flat[path] = np.ascontiguousarray(numbers)
        if scale is not None:
            flat[path + _SCALE] = np.ascontiguousarray(scale)
    safetensors.numpy.save_file(flat, file)
    give_usual_mode(file)  # the library makes it for its owner alone


def _stored(x: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    if dtype != "int8":
        return x.astype(jnp.dtype(dtype)), None
    if x.ndim < 2:
        return x, None
    scale = np.abs(x).max(-1, keepdims=True).astype(np.float32) / 127
    steps = np.round(x / np.maximum(scale, np.finfo(np.float32).tiny))
    return np.clip(steps, -127, 127).astype(np.int8), scale


def _value(numbers: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
    return numbers.astype(np.float32) * (1 if scale is None else scale)


def read_stacked(folders: Sequence[Path], model: ModelConfig) -> Any:
    """The files of E expert folders -> a pytree of float32 [E, ...]; None when E is 0.

    `UserError` when a file is missing, cut short, or has other paths, shapes or dtypes.
    """
    if not folders:
        return None
    files = [folder / FILE for folder in folders]
    for file in files:
        check_header(file, model)
    stacked = {k: np.empty((len(files), *shape), np.float32) for k, shape in shapes(model).items()}
    for row, file in enumerate(files):
        with opened(file) as stored:
            there = set(stored.keys())
            for path, x in stacked.items():
                scale = stored.get_tensor(path + _SCALE) if path + _SCALE in there else None
                x[row] = _value(stored.get_tensor(path), scale)
    return jax.tree.map(jnp.asarray, _nested(stacked))


def check_header(file: Path, model: ModelConfig) -> None:
    """`UserError` unless the file's header lists exactly the model's parameters."""
    with opened(file) as stored:
        slices = {k: stored.get_slice(k) for k in stored.keys()}  # noqa: SIM118 (not a dict)
        given = {k: (tuple(s.get_shape()), s.get_dtype()) for k, s in slices.items()}
        scales = {k: given.pop(k) for k in sorted(given) if k.endswith(_SCALE)}
        _compare(str(file), {k: shape for k, (shape, _) in given.items()}, model)
        odd = {dtype for _, dtype in given.values()} - _STORED
        if odd:
            raise UserError(
                f"{file} stores {', '.join(sorted(odd))}: store float32, bfloat16 or int8"
            )
        wanted = {
            k + _SCALE: ((*shape[:-1], 1), "F32")
            for k, (shape, dtype) in given.items()
            if dtype == "I8"
        }
        if scales != wanted:
            raise UserError(
                f"{file} has int8 numbers without their scales, or scales of another "
                "shape: write the expert again"
            )


@functools.lru_cache
def shapes(model: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """'/'-joined path -> shape of one expert's parameters; nothing is allocated.

    `UserError` for sizes that make none: zero, or products that no computer can count.
    """
    try:
        tree = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))
    except UserError:
        raise
    except (OverflowError, MemoryError, TypeError, ValueError) as error:
        raise UserError(
            "the model's sizes do not make parameters: use the bank that training wrote"
        ) from error
    return {path: x.shape for path, x in _flat(tree).items()}


def _compare(where: str, given: Mapping[str, tuple[int, ...]], model: ModelConfig) -> None:
    wanted = shapes(model)
    for path in sorted({*wanted, *given}):
        if wanted.get(path) != given.get(path):
            raise UserError(
                f"{where}: parameter {path} has shape {given.get(path, 'none')}, the "
                f"bank's model needs {wanted.get(path, 'none')}: use parameters that "
                "were trained with the bank's model settings"
            )


def _flat(tree) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(tree, sep="/")


def _nested(flat: Mapping[str, Any]) -> Any:
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def opened(file: Path):
    """A safetensors file to read from.  `UserError` when it is missing or not a whole one."""
    with readable(file):
        try:
            return safetensors.safe_open(file, "numpy")
        except safetensors.SafetensorError as error:
            raise UserError(
                f"{file} is not a whole safetensors file: restore it from a copy or write it again"
            ) from error
