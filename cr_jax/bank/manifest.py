"""The seal of a folder of parameters: an expert's, or that of the seed of language models.

manifest.json lists the SHA-256 of the files beside it, the tokenizer's fingerprint, and the shape
of the language model where there is one.  Knows no arrays, no JAX.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cr_jax.errors import UserError
from cr_jax.files import changed, read_sealed, sha256, write_sealed

FORMAT = 1
MANIFEST = "manifest.json"
EXPERT_FILES = ("config.json", "params.safetensors", "calibration.json")
BIGRAM = "bigram.safetensors"
LM = "lm.safetensors"
_BIGRAMS = (BIGRAM, "scout.safetensors")  # the second is the name of version 0.1


@dataclasses.dataclass(frozen=True)
class Manifest:
    """files: name -> SHA-256; fingerprint: of the tokenizer; lm: fields of `config.LmConfig`."""

    files: Mapping[str, str]
    fingerprint: str
    lm: Mapping[str, Any] | None = None

    @property
    def bigram(self) -> str | None:
        """The file of the bigram model; None where there is none."""
        return next((name for name in _BIGRAMS if name in self.files), None)

    def sealed(self) -> dict[str, Any]:
        """What `write_sealed` writes."""
        shared = {"format": FORMAT, "tokenizer": self.fingerprint, "files": dict(self.files)}
        return shared if self.lm is None else {**shared, "lm": dict(self.lm)}


def read_manifest(folder: Path, needed: Iterable[str] = EXPERT_FILES) -> Manifest:
    """needed: files that are always there.  `UserError` when the manifest is missing or damaged, or
    lists others than these, a bigram model and a language model."""
    path = folder / MANIFEST
    raw = read_sealed(path)
    files, lm = raw.get("files"), raw.get("lm")
    found = Manifest(files if isinstance(files, dict) else {}, str(raw.get("tokenizer")), lm)
    if set(found.files) - {found.bigram, LM} != set(needed):
        raise UserError(
            f"{path} lists other files than {', '.join((*needed, BIGRAM, LM))}: "
            "write the expert again"
        )
    if (LM in found.files) != isinstance(lm, dict):
        raise UserError(
            f"{path} lists a language model without its shape, or a shape without the model: "
            "write the expert again"
        )
    return found


def write_manifest(
    folder: Path,
    fingerprint: str,
    lm: Mapping[str, Any] | None = None,
    needed: Iterable[str] = EXPERT_FILES,
) -> None:
    """Seals the files in `folder`; lm: the shape of the language model that lies there."""
    names = (*needed, *(n for n in (BIGRAM, LM) if (folder / n).exists()))
    files = {name: sha256(folder / name) for name in names}
    write_sealed(folder / MANIFEST, Manifest(files, fingerprint, lm).sealed())


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """`UserError` for the first whose bytes are not those of the SHA-256."""
    for name, digest in files.items():
        if sha256(folder / Path(name).name) != digest:
            raise changed(folder / name)


def check_sealed(
    folder: Path, fingerprint: str, lms: bool = True, needed: Iterable[str] = EXPERT_FILES
) -> None:
    """`UserError` unless the files are as sealed and made with that tokenizer.

    lms: whether the bytes of a language model are read too.
    """
    manifest = read_manifest(folder, needed)
    if manifest.fingerprint != fingerprint:
        raise UserError(
            f"{folder} was trained with another tokenizer (fingerprint "
            f"{manifest.fingerprint[:12]}) than the bank's "
            f"({fingerprint[:12]}): train it with the bank's tokenizer"
        )
    check_files(folder, {n: x for n, x in manifest.files.items() if lms or n != LM})
