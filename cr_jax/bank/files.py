"""The files of a bank: names, checksums, sealed JSON, atomic changes.  Knows no arrays, no JAX.

    bank.json                 sealed; names, tokenizer, model, rules, SHA-256 of everything below
    tokenizer/*               what the tokenizer saved
    experts/NAME/             config.json, params.safetensors, calibration.json, manifest.json,
                              bigram.safetensors (where the expert has a bigram model)
    cascade.json              sealed; how many experts a cascade scores (cascade_file)

A *sealed* JSON file holds the SHA-256 of its own canonical text, so a changed byte shows there
too.  An expert is written to a hidden folder, renamed into place, and exists only once bank.json
names it: a crash leaves litter, never half an expert.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cr_jax.config.names import check_name as check_name  # for the other modules of a bank
from cr_jax.errors import UserError
from cr_jax.files import changed, expanded, read_sealed, sha256, write_sealed
from cr_jax.files import read_json as read_json  # for the other modules of a bank
from cr_jax.files import readable as readable

FORMAT = 1
CASCADE = "cascade.json"
EXPERT_FILES = ("config.json", "params.safetensors", "calibration.json")
BIGRAM = "bigram.safetensors"
_BIGRAMS = (BIGRAM, "scout.safetensors")  # the second is the name of version 0.1


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
        for name, entry in self.index["experts"].items():
            if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
                raise UserError(
                    f"{self.path / 'bank.json'} has no SHA-256 for {name!r}: write the bank again"
                )
            check_name(name)

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

    def check_tokenizer(self) -> None:
        """Compares the bytes of tokenizer/ with bank.json."""
        _check_files(self.path / "tokenizer", self.index["tokenizer_files"])

    def check_expert(self, name: str) -> None:
        """Compares the bytes of one expert's files with its manifest, and that with bank.json."""
        folder = self.expert(name)
        if sha256(folder / "manifest.json") != self.index["experts"][name]["sha256"]:
            raise changed(folder / "manifest.json")
        check_manifest(folder, self.index["tokenizer"])

    def verify(self) -> list[str]:
        """Every problem as one line; an empty list means that each byte is as it was written."""
        problems = []
        checks = [self.check_tokenizer, *(lambda n=n: self.check_expert(n) for n in self.names)]
        for check in checks:
            try:
                check()
            except UserError as error:
                problems.append(str(error))
        known = {self.path / "bank.json", self.path / CASCADE}
        known |= {self.path / "tokenizer" / n for n in self.index["tokenizer_files"]}
        known |= {
            self.path / "experts" / n / f
            for n in self.names
            for f in (*_listed(self.path / "experts" / n), "manifest.json")
        }
        problems += [
            f"{path} belongs to no expert of the bank: delete it"
            for path in sorted(self.path.rglob("*"))
            if not path.is_dir() and path not in known
        ]
        return problems

    @contextlib.contextmanager
    def adding(self, name: str) -> Iterator[Path]:
        """`with folder.adding(name) as draft:` write the expert's files into `draft`.

        They become the expert when the block ends without an error; otherwise nothing is left.
        """
        final = self.path / "experts" / check_name(name)
        draft = final.with_name(f".{name}.{os.getpid()}")
        with writable(self.path):
            try:
                self._check_free(name)
                draft.mkdir(parents=True)
                yield draft
                seal = sha256(draft / "manifest.json")
                with self._changing():
                    self._check_free(name)
                    # Not in bank.json: an addition cut short.
                    shutil.rmtree(final, ignore_errors=True)
                    os.rename(draft, final)
                    self._replace({**self.index["experts"], name: {"sha256": seal}})
            finally:
                shutil.rmtree(draft, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Takes an expert out of bank.json, then deletes its folder; the others are untouched."""
        with writable(self.path), self._changing():
            folder = self.expert(name)
            self._replace({k: v for k, v in self.index["experts"].items() if k != name})
            shutil.rmtree(folder, ignore_errors=True)

    def set_scoring(self, scoring: Mapping[str, Any]) -> None:
        """Stores another description of the rule in bank.json; the experts are untouched."""
        with writable(self.path), self._changing():
            self.index = {**self.index, "scoring": dict(scoring)}
            write_sealed(self.path / "bank.json", self.index)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
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

    def _replace(self, experts: Mapping[str, Any]) -> None:
        self.index = {**self.index, "experts": dict(experts)}
        write_sealed(self.path / "bank.json", self.index)


def create_folder(
    folder: str | os.PathLike,
    model: Mapping[str, Any],
    tokenizer,
    scoring: Mapping[str, Any],
    text_form: str,
) -> BankFolder:
    """A bank without experts.  `UserError` when `folder` is not empty or cannot be written."""
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
            write_sealed(
                draft / "bank.json",
                {
                    "format": FORMAT,
                    "tokenizer": tokenizer.fingerprint,
                    "tokenizer_files": files,
                    "model": dict(model),
                    "scoring": dict(scoring),
                    "text_form": text_form,
                    "experts": {},
                },
            )
            os.replace(draft, path)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return BankFolder(path)


def write_manifest(folder: Path, fingerprint: str) -> None:
    """Seals the expert files in `folder`: their SHA-256 and the tokenizer's fingerprint."""
    write_sealed(
        folder / "manifest.json",
        {
            "format": FORMAT,
            "tokenizer": fingerprint,
            "files": {
                name: sha256(folder / name)
                for name in (*EXPERT_FILES, BIGRAM)
                if name != BIGRAM or (folder / name).exists()
            },
        },
    )


def listed_files(folder: Path) -> tuple[str, ...]:
    """The expert's files by its manifest, which is not among them.  `UserError` when the manifest
    is missing or damaged, or lists others than an expert has."""
    return tuple(_digests(folder, read_sealed(folder / "manifest.json")))


def bigram_of(listed: Iterable[str]) -> str | None:
    """The file of the bigram model among an expert's files; None where it has none."""
    return next((name for name in _BIGRAMS if name in listed), None)


def _digests(folder: Path, manifest: Mapping[str, Any]) -> Mapping[str, str]:
    files = manifest.get("files")
    if not isinstance(files, dict) or set(files) - {bigram_of(files)} != set(EXPERT_FILES):
        raise UserError(
            f"{folder / 'manifest.json'} lists other files than "
            f"{', '.join((*EXPERT_FILES, BIGRAM))}: write the expert again"
        )
    return files


def _listed(folder: Path) -> tuple[str, ...]:
    try:
        return listed_files(folder)
    except UserError:
        return EXPERT_FILES


def check_manifest(folder: Path, fingerprint: str) -> None:
    """`UserError` unless the expert's files are as sealed and it reads the same tokens."""
    manifest = read_sealed(folder / "manifest.json")
    if manifest.get("tokenizer") != fingerprint:
        raise UserError(
            f"{folder} was trained with another tokenizer (fingerprint "
            f"{str(manifest.get('tokenizer'))[:12]}) than the bank's "
            f"({fingerprint[:12]}): train it with the bank's tokenizer"
        )
    _check_files(folder, _digests(folder, manifest))


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, digest in files.items():
        if sha256(folder / Path(name).name) != digest:
            raise changed(folder / name)


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
