"""A bank as folders that the Hugging Face Hub takes as they are, and back, byte for byte.

Not in the paper.

    OUT/experts/NAME/   one repository: README.md (model card), config.json, model.safetensors (the
                        parameters), expert.json, calibration.json, manifest.json, tokenizer/*, and
                        where the expert has them bigram.safetensors and lm.safetensors
    OUT/shared/         what belongs to the bank as a whole: bank.json, and where it has them
                        cascade.json, screen.json, own_documents.json and seed_lm/*

An expert's files keep their bytes; two have other names there (`_NAMES`).  So an import puts the
bank's own folder together again, and what checks a bank checks an import.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from cr_jax.bank import model_card
from cr_jax.bank.entry_checks import check_free
from cr_jax.bank.files import (
    CASCADE,
    OWN,
    SCREEN,
    SEED,
    TOKENIZER,
    BankFolder,
    check_name,
    writable,
    write_sealed,
)
from cr_jax.bank.manifest import LM, MANIFEST, read_manifest
from cr_jax.bank.removal import EXPERTS, INDEX
from cr_jax.errors import UserError, turning
from cr_jax.host.files import expanded, fresh_folder, parse_json, write_whole
from cr_jax.host.inside import Inside

CONFIG, SHARED, MODEL_TYPE = "config.json", "shared", "cr_jax"
_NAMES = {"params.safetensors": "model.safetensors", "config.json": "expert.json"}
_OWN = ("experts", SEED)  # fields of bank.json that are not of every expert


def export(
    bank_folder: str | os.PathLike, out: str | os.PathLike, license_id: str = ""
) -> list[str]:
    """Writes a bank to the folder `out`, which must be empty or not exist; -> the experts' names.

    license_id: of the model cards, such as "apache-2.0"; empty: none is stated.  `UserError` when
    a byte of the bank was changed, or `out` cannot be written; then nothing is there.
    """
    files, place = BankFolder(bank_folder), expanded(out)
    if os.path.lexists(place) and (not place.is_dir() or any(place.iterdir())):
        raise UserError(f"{place} is not an empty folder: choose another place for the export")
    if problems := files.verify():
        raise UserError(problems[0])
    with files.quiet(), _draft(place) as draft:
        for name in files.names:
            _export_expert(files, name, draft / EXPERTS / name, license_id)
        shared = draft / SHARED
        shared.mkdir(parents=True)
        for name in (INDEX, CASCADE, SCREEN, OWN):
            if files.inside.has(name):
                _copy(files.inside, name, shared / name)
        if files.seed is not None:
            (shared / SEED).mkdir()
            for name in (MANIFEST, LM):
                _copy(files.inside.folder(SEED), name, shared / SEED / name)
        os.replace(draft, place)
    return list(files.names)


def import_exports(
    sources: Sequence[str | os.PathLike],
    bank_folder: str | os.PathLike,
    say: Callable[[str], None] = logging.warning,
) -> list[str]:
    """Makes a bank of what `export` wrote, or adds it to the bank that is there; -> names added.

    sources: a whole export, or folders of experts, such as repositories that were downloaded.
    say: hears what was set aside.  `UserError` when they do not belong together, a byte was
    changed, or the bank has one of the names; then all is as it was.
    """
    from cr_jax.bank.bank import ExpertBank
    from cr_jax.bank.joining import import_experts

    place = expanded(bank_folder)
    there = os.path.isfile(place / INDEX)
    if not there and os.path.lexists(place) and (not place.is_dir() or any(place.iterdir())):
        raise UserError(f"{place} is no bank and not empty: choose another place for the bank")
    with _draft(place) as draft:
        with _named_by(draft, sources):
            _assemble([expanded(source) for source in sources], draft)
            names = list(ExpertBank.load(draft).names)
        if there:
            check_free(BankFolder(place), names)
            return import_experts(place, draft, say=say)
        os.replace(draft, place)
    return names


def opened(folder: str | os.PathLike) -> Any:
    """An `ExpertBank`, in memory, of a whole export or of one expert's folder.  `UserError` as of
    `import_exports`."""
    import dataclasses

    from cr_jax.bank.bank import ExpertBank

    with tempfile.TemporaryDirectory() as place:
        draft = Path(place, "bank")
        draft.mkdir()
        with _named_by(draft, [folder]):
            _assemble([expanded(folder)], draft)
            return dataclasses.replace(ExpertBank.load(draft), folder=None)


def is_export(folder: str | os.PathLike) -> bool:
    """Whether `export` wrote the folder, or an expert's folder in it."""
    place = Path(folder)
    if os.path.isfile(place / SHARED / INDEX) and os.path.isdir(place / EXPERTS):
        return True
    try:
        return json.loads((place / CONFIG).read_bytes())["model_type"] == MODEL_TYPE
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _export_expert(files: BankFolder, name: str, place: Path, license_id: str) -> None:
    (place / TOKENIZER).mkdir(parents=True)
    sealed = files.sealed_expert(name)
    for file in (*sealed.manifest.files, MANIFEST):
        _copy(sealed.folder, file, place / _NAMES.get(file, file))
    for file in files.index["tokenizer_files"]:
        _copy(files.inside.folder(TOKENIZER), file, place / TOKENIZER / file)
    shared = {key: value for key, value in files.index.items() if key not in _OWN}
    about = {"model_type": MODEL_TYPE, "expert": name, "bank": shared}
    write_whole(place / CONFIG, json.dumps(about, indent=1) + "\n")
    record = sealed.folder.read_json("config.json")
    write_whole(place / "README.md", model_card.text(name, shared, record, license_id))


def _assemble(sources: Sequence[Path], draft: Path) -> None:
    """Puts the bank's own folder together in `draft`.  `UserError` for a byte that was changed."""
    (draft / EXPERTS).mkdir()
    seals: dict[str, dict[str, str]] = {}
    shared: Mapping[str, Any] | None = None
    for folder in _expert_folders(sources):
        name, about = _about(folder)
        if name.lower() in {other.lower() for other in seals}:
            raise UserError(f"{folder.path}: there is an expert {name!r} already")
        if shared is None:
            shared = about
            (draft / TOKENIZER).mkdir()
            with folder.folder(TOKENIZER) as tokenizer:
                for file in shared["tokenizer_files"]:
                    _copy(tokenizer, file, draft / TOKENIZER / file)
        elif field := _unlike(shared, about):
            raise UserError(
                f"{folder.path} is an expert of another bank than {sources[0]}: they share no "
                f"{field}"
            )
        (draft / EXPERTS / name).mkdir()
        for file in (*read_manifest(folder).files, MANIFEST):
            _copy(folder, _NAMES.get(file, file), draft / EXPERTS / name / file)
        seals[name] = {"sha256": folder.sha256(MANIFEST)}
    assert shared is not None, "a source has at least one expert, or is refused"
    if len(sources) > 1 or not os.path.isfile(sources[0] / SHARED / INDEX):
        write_sealed(draft / INDEX, {**shared, "experts": seals})
    else:
        _copy_shared(sources[0], draft)
    if problems := BankFolder(draft).verify():
        raise UserError(problems[0])


def _copy_shared(source: Path, draft: Path) -> None:
    """bank.json of a whole export, and what is beside it."""
    with _open(source) as whole, whole.folder(SHARED) as own:
        for file in (INDEX, CASCADE, SCREEN, OWN):
            if own.has(file):
                _copy(own, file, draft / file)
        if own.has(SEED):
            (draft / SEED).mkdir()
            for file in (MANIFEST, LM):
                _copy(own.folder(SEED), file, draft / SEED / file)


def _expert_folders(sources: Sequence[Path]) -> Iterator[Inside]:
    """In the order of their banks; one is open at a time, for a process may open about 1,000."""
    for source in sources:
        if not os.path.isfile(source / SHARED / INDEX):
            with _open(source) as folder:
                yield folder
            continue
        with _open(source) as whole:
            with whole.folder(SHARED) as shared:
                names = shared.read_sealed(INDEX).get("experts")
            if not isinstance(names, dict) or not names:
                raise UserError(f"{whole.path} holds no expert: export the bank again")
            with whole.folder(EXPERTS) as experts:
                for name in names:
                    with experts.folder(check_name(name)) as folder:
                        yield folder


def _about(folder: Inside) -> tuple[str, Mapping[str, Any]]:
    """An expert's name, and what its bank.json says of all experts."""
    path = folder.path / CONFIG
    about = parse_json(folder.read(CONFIG), path) if folder.has(CONFIG) else None
    if not isinstance(about, dict) or about.get("model_type") != MODEL_TYPE:
        raise UserError(
            f"{folder.path} is no export of an expert: it has no {CONFIG} with model_type "
            f"{MODEL_TYPE!r}; cr-jax bank export writes one"
        )
    shared = about.get("bank")
    if not isinstance(shared, dict) or not isinstance(shared.get("tokenizer_files"), dict):
        raise UserError(f"{path} does not describe a bank: export the expert again")
    if "experts" in shared or "sha256" in shared:
        raise UserError(f"{path} names experts of its own: export the expert again")
    return check_name(about.get("expert", "")), shared


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first field in which two banks differ."""
    fields = dict.fromkeys((*one, *other))
    return next((field for field in fields if one.get(field) != other.get(field)), None)


def _open(path: Path) -> Inside:
    try:
        return Inside.at(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _copy(source: Inside, name: str, place: Path) -> None:
    with source.reading(name) as stream, open(place, "xb") as out:
        shutil.copyfileobj(stream, out, 1 << 20)


@contextlib.contextmanager
def _draft(place: Path) -> Iterator[Path]:
    """A hidden folder beside `place`, to be renamed to it; gone at the end otherwise."""
    whole = place.absolute()
    with writable(place):
        whole.parent.mkdir(parents=True, exist_ok=True)
        draft = fresh_folder(whole.parent, f".{whole.name[:100]}.")
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _named_by(draft: Path, sources: Sequence[str | os.PathLike]) -> turning:
    """Errors name the sources, and not the folder in which they are put together."""
    shown = ", ".join(str(source) for source in sources)
    return turning(lambda error: UserError(str(error).replace(str(draft), shown)), UserError)
