"""Unknown documents on disk until their domain has an expert: each once, by the hash of its text.

    BUFFER/buffer.json          sealed: the tokenizer, and the experts that the bank had
    BUFFER/journal.jsonl        what was seen and done
    BUFFER/documents/HASH.txt   unknown documents, UTF-8 in the bank's text form
    BUFFER/found/NAME.*.jsonl   the text of a new domain (train, valid) while its expert is trained
    BUFFER/training/NAME/       checkpoints of that training

A document's name is the SHA-256 of its text, so a changed byte shows.  Files are written beside
their place and renamed into it.  Not in the paper.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cr_jax.bank.files import BankFolder, check_name
from cr_jax.bank.manifest import read_manifest
from cr_jax.bank.parameters import FILE
from cr_jax.continual.journal import Journal, cannot_write
from cr_jax.data.records import MOST_BYTES
from cr_jax.errors import UserError, turning
from cr_jax.host.files import FORMAT, expanded
from cr_jax.host.inside import Inside
from cr_jax.host.locks import exclusive

NOTE, DOCUMENTS, FOUND, TRAINING = "buffer.json", "documents", "found", "training"
_FOUND = re.compile(r"(.+)\.(?:train|valid)\.jsonl")


def key_of(text: str) -> str:
    """The SHA-256 (hex) of a document's text.  `UserError` for half a character."""
    try:
        return hashlib.sha256(text.encode("utf-8")).hexdigest()
    except UnicodeEncodeError:
        raise UserError("the text holds a lone surrogate, which is not UTF-8 text") from None


class Buffer:
    """The documents and the journal of one bank's growth; `dry`: nothing is written."""

    def __init__(self, path: Path, folder: Inside | None, dry: bool):
        self.path, self.dry = path, dry
        self.journal = Journal(folder, dry)
        self._folder, self._held = folder, dict[str, str]()

    def put(self, key: str, text: str) -> None:
        """Keeps a document.  `CannotWrite` where the disk refuses."""
        if self.dry:
            self._held[key] = text
            return
        with _disk(self.path / DOCUMENTS), self._documents() as folder:
            folder.write(f"{key}.txt", text.encode("utf-8"))

    def text(self, key: str) -> str:
        """A document that is kept.  `UserError` where it is missing or was changed."""
        if key in self._held:
            return self._held[key]
        with self._documents() as folder:
            data = folder.read(f"{key}.txt", MOST_BYTES)
        if hashlib.sha256(data).hexdigest() != key:
            raise UserError(
                f"{self.path / DOCUMENTS / key}.txt was changed since it was written: restore it "
                "from a copy"
            )
        return data.decode("utf-8")

    def drop(self, keys: Iterable[str]) -> None:
        """Deletes documents; those that are gone already are well, too."""
        if self.dry:
            return
        with _disk(self.path / DOCUMENTS), self._documents() as folder:
            for key in keys:
                folder.delete(f"{key}.txt")

    def sweep(self, kept: Iterable[str], pending: str) -> None:
        """Deletes what a killed process left: drafts, documents that the journal let go, and what
        experts were trained from and in, but the pending one.  Files that the buffer would not
        write are left alone.  `UserError` where a folder of the buffer's is a link."""
        if self.dry:
            return
        assert self._folder is not None
        if self._folder.has(TRAINING):
            self._folder.folder(TRAINING)  # checkpoints are not to be written elsewhere
        kept = set(kept)
        with _disk(self.path / FOUND), self._sub(FOUND) as folder:
            folder.sweep()
            found = folder.names()
        for name in found:
            if (expert := _expert(name)) not in (None, pending):
                self.drop_found(expert)
        with _disk(self.path / DOCUMENTS), self._documents() as folder:
            folder.sweep()
            for name in folder.names():
                if len(name) == 68 and name.endswith(".txt") and name[:-4] not in kept:
                    folder.delete(name)

    def write_found(self, name: str, texts: Iterable[str], split: str = "train") -> Path:
        """Writes text of a new domain, whole; -> the file, JSON lines."""
        assert self._folder is not None
        lines = b"".join(json.dumps({"text": t}).encode() + b"\n" for t in texts)
        with _disk(self.path / FOUND), self._sub(FOUND) as folder:
            folder.write(f"{name}.{split}.jsonl", lines)
        return self.path / FOUND / f"{name}.{split}.jsonl"

    def drop_found(self, name: str) -> None:
        """Deletes a mounted domain's text and the checkpoints of its training."""
        with _disk(self.path / TRAINING), self._sub(TRAINING) as folder:
            _delete(folder, name)
        with _disk(self.path / FOUND), self._sub(FOUND) as folder:
            for split in ("train", "valid"):  # last: while one is there, `sweep` goes on with it
                folder.delete(f"{name}.{split}.jsonl")

    def _documents(self) -> Inside:
        return self._sub(DOCUMENTS)

    def _sub(self, name: str) -> Inside:
        assert self._folder is not None
        return (
            self._folder.folder(name) if self._folder.has(name) else self._folder.new_folder(name)
        )


def _expert(name: str) -> str | None:
    """Whose text a file of `found` holds; None where the buffer writes no such file."""
    match = _FOUND.fullmatch(name)
    try:
        return check_name(match[1]) if match else None
    except UserError:
        return None


def _delete(folder: Inside, name: str) -> None:
    """Deletes a folder and all in it, a file, or a link and not what it leads to."""
    if not folder.is_folder(name):
        folder.delete(name)
        return
    with folder.folder(name) as inner:
        for one in inner.names():
            _delete(inner, one)
    folder.delete_folder(name)


def _disk(path: Path) -> turning:
    """Turns the errors of a disk into `CannotWrite`."""
    return turning(lambda error: cannot_write(path, error), OSError)


@contextlib.contextmanager
def opened(path: str | os.PathLike, files: BankFolder, dry: bool = False) -> Iterator[Buffer]:
    """`with opened(path, files) as buffer:` the buffer of a bank, made where there is none, held
    against other processes.

    `UserError` when it is another bank's, its tokens would be another tokenizer's, another process
    holds it, or it cannot be written.
    """
    place = expanded(path).resolve()
    with _disk(place):
        if not dry:
            place.mkdir(parents=True, exist_ok=True)
        folder = Inside.at(place) if place.is_dir() else None
    with contextlib.ExitStack() as stack:
        if folder is not None:
            with _disk(place):
                if not dry:
                    busy = f"another process uses the buffer {place}"
                    stack.enter_context(exclusive(folder, 0.0, busy))
                _check(place, folder, files)
                if not dry and not folder.has(NOTE):
                    folder.write_sealed(NOTE, _note(files))
        yield Buffer(place, folder, dry)


def _check(place: Path, folder: Inside, files: BankFolder) -> None:
    if not folder.has(NOTE):
        if strange := [n for n in folder.names() if not n.startswith(".")]:
            raise UserError(f"{place} holds {strange[0]} and is no buffer: name another folder")
        return
    then, now = folder.read_sealed(NOTE), _note(files)
    if not (isinstance(then.get("tokenizer"), str) and isinstance(then.get("experts"), dict)):
        raise UserError(f"{place / NOTE} is damaged: restore it from a copy")
    if then["tokenizer"] != now["tokenizer"]:
        raise UserError(
            f"the buffer {place} is of a bank with another tokenizer: name another folder"
        )
    old: Mapping[str, str] = then["experts"]
    if not any(now["experts"].get(name) == seal for name, seal in old.items()):
        raise UserError(
            f"the buffer {place} is of another bank, with the experts {', '.join(old)}: name "
            "another folder"
        )


def _note(files: BankFolder) -> dict:
    parameters = {n: read_manifest(files.open_expert(n)).files[FILE] for n in files.names}
    return {"format": FORMAT, "tokenizer": files.index["tokenizer"], "experts": parameters}
