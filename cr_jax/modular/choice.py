"""Which rate, share and length suits each domain's branch: several runs' branches on valid.

    python -m cr_jax.modular.choice WORKDIR...

Branches of one seed (`config.modular.seed_from`), trained in different ways, are compared by the
loss of each domain's best look; no test text is read.  Not in the paper.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from cr_jax.errors import UserError, complain
from cr_jax.files import expanded, read_sealed
from cr_jax.modular.training_stage import NOTE


def compare(workdirs: Sequence[str]) -> dict[str, dict[str, float]]:
    """domain -> workdir -> nats/token on valid of its branch's best look.

    `UserError` for a workdir without finished branches, without looks, or of another seed.
    """
    found: dict[str, dict[str, float]] = {}
    starts = set()
    for workdir in workdirs:
        note = read_sealed(expanded(workdir) / "lm" / "branches" / NOTE)
        if not note["note"]["best"]:
            raise UserError(f"{workdir}: its branches had no looks; set config.modular.looks")
        starts.add(note["record"]["job"]["start"])
        for name, best in note["note"]["best"].items():
            found.setdefault(name, {})[workdir] = best["valid_nll"]
    if len(starts) > 1:
        raise UserError("the branches are of different seeds: give each run the same seed_from")
    return found


def lines(found: dict[str, dict[str, float]]) -> list[str]:
    """A line per domain, the lowest loss marked."""
    workdirs = list(dict.fromkeys(w for row in found.values() for w in row))
    names = [Path(w).name for w in workdirs]
    width = max(8, *map(len, names)) + 1
    out = ["domain".ljust(14) + "".join(n.rjust(width) for n in names)]
    for domain, row in found.items():
        best = min(row.values())
        cells = [
            (f"{row[w]:.3f}" + ("*" if row[w] == best else " ")) if w in row else ""
            for w in workdirs
        ]
        out.append(domain.ljust(14) + "".join(c.rjust(width) for c in cells))
    return out


def main(arguments: Sequence[str]) -> int:
    """Prints the table; the exit status."""
    try:
        if not arguments:
            raise UserError("give the workdirs of the runs to compare")
        print("\n".join(lines(compare(arguments))))
    except UserError as error:
        complain("error", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
