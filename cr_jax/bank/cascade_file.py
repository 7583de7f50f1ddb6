"""How many experts a cascade scores in full, on file in its bank.  Knows no arrays.

BANK/cascade.json    sealed; the fit, the SHA-256 of every expert, and the typicality weight
                     that the bank ranked by
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cr_jax.bank.files import CASCADE, BankFolder, consistent, writable
from cr_jax.bank.manifest import FORMAT
from cr_jax.errors import UserError
from cr_jax.host.inside import Inside

_RENAMED = {
    "keep": "min_candidates",
    "margin": "candidate_margin",
    "kept": "mean_candidates",
    "head": "max_windows",
    "excess": "typicality_weight",
}  # since version 0.1


@dataclasses.dataclass(frozen=True)
class CandidateFit:
    """How many experts are candidates, as measured (`cr_jax.routing.candidates`).

    min_candidates: the least number; candidate_margin, nats/token: all others whose bigram model
    lies so near the nearest; offsets: expert -> nats/token off its bigram model's residual, or
    None.  agreement: with exact routing, at least `at_least`, and mean_candidates: experts on
    average, both means over `windows` validation windows of all experts.  `UserError` when they
    contradict each other.
    """

    min_candidates: int
    at_least: float
    candidate_margin: float
    offsets: dict[str, float] | None
    agreement: float
    mean_candidates: float
    windows: int

    def __post_init__(self):
        shares, known = (self.at_least, self.agreement), isinstance(self.offsets, dict)
        nats = (self.candidate_margin, *(self.offsets.values() if known else ()))
        if (
            type(self.min_candidates) is not int
            or type(self.windows) is not int
            or not all(map(_number, (*shares, *nats, self.mean_candidates)))
            or not (known or self.offsets is None)
            or min(self.min_candidates, self.windows) < 1
            or min(nats) < 0
            or max(shares) > 1
            or not 0 <= self.at_least <= self.agreement
            or self.mean_candidates < self.min_candidates
        ):
            raise UserError("the stored fit of candidates makes no sense: fit them again")


def write(
    bank: Path | None,
    fit: CandidateFit,
    max_windows: int,
    names: Sequence[str],
    typicality_weight: float,
) -> None:
    """Stores the fit in the bank's folder.

    names, typicality_weight: of the bank that it was measured with.  `UserError` when that is in
    memory only, or another than the folder's.
    """
    if bank is None:
        raise UserError(
            "a cascade is stored in its bank, but this one lives in memory only: load "
            "it from a folder"
        )
    files = BankFolder(bank)
    with writable(bank), files.changing():
        if set(names) != set(files.names) or typicality_weight != ranked_with(files):
            raise UserError(
                "the cascade was measured with other experts or another typicality_weight "
                f"than {bank} has: load the whole bank and fit it again"
            )
        fields = {
            "format": FORMAT,
            **dataclasses.asdict(fit),
            "max_windows": max_windows,
            "typicality_weight": typicality_weight,
            "experts": {name: files.seals(name)[0] for name in files.names},
        }
        files.inside.write_sealed(CASCADE, fields)


def read(bank: Path) -> tuple[CandidateFit, int]:
    """-> (fit, max_windows) as written.  `UserError` when missing, damaged, or of other experts.

    The field names of version 0.1 are read too.
    """
    return consistent(bank, read_of)


def read_of(files: BankFolder) -> tuple[CandidateFit, int]:
    """The same of an open bank."""
    path = files.path / CASCADE
    if not files.inside.has(CASCADE):
        raise UserError(
            f"{files.path} does not say how many experts its bigram models leave to score: "
            "measure it with `cr-jax bank fit-cascade`, or give --min-candidates"
        )
    stored = files.inside.read_sealed(CASCADE)
    raw = {_RENAMED.get(field, field): value for field, value in stored.items()}
    if not _measured_with(raw.get("experts"), files):
        raise UserError(
            f"{path} was measured with other experts than {files.path} holds now: fit it "
            "again (`cr-jax bank fit-cascade`), or give --min-candidates"
        )
    if raw.get("typicality_weight") != ranked_with(files):
        raise UserError(
            f"{path} was measured with another typicality_weight (config.scoring) than "
            f"{files.path} ranks by now: fit it again (`cr-jax bank fit-cascade`), or give "
            "--min-candidates"
        )
    try:
        fit = CandidateFit(**{f.name: raw[f.name] for f in dataclasses.fields(CandidateFit)})
        max_windows = raw["max_windows"]
    except KeyError as error:
        raise UserError(f"{path} lacks {error}: fit it again") from error
    except TypeError as error:
        raise UserError(f"{path} makes no sense: fit it again") from error
    if type(max_windows) is not int:
        raise UserError(
            f"{path} has max_windows={max_windows!r}, no number of windows: fit it again"
        )
    return fit, max_windows


def reseal(bank: Inside, seals: Mapping[str, str]) -> None:
    """Follows experts whose manifests were sealed anew and whose compressors stayed the same.

    seals: the SHA-256 of a manifest as it was -> as it is.
    """
    if bank.has(CASCADE):
        raw = bank.read_sealed(CASCADE)
        experts = raw.get("experts")
        if isinstance(experts, dict):
            moved = {name: seals.get(str(sha), sha) for name, sha in experts.items()}
            bank.write_sealed(CASCADE, {**raw, "experts": moved})


def _measured_with(experts: Any, files: BankFolder) -> bool:
    return (
        isinstance(experts, dict)
        and set(experts) == set(files.names)
        and all(experts[name] in files.seals(name) for name in files.names)
    )


def ranked_with(files: BankFolder) -> float:
    """The typicality weight that a bank ranks with."""
    scoring = files.index.get("scoring", {})
    return scoring.get("typicality_weight", scoring.get("excess", 0.0))


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
