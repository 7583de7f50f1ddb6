"""Every expert's own documents as the bank sees them, on file.  Knows no arrays.

BANK/own_documents.json     sealed; `scoring.own_documents.OwnDocuments` of experts with their
                            SHA-256, and tables of the experts that they were measured with

What it says of an expert counts as long as that one is the same; of those that it was measured
against, those count that the bank still has.  It holds three numbers for the beginnings of up to
100 documents, and no text; files of an earlier version hold two, and surprises do not count then.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cr_jax.bank.files import OWN, BankFolder, writable
from cr_jax.bank.manifest import FORMAT
from cr_jax.errors import UserError
from cr_jax.host.files import sealed
from cr_jax.host.inside import JSON_MOST, Inside
from cr_jax.scoring.own_documents import OwnDocuments

_SEAL, _TABLE, _TABLES = "sha256", "measured_with", "tables"


def read_of(files: BankFolder) -> dict[str, OwnDocuments]:
    """Of the experts of an open bank that it is right for; empty where the bank has none.

    `UserError` when the file is damaged: delete it to route without.
    """
    if not files.inside.has(OWN):
        return {}
    entries, tables = _current(files)
    there = [[n for n, seal in table.items() if _is(files, n, seal)] for table in tables]
    found = {}
    for name, entry in entries.items():
        against = [n for n in there[entry[_TABLE]] if n != name]
        try:
            if against:
                found[name] = OwnDocuments.from_json({**entry, "against": against})
        except UserError as error:
            raise _odd(files) from error
    return found


def write(bank: Path | None, measured: Mapping[str, OwnDocuments]) -> None:
    """Stores what was measured of some experts; what is right of others stays.  `UserError` for a
    bank in memory, an expert that it does not have, or more than a file may hold."""
    if bank is None:
        raise UserError("margins are stored in their bank, but this one lives in memory only")
    files = BankFolder(bank)
    with writable(bank), files.changing():
        kept, tables = _current(files) if files.inside.has(OWN) else ({}, [])
        entries = dict(kept)
        for name, own in measured.items():
            for needed in (name, *own.against):
                files.expert(needed)
            table = {n: files.seals(n)[0] for n in sorted({name, *own.against})}
            if table not in tables:
                tables.append(table)
            numbers = {k: v for k, v in own.to_json().items() if k != "against"}
            seal = files.seals(name)[0]
            entries[name] = {_SEAL: seal, _TABLE: tables.index(table), **numbers}
        used = sorted({entry[_TABLE] for entry in entries.values()})
        value = {
            "format": FORMAT,
            _TABLES: [tables[i] for i in used],
            "experts": {n: {**e, _TABLE: used.index(e[_TABLE])} for n, e in entries.items()},
        }
        if len(sealed(value)) > JSON_MOST:
            raise UserError(
                f"margins of {len(entries)} experts are more than the {JSON_MOST >> 20} MiB that a "
                "file of a bank may hold: the bank routes without them"
            )
        files.inside.write_sealed(OWN, value)


def reseal(bank: Inside, seals: Mapping[str, str]) -> None:
    """Follows experts whose manifests were sealed anew and whose compressors stayed the same.

    seals: the SHA-256 of a manifest as it was -> as it is.
    """
    if not bank.has(OWN):
        return
    raw = bank.read_sealed(OWN)
    if not _sound(raw):  # nothing that a reader takes
        return
    move = lambda sha: seals.get(str(sha), sha)
    tables = [{n: move(sha) for n, sha in table.items()} for table in raw[_TABLES]]
    experts = {n: {**entry, _SEAL: move(entry[_SEAL])} for n, entry in raw["experts"].items()}
    bank.write_sealed(OWN, {**raw, _TABLES: tables, "experts": experts})


def _current(files: BankFolder) -> tuple[dict[str, Mapping[str, Any]], list[dict[str, str]]]:
    """The stored entries of experts that are the same still, and all tables."""
    raw = files.inside.read_sealed(OWN)
    if not _sound(raw):
        raise _odd(files)
    entries = {n: e for n, e in raw["experts"].items() if _is(files, n, e[_SEAL])}
    return entries, raw[_TABLES]


def _sound(raw: Mapping[str, Any]) -> bool:
    """Whether it is of the shape that `write` gives it."""
    tables, experts = raw.get(_TABLES), raw.get("experts")
    return (
        isinstance(tables, list)
        and all(isinstance(table, dict) for table in tables)
        and isinstance(experts, dict)
        and all(
            isinstance(e, dict)
            and isinstance(e.get(_SEAL), str)
            and type(e.get(_TABLE)) is int
            and 0 <= e[_TABLE] < len(tables)
            for e in experts.values()
        )
    )


def _odd(files: BankFolder) -> UserError:
    return UserError(
        f"{files.path / OWN} makes no sense: delete it, then fit it again (cr-jax bank fit-cascade)"
    )


def _is(files: BankFolder, name: str, seal: Any) -> bool:
    return name in files.index["experts"] and seal in files.seals(name)
