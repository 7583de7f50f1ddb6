"""What is looked at before experts join a stored bank, and after: names, and what was measured
without them.  Without JAX."""

import os
from collections.abc import Sequence

from cr_jax.bank import cascade_file, pretrained, screen_file
from cr_jax.bank.files import CASCADE, SCREEN, BankFolder
from cr_jax.errors import UserError
from cr_jax.host.files import expanded


def check_free(files: BankFolder, names: Sequence[str]) -> None:
    """`UserError` for a name that the bank has, or has in other letters' case."""
    lower = {n.lower(): n for n in files.names}
    for name in names:
        files.check_free(name)
        if other := lower.get(name.lower()):
            raise UserError(
                f"the bank {files.path} has an expert {other!r}, which differs from {name!r} in "
                "case only: choose another name"
            )


def check_own(bank_folder: str | os.PathLike) -> None:
    """`UserError` for the bank that ships with the package, which every user of it shares."""
    shipped, given = pretrained.folder(), expanded(bank_folder)
    if os.path.isdir(given) and os.path.samefile(given, shipped):
        raise UserError(
            f"{given} is the bank that ships with cr_jax: copy it (cp -r {given} mine) and give "
            "--bank mine"
        )


def unused_fits(files: BankFolder) -> str | None:
    """One line about a cascade or a screen that was measured with other experts than the bank has:
    neither is used, and both count again once the bank has just those.  None where all fits."""
    unused = []
    for name, read in ((CASCADE, cascade_file.read_of), (SCREEN, screen_file.read_of)):
        if files.inside.has(name):
            try:
                if read(files) is None:
                    unused.append(name)
            except UserError:
                unused.append(name)
    if not unused:
        return None
    return (
        f"{' and '.join(unused)} of {files.path} {'was' if len(unused) == 1 else 'were'} measured "
        "with other experts, so that all experts score each text until you run: cr-jax bank "
        f"fit-cascade --bank {files.path} --valid NAME=SOURCE (once for each expert)"
    )
