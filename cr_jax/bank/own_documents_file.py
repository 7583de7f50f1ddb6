"""Margins of every expert's own documents, on file in their bank.  Knows no arrays.

BANK/own_documents.json     sealed; `scoring.own_documents.OwnDocuments` of experts, and the SHA-256
                            of each expert and of those that it was measured against

What it says of an expert counts as long as that one is the same; of those that it was measured
against, those count that the bank still has.  It holds two numbers for the beginnings of up to 100
documents, and no text.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cr_jax.bank.files import OWN, BankFolder, writable
from cr_jax.bank.manifest import FORMAT
from cr_jax.errors import UserError
from cr_jax.host.inside import Inside
from cr_jax.scoring.own_documents import OwnDocuments

_SEAL, _AGAINST = "sha256", "against_sha256"


def read_of(files: BankFolder) -> dict[str, OwnDocuments]:
    """Of the experts of an open bank that it is right for; empty where the bank has none.

    `UserError` when the file is damaged: delete it to route without.
    """
    if not files.inside.has(OWN):
        return {}
    found = {}
    for name, entry in _current(files).items():
        try:
            made = OwnDocuments.from_json(entry)
            seals = dict(entry[_AGAINST])
            there = tuple(n for n in made.against if _is(files, n, seals.get(n)))
        except (UserError, TypeError, KeyError, ValueError) as error:
            raise UserError(
                f"{files.path / OWN} makes no sense: delete it, then fit it again (cr-jax bank "
                "fit-cascade)"
            ) from error
        if there:
            found[name] = OwnDocuments(there, made.residuals, made.margins)
    return found


def write(bank: Path | None, measured: Mapping[str, OwnDocuments]) -> None:
    """Stores what was measured of some experts; what is right of others stays.  `UserError` for a
    bank in memory, or an expert that it does not have."""
    if bank is None:
        raise UserError("margins are stored in their bank, but this one lives in memory only")
    files = BankFolder(bank)
    with writable(bank), files.changing():
        for name, own in measured.items():
            for needed in (name, *own.against):
                files.expert(needed)
        entries = {
            name: {
                _SEAL: files.seals(name)[0],
                _AGAINST: {n: files.seals(n)[0] for n in own.against},
                **own.to_json(),
            }
            for name, own in measured.items()
        }
        kept = _current(files) if files.inside.has(OWN) else {}
        files.inside.write_sealed(OWN, {"format": FORMAT, "experts": {**kept, **entries}})


def reseal(bank: Inside, seals: Mapping[str, str]) -> None:
    """Follows experts whose manifests were sealed anew and whose compressors stayed the same.

    seals: the SHA-256 of a manifest as it was -> as it is.
    """
    if not bank.has(OWN):
        return
    raw = bank.read_sealed(OWN)
    move = lambda sha: seals.get(str(sha), sha)
    moved = {
        name: {
            **entry,
            _SEAL: move(entry.get(_SEAL)),
            _AGAINST: {n: move(sha) for n, sha in entry.get(_AGAINST, {}).items()},
        }
        for name, entry in raw.get("experts", {}).items()
    }
    bank.write_sealed(OWN, {**raw, "experts": moved})


def _current(files: BankFolder) -> dict[str, Mapping[str, Any]]:
    """The stored entries of experts that are the same still."""
    experts = files.inside.read_sealed(OWN).get("experts")
    if not isinstance(experts, dict) or not all(isinstance(e, dict) for e in experts.values()):
        raise UserError(
            f"{files.path / OWN} makes no sense: delete it, then fit it again (cr-jax bank "
            "fit-cascade)"
        )
    return {name: e for name, e in experts.items() if _is(files, name, e.get(_SEAL))}


def _is(files: BankFolder, name: str, seal: Any) -> bool:
    return name in files.names and seal in files.seals(name)
