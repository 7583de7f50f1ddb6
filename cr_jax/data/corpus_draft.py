"""A corpus in the making: it grows chunk by chunk, and goes on where a kill stopped it.

Ids are appended to `tokens.npy`; then the journal gets a line with the chunk's SHA-256, the tokens
and the name of each of its documents, and what the sources left out so far.  A chunk counts once
its line is whole and its ids are what the line says; what comes after the last such chunk is cut
off.
"""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cr_jax.data.encoding import Encoded
from cr_jax.host.files import fresh_folder
from cr_jax.host.inside import is_draft

TOKENS, STARTS, NOTE = "tokens.npy", "starts.npy", "corpus.json"
FILES = (TOKENS, STARTS, NOTE)
_JOURNAL = "journal.jsonl"
STALE = 7 * 86_400  # seconds without a change, after which nobody writes there any more


class Draft:
    """`with Draft(folder, dtype) as draft:` reads what is finished; `add` appends to it.

    OSError when the folder cannot be read or written.
    """

    def __init__(self, folder: Path, dtype: np.dtype):
        self.folder, self.dtype = folder, dtype
        self.starts, self.names, self.bytes, self.left_out = [0], [], 0, ""

    @property
    def total(self) -> int:
        """Tokens so far."""
        return self.starts[-1]

    def __enter__(self) -> "Draft":
        with contextlib.ExitStack() as stack:
            paths = (self.folder / TOKENS, self.folder / _JOURNAL)
            for path in paths:
                os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666))
            self._tokens, self._journal = (stack.enter_context(open(p, "r+b")) for p in paths)
            head = _header(self.dtype, 0)
            good = 0
            self._tokens.seek(len(head))
            while self._take(line := self._journal.readline()):
                good += len(line)
            self._journal.seek(good)
            self._journal.truncate()
            self._tokens.truncate(len(head) + self.total * self.dtype.itemsize)
            self._tokens.seek(0)
            # The header is padded for any length, so the right one fits over this one at the end.
            self._tokens.write(head)
            self._tokens.seek(0, os.SEEK_END)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_) -> None:
        self._open.close()

    def add(self, part: Encoded) -> None:
        """Appends a chunk."""
        data = part.tokens.tobytes()
        self._tokens.write(data)
        self._tokens.flush()
        chunk = json.dumps(
            {
                "sha256": hashlib.sha256(data).hexdigest(),
                "bytes": part.bytes,
                "lengths": part.lengths.tolist(),
                "names": list(part.names),
                "left_out": part.left_out,
            }
        ).encode()
        self._journal.write(hashlib.sha256(chunk).hexdigest().encode() + b" " + chunk + b"\n")
        self._journal.flush()
        self._count(json.loads(chunk))

    def finish(self, key: str) -> None:
        """Writes the header, the starts and the note; the folder then is a corpus."""
        self._tokens.seek(0)
        self._tokens.write(_header(self.dtype, self.total))
        self._open.close()
        np.save(self.folder / STARTS, np.array(self.starts, np.int64))
        sums = {name: file_sum(self.folder / name) for name in (TOKENS, STARTS)}
        note = {
            "key": key,
            "bytes": self.bytes,
            "sha256": sums,
            "names": self.names,
            "left_out": self.left_out,
        }
        (self.folder / NOTE).write_text(
            json.dumps(note, ensure_ascii=False), "utf-8", "surrogatepass"
        )
        for path in self.folder.iterdir():
            if path.name not in FILES:
                path.unlink()

    def _take(self, line: bytes) -> bool:
        """Whether a line of the journal and the ids that follow are whole; counts them."""
        digest, _, chunk = line.rstrip(b"\n").partition(b" ")
        if not line.endswith(b"\n") or hashlib.sha256(chunk).hexdigest().encode() != digest:
            return False
        note = json.loads(chunk)
        data = self._tokens.read(sum(note["lengths"]) * self.dtype.itemsize)
        if hashlib.sha256(data).hexdigest() != note["sha256"]:
            return False
        self._count(note)
        return True

    def _count(self, chunk: dict[str, Any]) -> None:
        for length in chunk["lengths"]:
            self.starts.append(self.starts[-1] + length)
        self.names += chunk["names"]
        self.bytes += chunk["bytes"]
        self.left_out = chunk["left_out"]


def _header(dtype: np.dtype, length: int) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        out,
        {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)},
    )
    return out.getvalue()


def file_sum(path: Path) -> str:
    """Hex SHA-256; OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked_folder(path: Path, wait: bool = True) -> Iterator[Path]:
    """`path`, made if need be, for this process alone while the block runs.

    Another process may rename or delete it at the end of its own turn.  Where the file system has
    no locks, a new folder beside `path`, which is deleted at the end.  BlockingIOError when it is
    taken and `wait` is False; other OSErrors as the system gives them.
    """
    while True:
        path.mkdir(parents=True, exist_ok=True)
        place = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            try:
                fcntl.flock(place, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise
            except OSError:
                with contextlib.suppress(OSError):
                    path.rmdir()
                _sweep(path)
                own = fresh_folder(path.parent, f"{path.name}.")
                try:
                    yield own
                finally:
                    shutil.rmtree(own, ignore_errors=True)
                return
            if _same(path, place):
                yield path
                return
        finally:
            os.close(place)


def _sweep(path: Path) -> None:
    """Deletes folders that killed processes left beside `path` where there are no locks."""
    oldest = time.time() - STALE
    for name in os.listdir(path.parent):
        left = path.with_name(name)
        with contextlib.suppress(OSError):
            if is_draft(name, path.name[1:]) and left.lstat().st_mtime < oldest:
                shutil.rmtree(left)


def _same(path: Path, place: int) -> bool:
    """Whether the open folder still has that name."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(place))
    except FileNotFoundError:
        return False
