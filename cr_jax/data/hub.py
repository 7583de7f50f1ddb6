"""Data sets of Hugging Face: folders that were saved with `datasets`, and streams of the Hub.

Not in the paper.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cr_jax.errors import UserError

_STATE, _DICT = "state.json", "dataset_dict.json"


def saved_files(target: str) -> list[tuple[Path, str]] | None:
    """The Arrow streams of a folder that `save_to_disk` wrote, with names that do not depend on
    where it lies; None where `target` is no folder, and so a data set of the Hub.

    `UserError` for a folder of several splits, one that holds no data set, or a damaged one.
    """
    folder = Path(target)
    if not folder.is_dir():
        if os.path.lexists(folder):
            raise UserError(f"hf:{target} is a file; name the folder that save_to_disk wrote")
        return None
    if (folder / _DICT).is_file():
        splits = _read(folder / _DICT, lambda note: [str(name) for name in note["splits"]])
        raise UserError(
            f"hf:{target} holds the splits {', '.join(splits)}; name one, as in "
            f"hf:{folder / splits[0] if splits else target}"
        )
    if not (folder / _STATE).is_file():
        raise UserError(
            f"hf:{target} holds no data set that save_to_disk wrote: it has no {_STATE}; other "
            "files have sources of their own, such as parquet:PATH"
        )
    names = _read(folder / _STATE, lambda note: [part["filename"] for part in note["_data_files"]])
    for name in names:
        if not isinstance(name, str) or name != os.path.basename(name) or name in ("", ".", ".."):
            raise UserError(f"{folder / _STATE} names {name!r}, which is no file of its folder")
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: copy the data set again")
    return [(folder / name, f"{folder.name}/{name}") for name in names]


def streamed(target: str) -> Iterator[Mapping[str, Any]]:
    """Yields the examples of `NAME/SPLIT` as the package `datasets` streams them, none stored.

    NAME is that of the Hub, `OWNER/NAME` or `OWNER/NAME/CONFIG`, or a folder that `datasets` reads.
    `UserError` when `datasets` is missing, or finds no such data set.
    """
    name, config, split = _parts(target)
    try:
        yield from _datasets(target).load_dataset(name, config, split=split, streaming=True)
    except UserError:
        raise
    except Exception as error:  # of the network, of many formats and of the package itself
        raise _failed(target, error) from None


def identity(target: str) -> str:
    """What names the bytes of a streamed data set: its configuration and its files' versions."""
    name, config, split = _parts(target)
    try:
        builder = _datasets(target).load_dataset_builder(name, config)
    except UserError:
        raise
    except Exception as error:
        raise _failed(target, error) from None
    return json.dumps([name, config, split, builder.config_id, builder.hash])


def _parts(target: str) -> tuple[str, str | None, str]:
    name, _, split = target.rpartition("/")
    if not name or not split:
        raise UserError(
            f"data source hf:{target} is no folder here; of the Hub it must be hf:NAME/SPLIT, "
            "hf:OWNER/NAME/SPLIT or hf:OWNER/NAME/CONFIG/SPLIT"
        )
    parts = name.split("/")
    if os.path.isdir(name) or len(parts) < 3:
        return name, None, split
    if len(parts) == 3 and all(parts):
        return "/".join(parts[:2]), parts[2], split
    raise UserError(f"data source hf:{target}: there is no such folder; check the path")


def _datasets(target: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"data source hf:{target} is no folder here, and the Hub is read with the package "
            "datasets: install cr_jax[hub], or give a folder that save_to_disk wrote"
        ) from None
    return datasets


def _failed(target: str, error: Exception) -> UserError:
    lines = str(error).strip().splitlines()
    return UserError(
        f"data source hf:{target} cannot be read: {lines[0] if lines else type(error).__name__}"
    )


def _read(path: Path, pick: Any) -> Any:
    try:
        return pick(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{path} is damaged: copy the data set again") from None
