"""What of a bank may be deleted: files that a manifest proves to be its own, and our own drafts.

Everything else stays: it is set aside below BANK/aside and named.
"""

import contextlib
import secrets
from collections.abc import Collection, Iterable

from cr_jax.bank.manifest import BIGRAM, EXPERT_FILES, LM, MANIFEST, read_manifest
from cr_jax.errors import UserError
from cr_jax.host.inside import Inside, is_draft

ASIDE = "aside"
_OURS = (*EXPERT_FILES, BIGRAM, LM, MANIFEST)
SEALED = INDEX, CASCADE, SCREEN, OWN = (
    "bank.json",
    "cascade.json",
    "screen.json",
    "own_documents.json",
)
EXPERTS, TOKENIZER, SEED = "experts", "tokenizer", "seed_lm"


def delete_sealed(
    parent: Inside, name: str, seals: Collection[str], needed: Iterable[str] = EXPERT_FILES
) -> bool:
    """Deletes the files that the manifest of a folder lists; -> whether nothing else was there.

    seals: what the SHA-256 of its manifest may be; without the right one nothing is deleted.
    """
    if not parent.has(name):
        return True
    with contextlib.suppress(UserError):
        with parent.folder(name) as folder:
            for file in (*read_manifest(folder, needed, seals).files, MANIFEST):
                if folder.is_file(file):
                    folder.delete(file)
        return parent.delete_folder(name)
    return False


def delete_expert(bank: Inside, name: str, seals: Collection[str]) -> list[str]:
    """The same of an expert; what else is there is set aside; -> lines about it."""
    experts = bank.folder(EXPERTS)
    try:
        done = delete_sealed(experts, name, seals)
        return [] if done else [set_aside(bank, experts, name)]
    except OSError as error:
        return [f"{experts.path / name} could not be deleted ({error.strerror}): delete it"]


def delete_draft(parent: Inside, name: str) -> None:
    """Deletes a folder with files of an expert in the making; what is none stays."""
    with contextlib.suppress(OSError, UserError):
        with parent.folder(name) as folder:
            for file in folder.names():
                if folder.is_file(file) and (file in _OURS or is_draft(file)):
                    folder.delete(file)
        parent.delete_folder(name)


def sweep(bank: Inside) -> None:
    """Deletes what killed processes left of their drafts; call it under the bank's lock."""
    sweep_files(bank, SEALED)
    with contextlib.suppress(OSError, UserError):
        for file in bank.names():
            if is_draft(file, SEED):
                delete_draft(bank, file)
        experts = bank.folder(EXPERTS)
        for file in experts.names():
            if is_draft(file):
                delete_draft(experts, file)


def sweep_files(folder: Inside, names: Collection[str]) -> None:
    """The same of files that were to have one of these names."""
    with contextlib.suppress(OSError, UserError):
        for file in folder.names():
            if any(is_draft(file, name) for name in names) and folder.is_file(file):
                folder.delete(file)


def set_aside(bank: Inside, parent: Inside, name: str) -> str:
    """Moves what is not the bank's to BANK/aside; -> a line that names it.  `OSError`."""
    aside = bank.folder(ASIDE) if bank.has(ASIDE) else bank.new_folder(ASIDE)
    new = f"{name[:100]}.{secrets.token_hex(4)}"
    parent.rename(name, new, aside)
    return (
        f"{parent.path / name} held what is no part of the bank: it was set aside as "
        f"{aside.path / new}; look at it, then delete it"
    )
