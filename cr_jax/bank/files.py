"""The files of a bank: names, checksums, sealed JSON, atomic changes.  Knows no arrays, no JAX.

    bank.json                 sealed; names, tokenizer, model, rules, SHA-256 of everything below
    tokenizer/*               what the tokenizer saved
    experts/NAME/             config.json, params.safetensors, calibration.json, manifest.json;
                              bigram.safetensors, lm.safetensors (where the expert has a bigram
                              model, a language model)
    seed_lm/                  lm.safetensors, manifest.json: the seed of the language models
    cascade.json              sealed; how many experts a cascade scores (cascade_file)

A *sealed* JSON file holds the SHA-256 of its own canonical text, so a changed byte shows there
too.  An expert is written to a hidden folder, renamed into place, and exists only once bank.json
names it: a crash leaves litter, never half an expert.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cr_jax.bank.manifest import (
    EXPERT_FILES,
    FORMAT,
    LM,
    MANIFEST,
    check_files,
    check_sealed,
    read_manifest,
)
from cr_jax.config.names import check_name as check_name  # for the other modules of a bank
from cr_jax.errors import UserError
from cr_jax.files import changed, expanded, read_sealed, sha256, write_sealed
from cr_jax.files import read_json as read_json  # for the other modules of a bank
from cr_jax.files import readable as readable

CASCADE = "cascade.json"
SEED = "seed_lm"


class BankFolder:
    """bank.json and the folders beside it.  Every method raises `UserError` on bad input."""

    def __init__(self, folder: str | os.PathLike):
        self.path = expanded(folder)
        if not os.path.isfile(self.path / "bank.json"):  # pathlib raises for names too long
            raise UserError(
                f"no bank at {self.path}: there is no bank.json; give the folder that "
                "training wrote"
            )
        self.index = read_sealed(self.path / "bank.json")
        fields = {"tokenizer": str, "tokenizer_files": dict, "model": dict, "experts": dict}
        for field, kind in fields.items():
            if not isinstance(self.index.get(field), kind):
                raise UserError(f"{self.path / 'bank.json'} has no {field!r}: write the bank again")
        seed = [(SEED, self.index[SEED])] if SEED in self.index else []
        for name, entry in [*self.index["experts"].items(), *seed]:
            if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
                raise UserError(
                    f"{self.path / 'bank.json'} has no SHA-256 for {name!r}: write the bank again"
                )
            check_name(name)
        if seed and "lm" not in self.index:
            raise UserError(
                f"{self.path / 'bank.json'} names a seed of language models and not their shape: "
                "write the bank again"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The experts in the order in which they were added."""
        return tuple(self.index["experts"])

    def expert(self, name: str) -> Path:
        """The folder of an expert that bank.json names."""
        if name not in self.index["experts"]:
            there = ", ".join(self.names) or "none yet"
            raise UserError(f"the bank {self.path} has no expert {name!r}; it has: {there}")
        return self.path / "experts" / name

    @property
    def seed(self) -> Path | None:
        """The folder of the language models' seed; None where there is none."""
        return self.path / SEED if SEED in self.index else None

    def seals(self, name: str) -> tuple[str, ...]:
        """The SHA-256 of an expert's manifest: two of them while it is being sealed anew."""
        entry = self.index["experts"][name]
        return tuple(entry[key] for key in ("sha256", "resealed") if key in entry)

    def is_current(self) -> bool:
        """Whether bank.json is still what was read."""
        try:
            return read_sealed(self.path / "bank.json") == self.index
        except UserError:
            return True  # what is wrong is wrong with the file, not with its age

    def check_tokenizer(self) -> None:
        """Compares the bytes of tokenizer/ with bank.json."""
        check_files(self.path / "tokenizer", self.index["tokenizer_files"])

    def check_expert(self, name: str, lms: bool = True) -> None:
        """Compares the bytes of one expert's files with its manifest, and that with bank.json.

        lms: its language model too.
        """
        folder = self.expert(name)
        if sha256(folder / MANIFEST) not in self.seals(name):
            raise changed(folder / MANIFEST)
        check_sealed(folder, self.index["tokenizer"], lms)

    def check_seed(self) -> None:
        """The same of the language models' seed, where there is one."""
        if self.seed is not None:
            if sha256(self.seed / MANIFEST) != self.index[SEED]["sha256"]:
                raise changed(self.seed / MANIFEST)
            check_sealed(self.seed, self.index["tokenizer"], needed=())

    def verify(self) -> list[str]:
        """Every problem as one line; an empty list means that each byte is as it was written."""
        problems = []
        experts = (lambda n=n: self.check_expert(n) for n in self.names)
        for check in (self.check_tokenizer, *experts, self.check_seed):
            try:
                check()
            except UserError as error:
                problems.append(str(error))
        known = {self.path / "bank.json", self.path / CASCADE}
        known |= {self.path / "tokenizer" / n for n in self.index["tokenizer_files"]}
        for folder in (self.path / "experts" / n for n in self.names):
            known |= {folder / f for f in (*_listed(folder), MANIFEST)}
        if self.seed is not None:
            known |= {self.seed / f for f in (LM, MANIFEST)}
        problems += [
            f"{path} belongs to no expert of the bank: delete it"
            for path in sorted(self.path.rglob("*"))
            if not path.is_dir() and path not in known
        ]
        return problems

    @contextlib.contextmanager
    def adding(self, name: str) -> Iterator[Path]:
        """`with folder.adding(name) as draft:` write the expert's files into `draft`.

        They become the expert when the block ends without an error; otherwise nothing is left.  Its
        language model, where it is the bank's first, says what all of them look like.
        """
        final = self.path / "experts" / check_name(name)
        draft = final.with_name(f".{name}.{os.getpid()}")
        with writable(self.path):
            try:
                self._check_free(name)
                draft.mkdir(parents=True)
                yield draft
                seal, lm = sha256(draft / MANIFEST), read_manifest(draft).lm
                with self.changing():
                    self._check_free(name)
                    # Not in bank.json: an addition cut short.
                    shutil.rmtree(final, ignore_errors=True)
                    os.rename(draft, final)
                    experts = {**self.index["experts"], name: {"sha256": seal}}
                    shape = {} if lm is None or "lm" in self.index else {"lm": dict(lm)}
                    self.replace({**self.index, **shape, "experts": experts})
            finally:
                shutil.rmtree(draft, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Takes an expert out of bank.json, then deletes its folder; the others are untouched."""
        with writable(self.path), self.changing():
            folder = self.expert(name)
            experts = {k: v for k, v in self.index["experts"].items() if k != name}
            self.replace({**self.index, "experts": experts})
            shutil.rmtree(folder, ignore_errors=True)

    def set_scoring(self, scoring: Mapping[str, Any]) -> None:
        """Stores another description of the rule in bank.json; the experts are untouched."""
        with writable(self.path), self.changing():
            self.replace({**self.index, "scoring": dict(scoring)})

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Reads bank.json anew and keeps other processes from changing it meanwhile."""
        place = os.open(self.path, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(place, fcntl.LOCK_EX)
            self._refresh()
            yield
        finally:
            os.close(place)

    def _check_free(self, name: str) -> None:
        self._refresh()
        if name in self.names:
            raise UserError(
                f"the bank {self.path} already has an expert {name!r}: choose another "
                f"name, or first: cr-jax bank remove --bank {self.path} {name}"
            )

    def _refresh(self) -> None:
        self.index = read_sealed(self.path / "bank.json")  # another process may have added one

    def replace(self, index: Mapping[str, Any]) -> None:
        """Writes another bank.json, in one step; call it inside `changing`."""
        self.index = dict(index)
        write_sealed(self.path / "bank.json", self.index)


def create_folder(
    folder: str | os.PathLike, index: Mapping[str, Any], tokenizer: Any
) -> BankFolder:
    """A bank without experts; index: fields of bank.json (`settings.to_index`).

    `UserError` when `folder` is not empty or cannot be written.
    """
    path = expanded(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} is not an empty folder: choose another place for the bank")
    whole = path.absolute()
    draft = whole.with_name(f".{whole.name}.{os.getpid()}")
    with writable(path):
        try:
            (draft / "tokenizer").mkdir(parents=True)
            (draft / "experts").mkdir()
            tokenizer.save(draft / "tokenizer")
            files = {p.name: sha256(p) for p in sorted((draft / "tokenizer").iterdir())}
            first = {"format": FORMAT, "tokenizer": tokenizer.fingerprint, "tokenizer_files": files}
            write_sealed(draft / "bank.json", {**first, **index, "experts": {}})
            os.replace(draft, path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return BankFolder(path)


def _listed(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(read_manifest(folder).files)
    except UserError:
        return EXPERT_FILES


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns the errors of writing below `path` into a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the bank {path}: {error.strerror}; check its permissions "
            "and the free space"
        ) from error
