"""The files of one checkpoint step: what restoring it opens, and what they hash to.

Orbax merges what the processes wrote into one key-value store, state/manifest.ocdbt.  Where its
listing of a folder fails or finds nothing it leaves that out without a word, and restoring then
says that arrays are missing: so the store is opened here before a step is trusted.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import tensorstore

from cr_jax.host.files import sha256

PARTS = ("state/manifest.ocdbt", "state/_METADATA", "iterator/metadata", "record/metadata")
_OWN = "ocdbt.process_"  # folders of what each process wrote
_ARRAY = "/.zarray"  # the key that holds an array's shape


def numbers(names) -> list[int]:
    """Those of `names` that are step numbers, in order."""
    return sorted(int(name) for name in names if re.fullmatch("[0-9]{1,18}", name))


def hash_files(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below `folder`; {} where there is no folder.

    Raises `OSError` for a folder that cannot be listed, `UserError` for a file that cannot be read.
    """
    hashes = {}
    for place, _, names in os.walk(folder, onerror=_unless_missing):
        for name in names:
            path = Path(place, name)
            if path.is_file():
                hashes[str(path.relative_to(folder))] = sha256(path)
    return dict(sorted(hashes.items()))


def incomplete(folder: Path) -> str:
    """Why a step cannot be restored; "" when all that a restore opens is there and opens."""
    for name in PARTS:
        if not (folder / name).is_file():
            return f"{name} is missing"
    try:
        for name in ("iterator/metadata", "record/metadata"):
            json.loads((folder / name).read_bytes())
        state = folder / "state"
        merged, shapes = set(_keys(_opened(state))), stored_shapes(folder)
        for name in sorted(os.listdir(state)):
            if name.startswith(_OWN) and not merged.issuperset(_keys(_opened(state / name))):
                return f"arrays of state/{name} are not in state/manifest.ocdbt"
    except (OSError, ValueError, KeyError) as error:
        return f"it cannot be opened: {_line(error)}"
    return "" if shapes else "state holds no arrays"


def stored_shapes(folder: Path) -> Mapping[str, tuple[int, ...]]:
    """Array name -> shape in a step's state.  Raises `ValueError` where it cannot be opened."""
    store = _opened(folder / "state")
    names = [key for key in _keys(store) if key.endswith(_ARRAY)]
    reads = [store.read(name) for name in names]
    return {
        name.removesuffix(_ARRAY): tuple(json.loads(read.result().value)["shape"])
        for name, read in zip(names, reads, strict=True)
    }


def _opened(folder: Path):
    base = {"driver": "file", "path": f"{folder}/"}
    return tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()


def _keys(store) -> list[str]:
    return [key.decode() for key in store.list().result()]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
