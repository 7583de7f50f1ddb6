"""How many experts a cascade keeps, on file beside its scouts.  Knows no arrays.

    SCOUTS/cascade.json    sealed; the choice, and the SHA-256 of every expert of both banks,
                           the excess that the bank compared by
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

from cr_jax.bank_folder import CASCADE, FORMAT, BankFolder, read_sealed, writable, write_sealed
from cr_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Choice:
    """A measured number of experts to keep.

    keep: the smallest k with agreement[k - 1] >= at_least; agreement: with exact routing, for
    k = 1 ... E, over `windows` validation windows of all experts.  `UserError` when they
    contradict each other.
    """

    keep: int
    at_least: float
    agreement: tuple[float, ...]
    windows: int

    def __post_init__(self):
        numbers = (self.at_least, *self.agreement)
        if (type(self.keep) is not int or type(self.windows) is not int or self.windows < 1
                or not all(type(x) in (int, float) and 0 <= x <= 1 for x in numbers)
                or not 1 <= self.keep <= len(self.agreement)
                or self.agreement[self.keep - 1] < self.at_least):
            raise UserError("the choice of how many experts to keep makes no sense: choose again")


def write(bank: Path | None, scouts: Path | None, choice: Choice, head: int) -> None:
    """Stores the choice in the scouts' folder.  `UserError` when a bank is in memory only."""
    if bank is None or scouts is None:
        raise UserError("a cascade is stored beside its scouts, but one of its banks lives in "
                        "memory only: load both from folders")
    with writable(scouts):
        write_sealed(scouts / CASCADE, {
            "format": FORMAT, **dataclasses.asdict(choice), "head": head,
            "excess": _excess(bank), "bank": _experts(bank), "scouts": _experts(scouts)})


def read(bank: Path, scouts: Path) -> tuple[Choice, int]:
    """-> (choice, head) as written.  `UserError` when missing, damaged, or of other experts."""
    path = scouts / CASCADE
    if not os.path.isfile(path):
        raise UserError(f"{scouts} does not say how many experts to keep: choose it with "
                        "Cascade.choose and save, or give --keep")
    raw = read_sealed(path)
    for folder, field in ((bank, "bank"), (scouts, "scouts")):
        if raw.get(field) != _experts(folder):
            raise UserError(f"{path} was measured with other experts than {folder} holds now: "
                            "choose again, or give --keep")
    if raw.get("excess", 0.0) != _excess(bank):
        raise UserError(f"{path} was measured with another excess (config.scoring.excess) than "
                        f"{bank} compares by now: choose again, or give --keep")
    try:
        choice = Choice(raw["keep"], raw["at_least"], tuple(raw["agreement"]), raw["windows"])
        head = raw["head"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} lacks {error}: choose again") from error
    return choice, head


def _excess(folder: Path) -> float:
    return BankFolder(folder).index.get("scoring", {}).get("excess", 0.0)


def _experts(folder: Path) -> dict[str, Any]:
    """{name: SHA-256 of the expert's manifest}."""
    return {name: entry["sha256"] for name, entry in BankFolder(folder).index["experts"].items()}
