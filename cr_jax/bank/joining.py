"""Experts of another bank, or of a run, join a stored one."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import logging

from cr_jax.bank import expert_folder
from cr_jax.bank.changes import import_expert, take
from cr_jax.bank.entry_checks import check_free
from cr_jax.bank.files import BankFolder
from cr_jax.bank.manifest import MANIFEST
from cr_jax.bank.settings import read_settings
from cr_jax.bank.text_settings import text_form
from cr_jax.errors import UserError
from cr_jax.host.files import expanded


def import_experts(
    bank_folder: str | os.PathLike,
    source: str | os.PathLike,
    name: str | None = None,
    only: Sequence[str] = (),
    say: Callable[[str], None] = logging.warning,
) -> list[str]:
    """Copies experts into a bank; -> their names there.

    source: an expert's folder, a bank, or the workdir of a run that wrote one; of the latter two
    `only` these experts, by default all.  name: of one expert, its name here.  say: hears what was
    set aside.  All are read and checked before the first is copied.  `UserError` as of
    `import_expert`, and for a bank that reads text in another form; then nothing was copied.
    """
    given = _bank_of(expanded(source))
    if given is None:
        if only:
            raise UserError(f"{source} is no bank: name experts of a bank or of a workdir")
        return [import_expert(bank_folder, source, name, say)]
    files, there = BankFolder(bank_folder), BankFolder(given)
    chosen = list(dict.fromkeys(only)) or list(there.names)
    names = {n: n for n in chosen} if name is None else dict.fromkeys(chosen, name)
    if not chosen:
        raise UserError(f"the bank {given} has no experts")
    if name is not None and len(chosen) > 1:
        raise UserError(f"{given} has {len(chosen)} experts to add, and one name: choose one")
    check_free(files, list(names.values()))
    if text_form(there) != text_form(files):
        raise UserError(
            f"{given} reads text in the form {text_form(there)!r}, {files.path} in "
            f"{text_form(files)!r}: their experts cannot share a bank"
        )
    settings = read_settings(files)
    if settings.lm is None:  # the first language models of a bank say what all look like
        settings = dataclasses.replace(settings, lm=read_settings(there).lm)
    for n in chosen:  # opened one at a time, for a process may open about 1,000
        expert = there.sealed_expert(n)
        expert.check_fingerprint(settings.fingerprint)
        expert_folder.read_expert(n, expert.folder, settings, seals=there.seals(n))
    for n in chosen:
        take(files, there.sealed_expert(n).folder, names[n])
        for note in files.notes:
            say(note)
        files.notes.clear()
    return list(names.values())


def _bank_of(source: Path) -> Path | None:
    """The bank that a path means: itself, or that in a workdir; None: no bank's."""
    if os.path.isfile(source / MANIFEST):
        return None
    return next((p for p in (source, source / "bank") if os.path.isfile(p / "bank.json")), None)
