"""The seal of a folder of parameters: an expert's, or that of the seed of language models.

manifest.json lists the SHA-256 of the files beside it, the tokenizer's fingerprint, and the shape
of the language model where there is one.  Knows no arrays, no JAX.
"""

import dataclasses
import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from cr_jax.errors import UserError
from cr_jax.host.files import changed, parse_sealed
from cr_jax.host.inside import Inside

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


def read_manifest(
    folder: Inside, needed: Iterable[str] = EXPERT_FILES, seals: Collection[str] | None = None
) -> Manifest:
    """needed: files that are always there; seals: what the SHA-256 of manifest.json may be, None:
    anything.  `UserError` when the manifest is missing or damaged, or lists others than these, a
    bigram model and a language model."""
    path, data = folder.path / MANIFEST, folder.read(MANIFEST)
    if seals is not None and hashlib.sha256(data).hexdigest() not in seals:
        raise changed(path)
    raw = parse_sealed(data, path)
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
    folder: Inside | Path,
    fingerprint: str,
    lm: Mapping[str, Any] | None = None,
    needed: Iterable[str] = EXPERT_FILES,
) -> str:
    """Seals the files in `folder`; lm: the shape of the language model that lies there; -> the
    manifest's SHA-256."""
    folder = folder if isinstance(folder, Inside) else Inside.at(folder)
    names = (*needed, *(n for n in (BIGRAM, LM) if folder.has(n)))
    files = {name: folder.sha256(name) for name in names}
    folder.write_sealed(MANIFEST, Manifest(files, fingerprint, lm).sealed())
    return folder.sha256(MANIFEST)


@dataclasses.dataclass(frozen=True)
class SealedFiles:
    """Files that a manifest lists, each read once: the bytes that are hashed are the bytes that
    are used.  verify: `UserError` where they are not the manifest's."""

    folder: Inside
    manifest: Manifest
    verify: bool = True

    def read(self, name: str, most: int) -> bytes:
        """All bytes of a file; `UserError` for more than `most`."""
        data = self.folder.read(name, most)
        if self.verify and hashlib.sha256(data).hexdigest() != self.manifest.files.get(name):
            raise changed(self.folder.path / name)
        return data

    def check_fingerprint(self, fingerprint: str) -> None:
        """`UserError` unless the files were made with that tokenizer."""
        if self.manifest.fingerprint != fingerprint:
            raise UserError(
                f"{self.folder.path} was trained with another tokenizer (fingerprint "
                f"{self.manifest.fingerprint[:12]}) than the bank's "
                f"({fingerprint[:12]}): train it with the bank's tokenizer"
            )

    def check(self) -> None:
        """`UserError` for the first whose bytes are not as sealed."""
        for name, digest in self.manifest.files.items():
            if self.folder.sha256(name) != digest:
                raise changed(self.folder.path / name)
