"""Is a bank as it was written, and does it hold nothing else?"""

import functools
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

from cr_jax.bank.manifest import EXPERT_FILES, LM, MANIFEST, read_manifest
from cr_jax.bank.removal import ASIDE, CASCADE, EXPERTS, INDEX, OWN, SCREEN, SEED, TOKENIZER
from cr_jax.errors import UserError
from cr_jax.host.inside import Inside, NotInside
from cr_jax.host.locks import GROWING, GROWING_HELD, LOCK

if TYPE_CHECKING:
    from cr_jax.bank.files import BankFolder


def problems(files: "BankFolder") -> list[str]:
    """Every problem as one line."""
    checks: list[Callable[[], object]] = [
        *(functools.partial(files.tokenizer_file, n) for n in files.index["tokenizer_files"]),
        *(functools.partial(_check_expert, files, n) for n in files.names),
        functools.partial(_check_seed, files),
        functools.partial(_check_fits, files),
    ]
    found = []
    for check in checks:
        try:
            check()
        except UserError as error:
            found.append(str(error))
    return [*found, *_strangers(files.inside, _known(files))]


def _check_expert(files: "BankFolder", name: str) -> None:
    files.sealed_expert(name).check()


def _check_seed(files: "BankFolder") -> None:
    if seed := files.sealed_seed():
        seed.check()


def _check_fits(files: "BankFolder") -> None:
    # Which know `BankFolder`, whose module knows this one.
    from cr_jax.bank import own_documents_file, screen_file

    if files.inside.has(CASCADE):
        files.inside.read_sealed(CASCADE)
    screen_file.read_of(files)
    own_documents_file.read_of(files)


def _known(files: "BankFolder") -> set[str]:
    """What belongs to the bank, as paths below it."""
    tokenizer = (f"{TOKENIZER}/{n}" for n in files.index["tokenizer_files"])
    known = {INDEX, CASCADE, SCREEN, OWN, LOCK, GROWING, GROWING_HELD, *tokenizer}
    for name in files.names:
        try:
            listed = tuple(read_manifest(files.open_expert(name)).files)
        except UserError:
            listed = EXPERT_FILES
        known |= {f"{EXPERTS}/{name}/{f}" for f in (*listed, MANIFEST)}
    return known | ({f"{SEED}/{f}" for f in (LM, MANIFEST)} if files.seed else set())


def _strangers(bank: Inside, known: Collection[str]) -> list[str]:
    """One line for everything below a bank that is not `known`: paths below it."""
    lines = []
    for path, inside in _walk(bank, ""):
        if path.startswith(f"{ASIDE}/"):
            lines.append(f"{bank.path / path} was set aside: look at it, then delete it")
        elif not inside:
            lines.append(
                f"{bank.path / path} is a link, or neither a file nor a folder: a bank holds its "
                "own files only; delete it or put a copy in its place"
            )
        elif path not in known:
            lines.append(
                f"{bank.path / path} belongs to no expert of the bank: move it away or delete it"
            )
    return lines


def _walk(folder: Inside, above: str) -> Iterator[tuple[str, bool]]:
    """Paths of everything that is no folder, and whether it is a file."""
    for name in folder.names():
        path = above + name
        if folder.is_folder(name):
            if above == f"{ASIDE}/":
                yield path, True
                continue
            try:
                with folder.folder(name) as inner:
                    yield from _walk(inner, f"{path}/")
            except NotInside:
                yield path, False
            except UserError:
                if folder.has(name):  # else a writer has deleted it since it was listed
                    raise
        else:
            yield path, folder.is_file(name)
