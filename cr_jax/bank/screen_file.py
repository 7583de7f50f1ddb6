"""Where bigram models decide without the experts, on file in their bank.  Knows no arrays.

BANK/screen.json     sealed; the screen, and the SHA-256 of every expert
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cr_jax.bank.cascade_file import ranked_with
from cr_jax.bank.files import SCREEN, BankFolder, writable
from cr_jax.bank.manifest import FORMAT
from cr_jax.errors import UserError
from cr_jax.host.inside import Inside

_NUMBERS = ("alpha", "typicality_weight", "at_least", "agreement", "decided")


@dataclasses.dataclass(frozen=True)
class Screen:
    """What of a document its bigram residuals say for certain, as measured (`routing.screen`).

    margins: number of first windows -> nats/token above the lowest bigram model, within which the
    exact winner was.  usual: expert -> number of first windows -> (low, high, lead): nats/token by
    its bigram model, between which its own documents were known at `alpha` where the next bigram
    model needed at least `lead` more; none: experts judge.
    few: number of first windows -> experts that won too few documents of them for a margin against
    them, which have the margin of fewer windows, or
    are candidates for all.  typicality_weight: that the bank ranked by.
    agreement: share of `documents` whose expert and known or unknown are then as in exact routing,
    at least `at_least`; decided: share without an expert.  `UserError` for what cannot be.
    """

    margins: Mapping[int, float]
    usual: Mapping[str, Mapping[int, tuple[float, float, float]]]
    alpha: float
    typicality_weight: float
    at_least: float
    agreement: float
    decided: float
    documents: int
    few: Mapping[int, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        ranges = [x for own in self.usual.values() for x in own.values()]
        numbers = [*self.margins.values(), *(x for usual in ranges for x in usual)]
        shares = (self.alpha, self.at_least, self.agreement, self.decided)
        if (
            not self.margins
            or not all(math.isfinite(x) and x >= 0 for x in numbers)
            or not all(0 <= x <= 1 for x in shares)
            or not all(low <= high for low, high, _ in ranges)
            or not all(k >= 1 for own in (self.margins, *self.usual.values()) for k in own)
            or self.documents < 0
            or not set(self.few) <= set(self.margins)
            or not all(name in self.usual for own in self.few.values() for name in own)
        ):
            raise UserError("the stored screen makes no sense: fit it again")


def write(bank: Path | None, screen: Screen) -> None:
    """Stores a screen in the bank's folder.  `UserError` when it names other experts."""
    if bank is None:
        raise UserError("a screen is stored in its bank, but this one lives in memory only")
    files = BankFolder(bank)
    with writable(bank), files.changing():
        if odd := set(screen.usual) ^ set(files.names):
            raise UserError(f"the screen is of other experts than {bank}: see {sorted(odd)[0]}")
        fields = {
            "format": FORMAT,
            **dataclasses.asdict(screen),
            "experts": {name: files.seals(name)[0] for name in files.names},
        }
        files.inside.write_sealed(SCREEN, fields)


def delete(bank: Path) -> bool:
    """Deletes a bank's screen, which then routes without; -> whether there was one."""
    files = BankFolder(bank)
    with writable(bank), files.changing():
        there = files.inside.has(SCREEN)
        if there:
            files.inside.delete(SCREEN)
        return there


def read_of(files: BankFolder) -> Screen | None:
    """The screen of an open bank; None where it has none, or one of other experts.

    `UserError` when it is damaged, or does not name exactly the bank's experts.
    """
    if not files.inside.has(SCREEN):
        return None
    raw, path = files.inside.read_sealed(SCREEN), files.path / SCREEN
    experts = raw.get("experts")
    if not isinstance(experts, dict) or set(experts) != set(files.names):
        return None
    if any(experts[name] not in files.seals(name) for name in files.names):
        return None
    if raw.get("typicality_weight") != ranked_with(files):
        return None
    try:
        made = Screen(
            {int(k): float(x) for k, x in raw["margins"].items()},
            {
                name: {int(k): _range(*usual) for k, usual in own.items()}
                for name, own in raw["usual"].items()
            },
            documents=int(raw["documents"]),
            few={int(k): tuple(map(str, own)) for k, own in raw.get("few", {}).items()},
            **{field: float(raw[field]) for field in _NUMBERS},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} makes no sense: fit it again") from error
    if odd := set(made.usual) ^ set(files.names):
        raise UserError(f"{path} is of other experts, see {sorted(odd)[0]}: fit it again")
    return made


def _range(low, high, lead=0.0) -> tuple[float, float, float]:
    """Older files have no lead."""
    return float(low), float(high), float(lead)


def found(files: BankFolder) -> Screen | UserError | None:
    """`read_of`, or what is wrong with it: a bank whose screen is damaged can be read and the
    screen fitted again."""
    try:
        return read_of(files)
    except UserError as error:
        if not files.is_current():  # changed while it was read: the bank is read again
            raise
        return error


def reseal(bank: Inside, seals: Mapping[str, str]) -> None:
    """Follows experts whose manifests were sealed anew and whose compressors stayed the same.

    seals: the SHA-256 of a manifest as it was -> as it is.
    """
    if bank.has(SCREEN):
        raw: dict[str, Any] = bank.read_sealed(SCREEN)
        experts = raw.get("experts")
        if isinstance(experts, dict):
            moved = {name: seals.get(str(sha), sha) for name, sha in experts.items()}
            bank.write_sealed(SCREEN, {**raw, "experts": moved})
