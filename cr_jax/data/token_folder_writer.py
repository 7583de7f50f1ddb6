"""`cr-jax tokenize`: an experiment's text -> a token folder."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

from cr_jax.config import Experiment
from cr_jax.data.corpus import Corpus, entry_of
from cr_jax.data.corpus_draft import FILES, TOKENS, file_sum, locked_folder
from cr_jax.data.corpus_specs import all_specs
from cr_jax.data.experiment_text import check_sources, make_tokenizer, sized, tokenised
from cr_jax.data.sources import fingerprint
from cr_jax.data.token_folder import (
    CORPORA,
    FORM,
    FORMAT,
    MANIFEST,
    PACKED,
    TOKENIZER,
    TokenFolder,
    tokenizer_settings,
)
from cr_jax.errors import UserError
from cr_jax.host.files import expanded, read_sealed, write_sealed

_PLAN = "making.json"


def write(
    e: Experiment,
    out: str | os.PathLike,
    *,
    jobs: int = 0,
    compress: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> TokenFolder:
    """Writes the folder `out`; nothing is there before all of it is.

    What is finished waits in `.NAME.making` beside it, so that the same call goes on after a kill,
    Ctrl-C or a full disk.  A folder that already holds these tokens is checked and left alone.

    Args:
        jobs: processes that encode text; 0: one per core.  They do not change a byte.
        compress: ids are stored with zstd, to be unpacked by the first run that reads them.
    `UserError` when `out` is something else or of other settings, when work on it is under way,
    when a source is bad, and when there is no room.
    """
    path = expanded(out)
    if not path.name:
        raise UserError(f"--out={out} has no name: give a new folder")
    if os.path.lexists(path):
        return _already(path, e, say)
    check_sources(e)  # a missing file is told before another one is read
    draft = path.with_name(f".{path.name}.making")
    try:
        with locked_folder(draft, wait=False) as folder:
            if os.path.lexists(path):  # another process has just finished it
                shutil.rmtree(folder)
                return _already(path, e, say)
            if (folder / MANIFEST).exists() and not (folder / _PLAN).exists():
                _already(folder, e, lambda line: None)  # it was stopped right before its renaming
            else:
                _go_on(e, folder, jobs, compress, say)
            os.replace(folder, path)
    except BlockingIOError:
        raise UserError(
            f"another process is writing {path}; wait for it or choose another --out"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; what is finished is in {draft}: "
            "make room or allow writing, then run the same command to go on"
        ) from None
    return TokenFolder(path)


def _already(path: Path, e: Experiment, say: Callable[[str], None]) -> TokenFolder:
    if not os.path.isfile(path / MANIFEST):
        raise UserError(f"{path} is there and is no token folder: choose another --out")
    found = TokenFolder(path)
    found.tokenizer(e)
    found.check(all_specs(e))
    say(f"{path} already holds these tokens, every byte as it was written")
    return found


def _go_on(
    e: Experiment, folder: Path, jobs: int, compress: bool, say: Callable[[str], None]
) -> None:
    _same_plan(e, folder)
    try:
        _make(e, folder, jobs, compress, say)
    except UserError:
        if not any(folder.glob(f"{CORPORA}/*")):  # nothing is there to go on with
            shutil.rmtree(folder)
        raise


def _make(
    e: Experiment, folder: Path, jobs: int, compress: bool, say: Callable[[str], None]
) -> None:
    specs = all_specs(e)
    tokenizer = make_tokenizer(e, folder, say)
    sized(e.model, tokenizer)  # refused before text is read
    tokenizer.save(folder / TOKENIZER)
    with tokenised(e, tokenizer, folder / CORPORA, say, jobs) as corpus:
        records = [{**dataclasses.asdict(spec), **_counted(corpus(spec))} for spec in specs]
    entries = {record["folder"]: folder / CORPORA / record["folder"] for record in records}
    files = {name: _seal(entry, compress) for name, entry in entries.items()}
    for entry in (folder / CORPORA).iterdir():
        if entry.name not in entries:  # of an earlier text
            shutil.rmtree(entry)
    for part in (*folder.glob(".*"), *folder.glob(f"{TOKENIZER}/.*")):
        part.unlink()  # what a kill left of a file
    write_sealed(
        folder / MANIFEST,
        {
            "format": FORMAT,
            **FORM,
            "tokenizer": {
                "fingerprint": tokenizer.fingerprint,
                "settings": tokenizer_settings(e),
                "files": {p.name: file_sum(p) for p in sorted((folder / TOKENIZER).iterdir())},
            },
            "corpora": [{**record, **files[record["folder"]]} for record in records],
        },
    )
    (folder / _PLAN).unlink()


def _same_plan(e: Experiment, folder: Path) -> None:
    """`UserError` when the folder was begun with other settings or text: a tokenizer that was
    trained there would not be this experiment's."""
    settings = tokenizer_settings(e)
    text = [
        fingerprint(spec)
        for s in all_specs(e)
        if settings["trained"] and s.split == "train"
        for spec in s.placed(e.data.root)
    ]
    plan = {"format": FORMAT, "tokenizer": settings, "text": text}
    if not (folder / _PLAN).exists():
        if any(folder.iterdir()):
            raise UserError(f"{folder} is in the way: delete it or choose another --out")
        write_sealed(folder / _PLAN, plan)
    elif read_sealed(folder / _PLAN, FORMAT) != plan:
        raise UserError(
            f"{folder} was begun with another tokenizer or text to train it on: delete "
            "it or choose another --out"
        )


def _counted(corpus: Corpus) -> dict[str, Any]:
    return {
        "documents": len(corpus.names),
        "tokens": len(corpus.tokens),
        "bytes": corpus.bytes,
        "folder": entry_of("", corpus.fingerprint).name,
    }


def _seal(entry: Path, compress: bool) -> dict[str, Any]:
    """The SHA-256 of a corpus's files; with `compress` its ids are packed first."""
    sums = {name: file_sum(entry / name) for name in FILES}
    if not compress:
        return {"files": sums}
    part = entry / f".{PACKED}"
    packer = zstandard.ZstdCompressor(level=9, threads=-1)
    with open(entry / TOKENS, "rb") as ids, open(part, "wb") as out:
        packer.copy_stream(ids, out, size=(entry / TOKENS).stat().st_size)
    os.replace(part, entry / PACKED)
    (entry / TOKENS).unlink()
    unpacked = sums.pop(TOKENS)
    return {"files": {**sums, PACKED: file_sum(entry / PACKED)}, "unpacked": unpacked}
