"""How many experts a cascade keeps, on file in its bank.  Knows no arrays.

    BANK/cascade.json    sealed; the choice, the SHA-256 of every expert, and the excess that the
                         bank compared by
"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cr_jax.bank.files import (
    CASCADE,
    FORMAT,
    BankFolder,
    read_sealed,
    writable,
    write_sealed,
)
from cr_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Choice:
    """How many experts to keep, as measured (`cr_jax.routing.candidates`).

    keep: the least number; margin, nats/token: all others whose scout lies so near the nearest;
    offsets: expert -> nats/token off its scout's residual, or None.  agreement: with exact routing,
    at least `at_least`, and kept: experts on average, both means over `windows` validation windows
    of all experts.  `UserError` when they contradict each other.
    """

    keep: int
    at_least: float
    margin: float
    offsets: dict[str, float] | None
    agreement: float
    kept: float
    windows: int

    def __post_init__(self):
        shares, known = (self.at_least, self.agreement), isinstance(self.offsets, dict)
        nats = (self.margin, *(self.offsets.values() if known else ()))
        if (type(self.keep) is not int or type(self.windows) is not int
                or not all(map(_number, (*shares, *nats, self.kept)))
                or not (known or self.offsets is None)
                or min(self.keep, self.windows) < 1 or min(nats) < 0 or max(shares) > 1
                or not 0 <= self.at_least <= self.agreement or self.kept < self.keep):
            raise UserError("the choice of how many experts to keep makes no sense: choose again")


def write(bank: Path | None, choice: Choice, head: int, names: Sequence[str], excess: float
          ) -> None:
    """Stores the choice in the bank's folder.

    names, excess: of the bank that it was measured with.  `UserError` when that is in memory only,
    or another than the folder's.
    """
    if bank is None:
        raise UserError("a cascade is stored in its bank, but this one lives in memory only: load "
                        "it from a folder")
    if set(names) != set(_experts(bank)) or excess != _excess(bank):
        raise UserError("the cascade was measured with other experts or another excess than "
                        f"{bank} has: load the whole bank and choose again")
    with writable(bank):
        write_sealed(bank / CASCADE, {"format": FORMAT, **dataclasses.asdict(choice), "head": head,
                                      "excess": _excess(bank), "experts": _experts(bank)})


def read(bank: Path) -> tuple[Choice, int]:
    """-> (choice, head) as written.  `UserError` when missing, damaged, or of other experts."""
    path = bank / CASCADE
    if not os.path.isfile(path):
        raise UserError(f"{bank} does not say how many experts its scouts keep: choose it with "
                        "Cascade.choose and save, or give --keep")
    raw = read_sealed(path)
    if raw.get("experts") != _experts(bank):
        raise UserError(f"{path} was measured with other experts than {bank} holds now: choose "
                        "again, or give --keep")
    if raw.get("excess") != _excess(bank):
        raise UserError(f"{path} was measured with another excess (config.scoring.excess) than "
                        f"{bank} compares by now: choose again, or give --keep")
    try:
        choice = Choice(**{f.name: raw[f.name] for f in dataclasses.fields(Choice)})
        head = raw["head"]
    except KeyError as error:
        raise UserError(f"{path} lacks {error}: choose again") from error
    except TypeError as error:
        raise UserError(f"{path} makes no sense: choose again") from error
    if type(head) is not int:
        raise UserError(f"{path} has head={head!r}, no number of windows: choose again")
    return choice, head


def _excess(folder: Path) -> float:
    return BankFolder(folder).index.get("scoring", {}).get("excess", 0.0)


def _experts(folder: Path) -> dict[str, Any]:
    """{name: SHA-256 of the expert's manifest}."""
    return {name: entry["sha256"] for name, entry in BankFolder(folder).index["experts"].items()}


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
