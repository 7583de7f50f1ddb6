"""Files that are whole or not there: paths as users name them, SHA-256, sealed JSON, the errors of
a disk as one line.

A *sealed* JSON file holds the SHA-256 of its own canonical text, so a changed byte shows there
too.
"""

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cr_jax.errors import UserError, turning

FORMAT = 1
# What a disk says that is full, closed to us, broken or no longer there.
DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file, read in blocks.  `UserError` when it cannot be read."""
    with readable(path), open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Writes `value` and its SHA-256 as canonical JSON, replacing `path` in one step."""
    write_whole(path, sealed(value))


def read_sealed(path: Path, version: int = FORMAT) -> dict[str, Any]:
    """What `write_sealed` wrote.  `UserError` when missing, changed, not JSON or of a format
    other than `version`."""
    with readable(path):
        return parse_sealed(path.read_bytes(), path, version)


def parse_sealed(raw: bytes, path: Path, version: int = FORMAT) -> dict[str, Any]:
    """The same of bytes that were read from `path`."""
    value = parse_json(raw, path)
    inner = {k: v for k, v in value.items() if k != "sha256"} if isinstance(value, dict) else {}
    try:
        same = raw == sealed(inner)
    except (ValueError, RecursionError):  # NaN, nested too deeply
        same = False
    if not same:
        raise changed(path)
    if inner.get("format") != version:
        raise UserError(
            f"{path} has format {inner.get('format')!r}, this version reads {version}: "
            "upgrade cr_jax or write it again"
        )
    return inner


def sealed(value: Mapping[str, Any]) -> bytes:
    """Canonical JSON of `value` and of the SHA-256 of its own canonical JSON."""
    text = lambda v: json.dumps(v, indent=1, allow_nan=False) + "\n"
    digest = hashlib.sha256(text(value).encode()).hexdigest()
    return text({**value, "sha256": digest}).encode()


def read_json(path: Path) -> Any:
    """Parsed JSON.  `UserError` when the file is missing or is not JSON."""
    with readable(path):
        return parse_json(path.read_bytes(), path)


def parse_json(raw: bytes, path: Path) -> Any:
    """Parsed JSON of bytes that were read from `path`.  `UserError` when they are none."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: restore it from a copy or write it again") from error


def readable(path: Path) -> turning:
    """`with readable(path):` turns the errors of reading `path` into a `UserError`."""

    def told(error: BaseException) -> UserError | None:
        if isinstance(error, UserError):  # is a ValueError too
            return None
        if isinstance(error, FileNotFoundError):
            return UserError(f"{path} is missing: restore it from a copy or write it again")
        if isinstance(error, OSError):
            return UserError(f"{path} cannot be read: {error.strerror}")
        if isinstance(error, ValueError):  # a NUL byte, a lone surrogate
            return UserError(f"{path} is not a file's name: restore it from a copy")
        return None

    return turning(told)


def changed(path: Path) -> UserError:
    return UserError(
        f"{path} was changed or cut short since it was written (its SHA-256 differs): "
        "restore it from a copy or write it again"
    )


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
    if (
        given.startswith("~")
        and whole == given
        and not os.path.lexists(given if name == "~" else name)
    ):
        raise UserError(
            f"{given} names a home folder that is not known here: set HOME, or write "
            f"the whole path (./{name} for a file of that name)"
        )
    place = Path(whole)
    # What "./~" names must not become a home folder by another call.
    return place.absolute() if place.parts[:1] and place.parts[0].startswith("~") else place


def write_whole(path: str | os.PathLike, data: str | bytes) -> Path:
    """Writes bytes, or text as UTF-8, beside `path`, then renames: all of it or nothing.

    The name beside it is new, so a link that lies there is never followed.  Modes are the umask's.
    Raises `OSError`; what was at `path` is then as it was.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}")
    try:
        with open(draft, "xb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return path


def fresh_folder(parent: str | os.PathLike, prefix: str) -> Path:
    """Makes a folder in `parent` that nobody else uses.

    Unlike `tempfile.mkdtemp`'s, its mode is the umask's: it can be renamed to what others read.
    Raises `OSError`.
    """
    while True:
        folder = Path(parent) / f"{prefix}{secrets.token_hex(8)}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder


def give_usual_mode(path: str | os.PathLike) -> None:
    """Gives a file that a library made for its owner alone the mode of any new file here.

    Raises `OSError`.
    """
    probe = Path(path).with_name(f".mode.{secrets.token_hex(8)}")
    try:
        with open(probe, "xb") as stream:
            mode = os.fstat(stream.fileno()).st_mode & 0o777
    finally:
        probe.unlink(missing_ok=True)
    os.chmod(path, mode)


def refusal(error: BaseException | None) -> str | None:
    """What the disk said, if it did: Python's words, or TensorStore's within its long ones."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return os.strerror(error.errno)
        for code in DISK_ERRORS:
            if os.strerror(code) in str(error):
                return os.strerror(code)
        error = error.__cause__ or error.__context__
    return None
