"""`report.json` and `report.html` on disk."""

import json
import math
import os
import tempfile
from pathlib import Path

import numpy as np

from cr_jax.errors import UserError
from cr_jax.report.page import render


def plain(value: object) -> object:
    """`value` with numpy scalars and arrays as Python ones and non-finite floats as None.

    JSON has no NaN or infinity; strict readers refuse a file that holds them.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    return str(value)


def write_report(report: dict, folder: Path) -> Path:
    """Write `folder`/report.json (sorted keys, floats exact) and `folder`/report.html.

    Returns the path of the page. Each file appears whole or not at all. Non-finite floats become
    null in the JSON. Raises UserError where the folder cannot be written.
    """
    folder = Path(folder)
    text = json.dumps(plain(report), sort_keys=True, indent=1, allow_nan=False) + "\n"
    page = render(report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "report.json", text)
        return _write(folder / "report.html", page)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write the report to {folder}: {reason}; choose a folder you can write to"
        ) from error


def _write(path: Path, text: str) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(name, 0o666 & ~_umask())  # mkstemp's 0600 would hide the page from colleagues
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
