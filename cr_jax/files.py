"""Files that are whole or not there: paths as users name them, SHA-256, sealed JSON, the errors of
reading as one line.

A *sealed* JSON file holds the SHA-256 of its own canonical text, so a changed byte shows there
too.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cr_jax.errors import UserError

FORMAT = 1


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks.  `UserError` when it cannot be read."""
    with readable(path), open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Writes `value` and its SHA-256 as canonical JSON, replacing `path` in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(_seal(value))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_sealed(path: Path, version: int = FORMAT) -> dict[str, Any]:
    """What `write_sealed` wrote.  `UserError` when missing, changed, not JSON or of a format
    other than `version`."""
    value = read_json(path)
    inner = {k: v for k, v in value.items() if k != "sha256"} if isinstance(value, dict) else {}
    try:
        same = path.read_bytes() == _seal(inner)
    except (ValueError, OSError, RecursionError):  # NaN, gone since, nested too deeply
        same = False
    if not same:
        raise changed(path)
    if inner.get("format") != version:
        raise UserError(f"{path} has format {inner.get('format')!r}, this version reads {version}: "
                        "upgrade cr_jax or write it again")
    return inner


def _seal(value: Mapping[str, Any]) -> bytes:
    text = lambda v: json.dumps(v, indent=1, allow_nan=False) + "\n"
    digest = hashlib.sha256(text(value).encode()).hexdigest()
    return text({**value, "sha256": digest}).encode()


def read_json(path: Path) -> Any:
    """Parsed JSON.  `UserError` when the file is missing or is not JSON."""
    with readable(path):
        raw = path.read_bytes()
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: restore it from a copy or write it again") from error


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns the errors of reading `path` into a `UserError`."""
    try:
        yield
    except UserError:  # is a ValueError too
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: restore it from a copy or write it again") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL byte, a lone surrogate
        raise UserError(f"{path} is not a file's name: restore it from a copy") from error


def changed(path: Path) -> UserError:
    return UserError(f"{path} was changed or cut short since it was written (its SHA-256 differs): "
                     "restore it from a copy or write it again")


def expanded(path: str | os.PathLike) -> Path:
    """The path that a user means: a `~` or `~NAME` in front is a home folder, everywhere alike.

    Call it where a path enters: settings, flags, source specs, environment variables.  A second
    call changes nothing.
    `UserError` where no such home is known, unless something of that very name is there: a folder
    named `~` is never made.
    """
    given = os.fspath(path)
    name = given.split("/", 1)[0]
    # An empty HOME would make ~/runs the folder /runs.
    known = name != "~" or os.environ.get("HOME") != ""
    whole = os.path.expanduser(given) if known else given
    if given.startswith("~") and whole == given and not os.path.lexists(
            given if name == "~" else name):
        raise UserError(f"{given} names a home folder that is not known here: set HOME, or write "
                        f"the whole path (./{name} for a file of that name)")
    found = Path(whole)
    # What "./~" names must not become a home folder by another call.
    return found.absolute() if found.parts[:1] and found.parts[0].startswith("~") else found
