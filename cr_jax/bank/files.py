"""The files of a bank: names, checksums, sealed JSON, atomic changes.  Knows no arrays, no JAX.

    bank.json                 sealed; names, tokenizer, model, rules, SHA-256 of everything below
    tokenizer/*               what the tokenizer saved
    experts/NAME/             config.json, params.safetensors, calibration.json, manifest.json;
                              bigram.safetensors, lm.safetensors (where the expert has a bigram
                              model, a language model)
    seed_lm/                  lm.safetensors, manifest.json: the seed of the language models
    cascade.json              sealed; how many experts a cascade scores (cascade_file)
    screen.json               sealed; where bigram models decide without the experts (screen_file)
    own_documents.json        sealed; how far experts lead on their own documents
                              (own_documents_file)
    .lock                     held by whoever changes the bank
    aside/                    what was in the way of a change and is not the bank's (removal)

A *sealed* JSON file holds the SHA-256 of its own canonical text, so a changed byte shows there
too.  An expert is written to a hidden folder, renamed into place, and exists only once bank.json
names it: a crash leaves litter, never half an expert.  A bank may come from a stranger: all below
its folder is opened by `cr_jax.host.inside`, which follows no link.
"""

import contextlib
import hashlib
import os
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from absl import logging

from cr_jax.bank import removal, verifying
from cr_jax.bank.manifest import MANIFEST, SealedFiles, read_manifest
from cr_jax.bank.removal import CASCADE as CASCADE
from cr_jax.bank.removal import EXPERTS, INDEX
from cr_jax.bank.removal import OWN as OWN
from cr_jax.bank.removal import SCREEN as SCREEN
from cr_jax.bank.removal import SEED as SEED
from cr_jax.bank.removal import TOKENIZER as TOKENIZER
from cr_jax.config.names import check_name as check_name  # for the other modules of a bank
from cr_jax.errors import UserError, printable, turning
from cr_jax.host.files import changed, expanded, parse_sealed
from cr_jax.host.files import read_json as read_json  # for the other modules of a bank
from cr_jax.host.files import read_sealed as read_sealed
from cr_jax.host.files import readable as readable
from cr_jax.host.files import sha256 as sha256
from cr_jax.host.files import write_sealed as write_sealed
from cr_jax.host.inside import JSON_MOST, Inside, bounded, draft_name
from cr_jax.host.locks import exclusive, wait_until_free

WAIT = 60.0  # seconds for which others may change a bank
REPLACED = ".old"  # behind the name of a bank while a run puts another one in its place
TOKENIZER_MOST = 1 << 26  # bytes of one of its files
_SWAP = 5.0  # seconds that this may take
_TRIES = 100  # readings of a bank that changes all the time, all but the first few beside no writer
_UNLOCKED = 3
T = TypeVar("T")


class CannotWrite(UserError):
    """A bank could not be written: nothing is wrong with what is there."""


class BankFolder:
    """bank.json and the folders beside it.  Every method raises `UserError` on bad input.

    One object reads one folder, also when its path leads to another one by now (`is_current`).
    notes: lines about what a change set aside or could not delete.
    """

    def __init__(self, folder: str | os.PathLike):
        self.path, self.notes = expanded(folder), list[str]()
        self._close: Callable[[], object] = lambda: None
        self._use(_found(self.path))

    def _use(self, inside: Inside) -> None:
        path = self.path / INDEX
        with readable(path):
            # Open as long as this object lives, so that no other file can have its number.
            opened = inside.open(INDEX)
        self._close()
        self._opened, self._close = opened, weakref.finalize(self, os.close, opened)
        with readable(path), open(opened, "rb", closefd=False) as stream:
            raw = bounded(stream, JSON_MOST, path)
        self.index, self.inside = _checked(parse_sealed(raw, path), path), inside

    @property
    def names(self) -> tuple[str, ...]:
        """The experts in the order in which they were added."""
        return tuple(self.index["experts"])

    def expert(self, name: str) -> Path:
        """The path of an expert that bank.json names."""
        if name not in self.index["experts"]:
            there = ", ".join(self.names) or "none yet"
            raise UserError(f"the bank {self.path} has no expert {name!r}; it has: {there}")
        return self.path / EXPERTS / name

    def open_expert(self, name: str) -> Inside:
        """Its folder."""
        self.expert(name)
        with self.inside.folder(EXPERTS) as experts:
            return experts.folder(name)

    @property
    def seed(self) -> Path | None:
        """The path of the language models' seed; None where there is none."""
        return self.path / SEED if SEED in self.index else None

    def sealed_expert(self, name: str) -> SealedFiles:
        """The files of an expert, to be compared with its manifest, which is compared with
        bank.json."""
        folder = self.open_expert(name)
        files = SealedFiles(folder, read_manifest(folder, seals=self.seals(name)))
        files.check_fingerprint(self.index["tokenizer"])
        return files

    def sealed_seed(self, verify: bool = True) -> SealedFiles | None:
        """The same of the language models' seed, where there is one; verify: compare."""
        if self.seed is None:
            return None
        folder, seals = self.inside.folder(SEED), (self.index[SEED]["sha256"],)
        files = SealedFiles(folder, read_manifest(folder, (), seals if verify else None), verify)
        if verify:
            files.check_fingerprint(self.index["tokenizer"])
        return files

    def seals(self, name: str) -> tuple[str, ...]:
        """The SHA-256 of an expert's manifest: two of them while it is being sealed anew."""
        entry = self.index["experts"][name]
        return tuple(entry[key] for key in ("sha256", "resealed") if key in entry)

    def is_current(self) -> bool:
        """Whether the path still leads to the bank.json that was read."""
        try:
            return os.path.samestat(os.lstat(self.path / INDEX), os.fstat(self._opened))
        except OSError:
            return False

    def tokenizer_file(self, name: str) -> bytes:
        """A file of the tokenizer.  `UserError` unless it has the SHA-256 of bank.json."""
        data = self.inside.folder(TOKENIZER).read(name, TOKENIZER_MOST)
        if hashlib.sha256(data).hexdigest() != self.index["tokenizer_files"].get(name):
            raise changed(self.path / TOKENIZER / name)
        return data

    def verify(self) -> list[str]:
        """Every problem as one line; an empty list means that each byte is as it was written.

        What is found beside a process that changes the bank is looked for again after it.
        """
        found = verifying.problems(self)
        for _ in range(_TRIES):
            if not found:
                break
            with self.quiet() as alone:
                again, found = found, verifying.problems(self)
            if alone or again == found:
                break
        return found

    @contextlib.contextmanager
    def adding(self, name: str) -> Iterator[Inside]:
        """`with folder.adding(name) as draft:` write the expert's files into `draft`.

        They become the expert when the block ends without an error; otherwise nothing is left.  Its
        language model, where it is the bank's first, says what all of them look like.
        """
        check_name(name)
        with writable(self.path), self.changing():
            self.check_free(name)
            hidden = draft_name(name)
            with self.inside.folder(EXPERTS) as experts, experts.new_folder(hidden) as draft:
                try:
                    yield draft
                    seal, lm = draft.sha256(MANIFEST), read_manifest(draft).lm
                    if experts.has(name):  # not in bank.json
                        self.notes.append(removal.set_aside(self.inside, experts, name))
                    experts.rename(hidden, name)
                    try:
                        entries = {**self.index["experts"], name: {"sha256": seal}}
                        shape = {} if lm is None or "lm" in self.index else {"lm": dict(lm)}
                        self.replace({**self.index, **shape, "experts": entries})
                    except BaseException:
                        experts.rename(name, hidden)
                        raise
                finally:
                    removal.delete_draft(experts, hidden)

    def remove(self, name: str) -> None:
        """Takes an expert out of bank.json, then deletes its files; the others are untouched."""
        with writable(self.path), self.changing():
            self.expert(name)
            seals = self.seals(name)
            experts = {k: v for k, v in self.index["experts"].items() if k != name}
            self.replace({**self.index, "experts": experts})
            self.notes += removal.delete_expert(self.inside, name, seals)

    def set_scoring(self, scoring: Mapping[str, Any]) -> None:
        """Stores another description of the rule in bank.json; the experts are untouched."""
        with writable(self.path), self.changing():
            self.replace({**self.index, "scoring": dict(scoring)})

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Reads bank.json anew and keeps other processes from changing it meanwhile.  `OSError`
        where the bank cannot be written."""
        with self._locked(waiting=False):
            removal.sweep(self.inside)
            yield

    @contextlib.contextmanager
    def quiet(self) -> Iterator[bool]:
        """Reads bank.json anew beside nobody who changes the bank; gives False where that can only
        be waited for, because we may not write there."""
        with self._locked(waiting=True) as alone:
            yield alone

    @contextlib.contextmanager
    def _locked(self, waiting: bool) -> Iterator[bool]:
        """waiting: do without the lock where it cannot be written; gives whether it is held."""
        while True:
            inside, alone = _found(self.path), True
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(exclusive(inside, WAIT, busy(self.path)))
                except OSError:
                    if inside.still_there() and not waiting:
                        raise
                    wait_until_free(inside, WAIT, busy(self.path))
                    alone = False
                if not inside.still_there():  # a run has put another bank here
                    continue
                self._use(inside)
                yield alone
                return

    def check_free(self, name: str) -> None:
        """`UserError` for the name of an expert that is there."""
        if name in self.names:
            raise UserError(
                f"the bank {self.path} already has an expert {name!r}: choose another "
                f"name, or first: cr-jax bank remove --bank {self.path} {name}"
            )

    def tell(self) -> None:
        """Logs the notes."""
        for note in self.notes:
            logging.warning("%s", printable(note))

    def replace(self, index: Mapping[str, Any]) -> None:
        """Writes another bank.json, in one step; call it inside `changing`."""
        self.inside.write_sealed(INDEX, index)
        self._use(self.inside)


def consistent(folder: str | os.PathLike, read: Callable[[BankFolder], T]) -> T:
    """`read(BankFolder(folder))`, again where the bank was changed while it was read."""
    for attempt in range(_TRIES):
        files = BankFolder(folder)
        with files.quiet() if attempt >= _UNLOCKED else contextlib.nullcontext():
            try:
                return read(files)
            except UserError:
                if files.is_current():
                    raise
    raise UserError(f"the bank {folder} changes all the time: try again when nobody writes to it")


def busy(path: Path) -> str:
    """What is said to who would change it, too."""
    return f"another process is changing the bank {path}"


def _found(path: Path) -> Inside:
    """The open folder of a bank.  Waits while a run puts another one in its place."""
    deadline, named = time.monotonic() + _SWAP, path.absolute()  # "." has no name of its own
    old = named.with_name(named.name + REPLACED) if named.name else None
    while True:
        with contextlib.suppress(OSError, ValueError):  # also names that are too long or none
            inside = Inside.at(path)
            if inside.has(INDEX):
                return inside
        if old is None or not os.path.isdir(old):
            how = "give the folder that training wrote"
            if os.path.isfile(path / "shared" / INDEX) or os.path.isfile(path / "expert.json"):
                how = f"it was exported: cr-jax bank import --bank NEW {path}"
            raise UserError(f"no bank at {path}: there is no bank.json; {how}")
        if time.monotonic() > deadline:
            raise UserError(
                f"no bank at {path}: a run was stopped while it put a new one there; run the same "
                f"command again, or rename {old} to {path}"
            )
        time.sleep(0.01)


def _checked(index: dict[str, Any], path: Path) -> dict[str, Any]:
    """`UserError` for what is no bank.json."""
    fields = {"tokenizer": str, "tokenizer_files": dict, "model": dict, "experts": dict}
    for field, kind in fields.items():
        if not isinstance(index.get(field), kind):
            raise UserError(f"{path} has no {field!r}: write the bank again")
    seed = [(SEED, index[SEED])] if SEED in index else []
    for name, entry in [*index["experts"].items(), *seed]:
        if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
            raise UserError(f"{path} has no SHA-256 for {name!r}: write the bank again")
        check_name(name)
    if seed and "lm" not in index:
        raise UserError(
            f"{path} names a seed of language models and not their shape: write the bank again"
        )
    return index


def writable(path: Path) -> turning:
    """`with writable(path):` turns the errors of writing below `path` into a `UserError`."""
    return turning(
        lambda error: CannotWrite(
            f"cannot write the bank {path}: {error.strerror}; check its permissions "
            "and the free space"
        ),
        OSError,
    )
