"""Parameters of one expert, or of its language model, as a safetensors file.

Keys are '/'-joined paths.  Shapes come from the model, never from a file: a header that claims
other shapes is refused before anything is allocated.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from cr_jax import models
from cr_jax.bank.headers import HEADER_MOST, SCALE, read_arrays, read_header
from cr_jax.bank.manifest import SealedFiles
from cr_jax.config import LmConfig, ModelConfig
from cr_jax.errors import UserError
from cr_jax.models import lm as language_models

FILE = "params.safetensors"
DTYPES = ("float32", "bfloat16", "int8")
_STORED = {"F32", "BF16", "I8"}
# No parameter that was trained is so large; squares of sums of such numbers would overflow.
LARGEST = 1e6
Config = ModelConfig | LmConfig  # what says which parameters there are


def checked(where: str, params: Any, config: Config) -> Any:
    """`params` as float32 numpy arrays that nobody writes to, copies of what is given.

    `UserError` as in `check`.
    """
    flat = check(where, params, config)
    return _nested({path: _fixed(x.astype(np.float32)) for path, x in flat.items()})


def check(where: str, params: Any, config: Config) -> dict[str, np.ndarray]:
    """`params` by their paths; `UserError`, starting with `where`, if they do not fit.

    Their paths and shapes must be the model's and every number finite.
    """
    try:
        flat = {k: np.asarray(v) for k, v in _flat(params).items()}
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"{where}: parameters must be nested dicts of arrays") from error
    _compare(where, {k: v.shape for k, v in flat.items()}, config)
    _check_finite(where, flat)
    return flat


def _check_finite(where: str, flat: Mapping[str, np.ndarray]) -> None:
    for path, given in flat.items():
        x = given.astype(np.float32, copy=False)
        if x.size and not (x.min() >= -LARGEST and x.max() <= LARGEST):  # of NaN nothing is true
            raise UserError(
                f"{where}: parameter {path} has NaN or infinite numbers, or some beyond "
                f"{LARGEST:g}: train it again from its last good checkpoint"
            )


def check_dtype(dtype: str) -> None:
    """`UserError` unless it is one of `DTYPES`."""
    if dtype not in DTYPES:
        raise UserError(f"an expert is stored as {' or '.join(DTYPES)}, not {dtype!r}")


def rounded(params: Any, dtype: str) -> Any:
    """`params` (float32) as a file of that dtype gives them back.  `UserError`: `check_dtype`."""
    check_dtype(dtype)
    if dtype == "float32":
        return params
    return jax.tree.map(lambda x: _fixed(_value(*_stored(np.asarray(x), dtype))), params)


def dumps(params: Any, dtype: str = "float32") -> bytes:
    """Parameters as a safetensors file, of one of `DTYPES`.

    int8: every row of a matrix in steps of 1/127 of its largest number; vectors stay float32.
    """
    flat = {}
    for path, x in _flat(params).items():
        numbers, scale = _stored(np.asarray(x), dtype)
        flat[path] = np.ascontiguousarray(numbers)
        if scale is not None:
            flat[path + SCALE] = np.ascontiguousarray(scale)
    return safetensors.numpy.save(flat)


def _stored(x: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    if dtype != "int8":
        return x.astype(jnp.dtype(dtype)), None
    if x.ndim < 2:
        return x, None
    scale = np.abs(x).max(-1, keepdims=True).astype(np.float32) / 127
    steps = np.round(x / np.maximum(scale, np.finfo(np.float32).tiny))
    return np.clip(steps, -127, 127).astype(np.int8), scale


def _value(numbers: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
    whole = numbers.astype(np.float32, copy=False)
    return whole if scale is None else whole * scale


def _fixed(x: np.ndarray) -> np.ndarray:
    view = x.view()
    view.flags.writeable = False
    return view


def read(files: SealedFiles, name: str, config: Config) -> Any:
    """One file -> float32 numpy arrays that nobody writes to.

    `UserError` when it is missing, cut short or not as sealed, has other paths, shapes or dtypes
    than the model, or numbers that no training gives.
    """
    return loads(files.read(name, most_bytes(config)), config, files.folder.path / name)


def loads(data: bytes, config: Config, where: Path) -> Any:
    """The same of a file's bytes."""
    check_header(data, config, where)
    arrays = read_arrays(data, where)
    found = {p: _fixed(_value(arrays[p], arrays.get(p + SCALE))) for p in shapes(config)}
    _check_finite(str(where), found)
    return _nested(found)


def bytes_in_memory(config: Config) -> int:
    """Of one model's parameters in float32."""
    return 4 * sum(math.prod(shape) for shape in shapes(config).values())


def most_bytes(config: Config) -> int:
    """What a file of one model may hold at most."""
    return HEADER_MOST + 2 * bytes_in_memory(config)


def stacked(each: Sequence[Any]) -> Any:
    """Parameters of E experts -> one pytree of float32 [E, ...] on the device; None when E is 0."""
    if not each:
        return None
    # device_put compiles nothing, jnp.asarray a program for every shape.
    return jax.tree.map(lambda *rows: jax.device_put(np.stack(rows)), *each)


def check_header(data: bytes, config: Config, where: Path) -> None:
    """`UserError` unless a file's header lists exactly the model's parameters."""
    header = read_header(data, len(data), where)
    given = {k: (x.shape, x.dtype) for k, x in header.items()}
    scales = {k: given.pop(k) for k in sorted(given) if k.endswith(SCALE)}
    _compare(str(where), {k: shape for k, (shape, _) in given.items()}, config)
    odd = {dtype for _, dtype in given.values()} - _STORED
    if odd:
        raise UserError(f"{where} stores {', '.join(sorted(odd))}: store float32, bfloat16 or int8")
    wanted = {
        k + SCALE: ((*shape[:-1], 1), "F32") for k, (shape, dtype) in given.items() if dtype == "I8"
    }
    if scales != wanted:
        raise UserError(
            f"{where} has int8 numbers without their scales, or scales of another "
            "shape: write the expert again"
        )


@functools.lru_cache
def shapes(config: Config) -> Mapping[str, tuple[int, ...]]:
    """'/'-joined path -> shape of one model's parameters; nothing is allocated.

    `UserError` for sizes that make none: zero, or products that no computer can count.
    """

    def init(key):
        if isinstance(config, LmConfig):
            return language_models.init(config, key)
        return models.init(config, key)

    try:
        tree = jax.eval_shape(init, jax.random.key(0))
    except UserError:
        raise
    except (OverflowError, MemoryError, TypeError, ValueError) as error:
        raise UserError(
            "the model's sizes do not make parameters: use the bank that training wrote"
        ) from error
    return {path: x.shape for path, x in _flat(tree).items()}


def _compare(where: str, given: Mapping[str, tuple[int, ...]], config: Config) -> None:
    wanted = shapes(config)
    kind = "language model" if isinstance(config, LmConfig) else "model"
    for path in sorted({*wanted, *given}):
        if wanted.get(path) != given.get(path):
            raise UserError(
                f"{where}: parameter {path} has shape {given.get(path, 'none')}, the "
                f"bank's {kind} needs {wanted.get(path, 'none')}: use parameters that "
                f"were trained with the bank's {kind} settings"
            )


def _flat(tree) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(tree, sep="/")


def _nested(flat: Mapping[str, Any]) -> Any:
    return flax.traverse_util.unflatten_dict(flat, sep="/")
