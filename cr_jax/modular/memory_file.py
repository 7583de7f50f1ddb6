"""A memory in a folder: sealed, versioned, whole or not there.

    memory.json                     sealed; version, how and by whom it was written, SHA-256
    memory.DIGEST.safetensors       labels, lengths, keys, and latents with corrections, or ids

The data is written first, under a name made of its SHA-256; replacing memory.json then replaces the
memory in one step.  A memory may come from a stranger: no link in the folder is followed, and every
number is checked before it is used.  Not in the paper.
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from cr_jax import config
from cr_jax.bank import ExpertBank
from cr_jax.bank.headers import HEADER_MOST, read_arrays
from cr_jax.errors import UserError
from cr_jax.host import memory as host_memory
from cr_jax.host.files import changed, expanded, readable
from cr_jax.host.inside import Inside
from cr_jax.modular import memory_codes
from cr_jax.modular.memory import Fixes, Memory, narrow
from cr_jax.modular.memory_codes import Codes
from cr_jax.modular.options import LATENTS, MemoryOptions

FORMAT = 2  # of latents, keys and hashes: raise it when any of them changes
INDEX = "memory.json"
_WRITTEN = ("kind", "dtype", "features", "corrections", "limit")  # the rest says how it is read
_MOST = 1 << 40  # bytes: no memory is larger


def save(memory: Memory, folder: str | os.PathLike) -> Path:
    """Writes a memory into a folder, which may be new, empty or hold another memory; -> its path.

    `UserError` when something else is there, or the disk refuses.
    """
    path = expanded(folder)
    data = safetensors.numpy.save({n: np.ascontiguousarray(x) for n, x in _arrays(memory).items()})
    digest = hashlib.sha256(data).hexdigest()
    name = f"memory.{digest[:16]}.safetensors"
    try:
        path.mkdir(parents=True, exist_ok=True)
        with Inside.at(path) as inside:
            there = _free(inside)
            inside.write(name, data)
            inside.write_sealed(INDEX, _index(memory, name, digest))
            for old in there:
                if old.startswith("memory.") and old.endswith(".safetensors") and old != name:
                    inside.delete(old)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path


def check_place(folder: str | os.PathLike) -> None:
    """`UserError`, before a long text is read, where `save` would refuse what stands there."""
    path = expanded(folder)
    if os.path.lexists(path):
        try:
            with Inside.at(path) as inside:
                _free(inside)
        except OSError as error:
            raise _cannot_write(path, error) from error


def load(folder: str | os.PathLike, bank: ExpertBank) -> Memory:
    """The memory of a folder, for the bank that wrote it (`memory_pages.check_fits` compares).

    `UserError` when it is missing, was changed or cut short, is of another version, or does not
    hold what it says.
    """
    path = expanded(folder)
    with readable(path), Inside.at(path) as inside:
        raw = inside.read_sealed(INDEX, FORMAT)
        try:
            options = MemoryOptions(**{n: raw["options"][n] for n in _WRITTEN})
            writers = {str(n): str(x) for n, x in raw["writers"].items()}
            sizes = tuple(int(raw["model"][n]) for n in ("window", "latents", "d_latent"))
            name, digest, fingerprint = raw["data"], str(raw["sha256_of_data"]), raw["tokenizer"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _bad(path) from error
        m = bank.model
        if sizes != (m.window, m.latents, m.d_latent):
            raise UserError(
                f"the memory {path} has windows of {sizes[0]} tokens in {sizes[1]} latents of "
                f"{sizes[2]}, the bank {m.window} in {m.latents} of {m.d_latent}: write it again "
                "with this bank"
            )
        size = inside.stat(str(name)).st_size if inside.is_file(str(name)) else 0
        host_memory.check(size, f"reading {path}", "take a shorter memory")
        data = inside.read(str(name), min(_MOST, size + HEADER_MOST))
    if hashlib.sha256(data).hexdigest() != digest:
        raise changed(path / str(name))
    arrays = read_arrays(data, path / str(name))
    found = _memory(arrays, options, bank, str(fingerprint), writers, path)
    return found


def is_memory(folder: str | os.PathLike) -> bool:
    """Whether a memory's index lies there."""
    return os.path.isfile(os.path.join(folder, INDEX))


def _free(inside: Inside) -> list[str]:
    """The names in a folder that is empty or holds a memory; `UserError` for another."""
    there = [n for n in inside.names() if not n.startswith(".")]
    if there and not _ours(inside):
        raise UserError(f"{inside.path} holds something else than a memory: name another folder")
    return there


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(f"cannot write {path}: {error.strerror}; choose another folder")


def _ours(inside: Inside) -> bool:
    """Whether the folder's index is one of `save`; other programs keep a memory.json too."""
    try:
        raw = inside.read_json(INDEX)
    except UserError:
        return False
    return isinstance(raw, dict) and "sha256_of_data" in raw


def _index(memory: Memory, name: str, digest: str) -> dict[str, Any]:
    model, options = config.to_dict(memory.model), dataclasses.asdict(memory.options)
    return {
        "format": FORMAT,
        "options": {n: options[n] for n in _WRITTEN},
        "model": {n: model[n] for n in ("window", "latents", "d_latent", "vocab_size")},
        "tokenizer": memory.fingerprint,
        "writers": dict(memory.writers),
        "windows": len(memory),
        "data": name,
        "sha256_of_data": digest,
    }


def _arrays(memory: Memory) -> dict[str, np.ndarray]:
    arrays = {"expert": memory.expert, "length": memory.length, "keys": memory.keys}
    if memory.ids is not None:
        return arrays | {"ids": memory.ids}
    return arrays | {
        "numbers": np.asarray(memory.codes.numbers),
        "scale": memory.codes.scale,
        "fix_start": memory.fixes.start,
        "fix_at": memory.fixes.at,
        "fix_ids": memory.fixes.ids,
    }


def _memory(
    arrays: Mapping[str, np.ndarray],
    options: MemoryOptions,
    bank: ExpertBank,
    fingerprint: str,
    writers: Mapping[str, str],
    path: Path,
) -> Memory:
    """What the arrays hold.  `UserError` unless each has the shape, the dtype and the range that
    the options and the model give."""
    if "length" not in arrays or any(not x.ndim for x in arrays.values()):
        raise _bad(path)
    model, count = bank.model, len(arrays["length"])
    place, ids = np.dtype(narrow(model.window)), np.dtype(narrow(model.vocab_size - 1))
    wanted = {
        "expert": ((count,), np.int16),
        "length": ((count,), place),
        "keys": ((count, options.features_of(model.window)), np.uint16),
    }
    if options.kind == LATENTS:
        fixes = len(arrays.get("fix_at", ()))
        shapes = memory_codes.shapes(options.dtype, model.latents, model.d_latent)
        wanted |= {n: ((count, *s), jnp.dtype(t)) for n, (s, t) in shapes.items()}
        wanted |= {
            "fix_start": ((count + 1,), np.uint32),
            "fix_at": ((fixes,), place),
            "fix_ids": ((fixes,), ids),
        }
    else:
        wanted["ids"] = ((count, model.window), ids)
    given = {n: (x.shape, x.dtype) for n, x in arrays.items()}
    if given != {n: (s, np.dtype(t)) for n, (s, t) in wanted.items()}:
        raise _bad(path)
    shared = (options, model, fingerprint, writers, arrays["expert"], arrays["length"])
    least, most = (0, len(writers) - 1) if options.kind == LATENTS else (-1, -1)
    good = (
        _within(arrays["expert"], least, most)
        and _within(arrays["length"], 1, model.window)
        and count <= options.limit
    )
    if options.kind != LATENTS:
        if not (good and _within(arrays["ids"], 0, model.vocab_size - 1)):
            raise _bad(path)
        return Memory(*shared, arrays["keys"], ids=arrays["ids"])
    start, at, fixed = (arrays[n] for n in ("fix_start", "fix_at", "fix_ids"))
    good &= (
        bool(np.isfinite(np.asarray(arrays["numbers"], np.float32)).all())
        and bool(np.isfinite(arrays["scale"]).all())
        and bool((np.diff(start.astype(np.int64)) >= 0).all())
        and (int(start[0]), int(start[-1])) == (0, len(at))
        and _within(at, 0, model.window - 1)
        and _within(fixed, 0, model.vocab_size - 1)
    )
    if not good:
        raise _bad(path)
    codes = Codes(arrays["numbers"], arrays["scale"])
    return Memory(*shared, arrays["keys"], codes, Fixes(start, at, fixed))


def _within(x: np.ndarray, least: int, most: int) -> bool:
    return not x.size or bool(least <= int(x.min()) and int(x.max()) <= most)


def _bad(path: Path) -> UserError:
    return UserError(f"{path} does not hold the memory that it says: write it again")
