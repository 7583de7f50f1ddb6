"""`report.json` and `report.html` on disk."""

import json
from pathlib import Path

from cr_jax.errors import UserError
from cr_jax.host.files import write_whole
from cr_jax.report.page import render
from cr_jax.report.text import plain


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
        write_whole(folder / "report.json", text)
        return write_whole(folder / "report.html", page)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write the report to {folder}: {reason}; choose a folder you can write to"
        ) from error
