"""A bank's folder: made, put in the place of another one, deleted."""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cr_jax.bank import removal
from cr_jax.bank.files import (
    REPLACED,
    SEED,
    TOKENIZER,
    WAIT,
    BankFolder,
    CannotWrite,
    busy,
    sha256,
    writable,
)
from cr_jax.bank.manifest import FORMAT, SealedFiles
from cr_jax.bank.removal import CASCADE, EXPERTS, INDEX, OWN, SCREEN
from cr_jax.errors import UserError
from cr_jax.host.files import expanded, fresh_folder, write_sealed
from cr_jax.host.inside import Inside
from cr_jax.host.locks import GROWING, GROWING_HELD, HELD, LOCK, exclusive

_LOCKS = (GROWING, GROWING_HELD, LOCK, HELD)


def create_folder(
    folder: str | os.PathLike, index: Mapping[str, Any], tokenizer: Any
) -> BankFolder:
    """A bank without experts; index: fields of bank.json (`settings.to_index`).

    `UserError` when `folder` is not empty or cannot be written.
    """
    path = expanded(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} is not an empty folder: choose another place for the bank")
    whole = path.absolute()
    with writable(path):
        whole.parent.mkdir(parents=True, exist_ok=True)
        draft = fresh_folder(whole.parent, f".{whole.name[:100]}.")
        try:
            (draft / TOKENIZER).mkdir()
            (draft / EXPERTS).mkdir()
            tokenizer.save(draft / TOKENIZER)
            files = {p.name: sha256(p) for p in sorted((draft / TOKENIZER).iterdir())}
            first = {"format": FORMAT, "tokenizer": tokenizer.fingerprint, "tokenizer_files": files}
            write_sealed(draft / INDEX, {**first, **index, "experts": {}})
            os.replace(draft, path)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    return BankFolder(path)


def put_in_place(
    new: Path, final: Path, keep: Callable[[SealedFiles, str], None], say: Callable[[str], None]
) -> None:
    """Renames the bank `new` to `final`.  A bank that is there first gives the experts that `new`
    lacks to keep(FILES, NAME), and is then deleted; nobody can change it in between, and who reads
    it goes on or waits.

    A bank that cannot be read is kept beside.  `UserError` when nothing can be written, or
    something else lies there; then all is as it was.
    """
    with writable(final), contextlib.ExitStack() as stack:
        if not os.path.lexists(final):
            os.rename(new, final)
            return
        if final.is_symlink() or not final.is_dir():
            raise UserError(f"{final} is in the way of the run's bank: move it away")
        old = final.with_name(final.name + REPLACED)
        _move_away(old, say)
        stack.enter_context(exclusive(Inside.at(final), WAIT, busy(final)))
        whole = True
        try:
            there, have = BankFolder(final), BankFolder(new).names
            for name in there.names:
                if name not in have:
                    keep(there.sealed_expert(name), name)
        except CannotWrite:
            raise
        except UserError as error:
            whole, old = False, _free(final.with_name("bank.damaged"))
            say(f"warning: {error}; the bank is written anew, the old one kept in {old}")
        os.rename(final, old)
        try:
            os.rename(new, final)
        except BaseException:
            os.rename(old, final)
            raise
    if whole:
        delete_bank(old, say)


def recover(final: Path, say: Callable[[str], None]) -> None:
    """Puts a bank back that `put_in_place` was stopped from replacing, and deletes what another
    stop left of an old one.  `UserError` when that cannot be done."""
    old = final.with_name(final.name + REPLACED)
    with writable(final):
        if old.is_dir() and not old.is_symlink() and not os.path.lexists(final):
            os.rename(old, final)
        delete_bank(old, say)
        _move_away(old, say)


def delete_bank(path: Path, say: Callable[[str], None]) -> None:
    """Deletes the files that a bank's own JSON proves to be its own, and the folder if nothing else
    is there; says what is left."""
    try:
        with Inside.at(path.parent) as parent:
            if not parent.has(path.name):
                return
            with parent.folder(path.name) as bank:
                _empty(bank, BankFolder(path))
            if not _deleted(parent, path.name):
                _move_away(path, say)
    except (UserError, OSError) as error:
        say(f"{path} was not deleted ({error}): look at it, then delete it")


def _deleted(parent: Inside, name: str) -> bool:
    """Whether the emptied folder is gone.  Who waited for its lock may have made a new one in it
    before it saw that this is the bank no more."""
    for _ in range(20):
        if parent.delete_folder(name):
            return True
        with parent.folder(name) as bank:
            if not set(bank.names()) <= set(_LOCKS):
                return False
            for lock in bank.names():
                with contextlib.suppress(UserError, FileNotFoundError):
                    bank.delete(lock)
        time.sleep(0.05)
    return False


def _empty(bank: Inside, files: BankFolder) -> None:
    removal.sweep(bank)
    with bank.folder(EXPERTS) as experts:
        for name in files.names:
            removal.delete_sealed(experts, name, files.seals(name))
    if files.seed is not None:
        removal.delete_sealed(bank, SEED, (files.index[SEED]["sha256"],), ())
    with contextlib.suppress(UserError), bank.folder(TOKENIZER) as tokenizer:
        for name in files.index["tokenizer_files"]:
            if tokenizer.is_file(name):
                tokenizer.delete(name)
    for folder in (EXPERTS, TOKENIZER):
        bank.delete_folder(folder)
    own = (CASCADE, SCREEN, OWN, *_LOCKS, INDEX)  # last what proves the rest
    if set(bank.names()) <= set(own):
        for name in own:
            bank.delete(name)


def _move_away(path: Path, say: Callable[[str], None]) -> None:
    if os.path.lexists(path):
        left = _free(path.with_name(f"{path.name}.left"))
        os.rename(path, left)
        say(f"{left} holds what is no part of the bank that was here: look at it, then delete it")


def _free(path: Path) -> Path:
    """`path`, or a name like it that nothing has."""
    while os.path.lexists(path):
        path = path.with_name(f"{path.name.split('~')[0]}~{secrets.token_hex(3)}")
    return path
