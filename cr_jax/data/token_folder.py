"""A folder with everything that a run reads of its text: ids, document starts, the tokenizer.

    tokens.json             sealed; format, tokenizer, and per corpus what it is of and its SHA-256
    tokenizer/*             what the tokenizer saved
    corpora/KEY/            an entry of the token cache: tokens.npy, starts.npy, corpus.json;
                            compressed: tokens.npy.zst

`cr-jax tokenize` writes it (`token_folder_writer`), `config.data.tokens` reads it.  Not in the
paper.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import zstandard

from cr_jax.config import Experiment
from cr_jax.data.corpus import Corpus, entry_of, making, stored
from cr_jax.data.corpus_draft import FILES, NOTE, STARTS, TOKENS, file_sum
from cr_jax.data.corpus_specs import CorpusSpec
from cr_jax.data.groups import KEYS
from cr_jax.data.tokenizers import Gpt2Tokenizer, Tokenizer, load_tokenizer
from cr_jax.errors import UserError
from cr_jax.host.files import changed, expanded, read_sealed, sha256

FORMAT = 1
MANIFEST, TOKENIZER, CORPORA = "tokens.json", "tokenizer", "corpora"
PACKED = TOKENS + ".zst"
# What the numbers mean; a folder in which they mean something else is refused.
FORM = {
    "text": "every document in the form text_form of its corpus, then the tokenizer's end_id",
    "groups": "@train, @valid, @test: the first 8 bytes (big-endian) of the SHA-256 of a group's "
    "name, modulo 10, are 0 to 7, 8, 9; a record's group without another key is the "
    f"first of {', '.join(KEYS)}, also inside meta and metadata",
}


def tokenizer_settings(e: Experiment) -> dict[str, Any]:
    """What the experiment says of its tokenizer; of a trained one all that it depends on."""
    t = e.tokenizer
    if t.kind != "sentencepiece" or t.folder:
        return {"kind": t.kind, "trained": None}
    return {
        "kind": t.kind,
        "trained": {
            "vocab_size": t.vocab_size,
            "train_bytes": t.train_bytes,
            "seed": e.seed,
            "group_key": e.data.group_key,
            "text_form": e.data.text_form,
            "domains": {name: list(d.train) for name, d in e.data.domains.items()},
        },
    }


class TokenFolder:
    """A token folder whose manifest and list of files are right; the bytes of a corpus are compared
    with their SHA-256 when it is read.

    `UserError` that names the folder and what is wrong: it is missing, damaged, of another format,
    holds a link or a file that does not belong to it, or lacks one.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = expanded(path)
        manifest = self.path / MANIFEST
        if not os.path.isfile(manifest):
            raise UserError(
                f"{self.path} is no token folder: it has no {MANIFEST}; make one with "
                "cr-jax tokenize"
            )
        self._record = read_sealed(manifest, FORMAT)
        try:
            self._read_record(self._record)
        except (KeyError, TypeError, AttributeError):
            raise UserError(
                f"{manifest} does not describe a token folder; make it again with cr-jax tokenize"
            ) from None
        for field, words in FORM.items():
            if self._record.get(field) != words:
                raise UserError(
                    f"{self.path} was made with another form of the {field} than this "
                    "version reads; make it again with cr-jax tokenize"
                )
        self._check_files()

    def _read_record(self, record: Mapping[str, Any]) -> None:
        self._settings, self._fingerprint = (
            record["tokenizer"][k] for k in ("settings", "fingerprint")
        )
        self._sums = {
            f"{TOKENIZER}/{name}": str(digest)
            for name, digest in record["tokenizer"]["files"].items()
        }
        self._entries = {}
        for entry in record["corpora"]:
            spec = CorpusSpec(
                str(entry["domain"]),
                str(entry["split"]),
                tuple(entry["specs"]),
                entry["max_tokens"],
                entry["group_key"],
                entry["text_form"],
            )
            self._entries.setdefault((spec.domain, spec.split), []).append((spec, entry))
            place = f"{CORPORA}/{entry['folder']}"
            self._sums |= {
                f"{place}/{name}": str(digest) for name, digest in entry["files"].items()
            }

    def _check_files(self) -> None:
        known = {MANIFEST, *self._sums}
        parents = {parent.as_posix() for name in known for parent in Path(name).parents}
        there = set()
        for folder, folders, names in os.walk(self.path):
            for name in [*folders, *names]:
                path = Path(folder, name)
                local = path.relative_to(self.path).as_posix()
                if path.is_symlink() or not (path.is_file() or path.is_dir()):
                    raise UserError(
                        f"{path} is a link or no file: a token folder holds its own "
                        "files only; put a copy in its place"
                    )
                if local not in (parents if path.is_dir() else known):
                    raise UserError(f"{path} does not belong to the token folder; take it out")
                there.add(local)
        if missing := sorted(known - there):
            raise UserError(
                f"{self.path / missing[0]} is missing from the token folder: copy the "
                "folder again or make it with cr-jax tokenize"
            )

    def tokenizer(self, e: Experiment) -> Tokenizer:
        """The tokenizer that made the ids.  `UserError` unless it is the experiment's own.

        That of `config.tokenizer.folder` is compared where the folder is there; it may be missing.
        """
        wanted, own = tokenizer_settings(e), self._settings
        if wanted["kind"] != own["kind"]:
            raise UserError(
                f"{self.path} has ids of a {own['kind']} tokenizer, the config names "
                f"{wanted['kind']}: {_WAYS}"
            )
        if wanted["trained"] and wanted != own:
            fields = [k for k, v in wanted["trained"].items() if v != (own["trained"] or {}).get(k)]
            raise UserError(
                f"{self.path} has ids of another tokenizer than the config trains "
                f"({', '.join(fields)}): {_WAYS}, or name {self.path / TOKENIZER} as "
                "config.tokenizer.folder"
            )
        self._check_sums(TOKENIZER)
        own_tokenizer = load_tokenizer(self.path / TOKENIZER)
        if own_tokenizer.fingerprint != self._fingerprint:
            raise changed(self.path / TOKENIZER)
        gpt2 = own["kind"] == "gpt2"
        given = e.tokenizer.folder or (os.environ.get("CR_JAX_GPT2") if gpt2 else "")
        if own["kind"] != "bytes" and given and expanded(given).is_dir():
            other = Gpt2Tokenizer(given) if gpt2 else load_tokenizer(given)
            if other.fingerprint != own_tokenizer.fingerprint:
                raise UserError(f"{self.path} has ids of another tokenizer than {given}: {_WAYS}")
        return own_tokenizer

    def own_tokenizer(self) -> Tokenizer:
        """The tokenizer that made the ids, whatever an experiment says."""
        self._check_sums(TOKENIZER)
        return load_tokenizer(self.path / TOKENIZER)

    def specs(self, split: str) -> list[CorpusSpec]:
        """The corpora of a split that the folder has, in its own order."""
        return [
            spec for (_, own), found in self._entries.items() if own == split for spec, _ in found
        ]

    def corpus(self, spec: CorpusSpec, cache: Path) -> Corpus:
        """A corpus of the experiment; a compressed one is unpacked into `cache` at first use.

        `UserError` when the folder has none of that domain, split, sources and limit, and when a
        byte of it was changed.
        """
        entry = self._entry(spec)
        folder = self.path / CORPORA / entry["folder"]
        self._check_sums(f"{CORPORA}/{entry['folder']}")
        if PACKED in entry["files"]:
            folder = self._unpacked(folder, entry, cache)
        try:
            return stored(folder)
        except (OSError, ValueError, KeyError, TypeError):
            raise changed(folder) from None

    def need(self, specs: Iterable[CorpusSpec]) -> None:
        """`UserError` unless the folder has all of `specs`; reads none of them."""
        for spec in specs:
            self._entry(spec)

    def check(self, specs: Iterable[CorpusSpec]) -> None:
        """`UserError` unless the folder has all of `specs`, every byte as it was written."""
        for spec in specs:
            self._check_sums(f"{CORPORA}/{self._entry(spec)['folder']}")

    def _entry(self, spec: CorpusSpec) -> Mapping[str, Any]:
        found = self._entries.get((spec.domain, spec.split))
        if not found:
            raise UserError(f"{self.path} has no tokens of {spec}: {_WAYS}")
        for other, entry in found:
            if other == spec:
                return entry
        raise UserError(
            f"{self.path} has tokens of {spec} from other sources, with another "
            f"limit or other groups ({_of(found)}) than the config names "
            f"({_of([(spec, {})])}): {_WAYS}"
        )

    def _check_sums(self, place: str) -> None:
        for name, digest in self._sums.items():
            if name.startswith(place + "/") and sha256(self.path / name) != digest:
                raise changed(self.path / name)

    def _unpacked(self, folder: Path, entry: Mapping[str, Any], cache: Path) -> Path:
        wanted = {name: entry["files"].get(name, entry["unpacked"]) for name in FILES}
        place = entry_of(cache, entry["folder"])
        if _sums(place) == wanted:
            return place
        with making(place, entry["folder"]) as draft:
            for name in (STARTS, NOTE):
                (draft / name).write_bytes((folder / name).read_bytes())
            try:
                with open(folder / PACKED, "rb") as packed, open(draft / TOKENS, "wb") as out:
                    zstandard.ZstdDecompressor().copy_stream(packed, out)
            except zstandard.ZstdError:
                raise changed(folder / PACKED) from None
        if _sums(place) != wanted:
            raise changed(folder / PACKED)
        return place


_WAYS = "tokenize with this config, or train with the one that made the folder"


def _of(found) -> str:
    return " and ".join(
        ", ".join(spec.specs)
        + (f" up to {spec.max_tokens:,} tokens" if spec.max_tokens else "")
        + (f" grouped by {spec.group_key!r}" if spec.group_key else "")
        + f" in the form {spec.text_form}"
        for spec, _ in found
    )


def _sums(entry: Path) -> dict[str, str] | None:
    try:
        return {name: file_sum(entry / name) for name in FILES}
    except OSError:
        return None
