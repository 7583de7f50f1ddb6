"""Inputs that nobody should send: texts, parameter files, JSON, names and sizes, by hypothesis.

A case is a `Case`: which command, on which bytes.  What is sealed has correct SHA-256s all the way
up, so that the reader behind the seal is reached.
"""

import dataclasses
import json
import os
import shutil
import struct
from pathlib import Path

from hypothesis import strategies as st

from cr_jax.bank import files as bank_folder
from cr_jax.bank.manifest import BIGRAM, EXPERT_FILES, LM, write_manifest

EXPERT = "e0"
INSIDE = f"experts/{EXPERT}/"
JSON_FILES = (
    "bank.json",
    INSIDE + "config.json",
    INSIDE + "calibration.json",
    INSIDE + "manifest.json",
    "tokenizer/tokenizer.json",
    "seed_lm/manifest.json",
)
# Files of language models, which routing does not read.
SPOKEN = (INSIDE + LM, f"seed_lm/{LM}", "seed_lm/manifest.json")
TENSORS = (INSIDE + "params.safetensors", INSIDE + BIGRAM, *SPOKEN[:2])
CLIMBING = (
    "..",
    "../..",
    "../x",
    "../../etc/passwd",
    "/etc/passwd",
    "/",
    ".",
    "",
    "~",
    "a/../../b",
    "e0/../../../x",
    "..\\x",
    "C:\\x",
    "experts/../../x",
    ".hidden",
    "-x",
    "--",
    "unknown",
    "e0/",
    "./e0",
    "*",
    "$(x)",
    "`x`",
    "e0;x",
    "con",
    "e1",
    "x" * 300,
    "x/" * 3000,
)
_DEEP = "stands for deeply nested lists"
SIZES = (0, -1, 1, 2, 3, 2**15, 2**31 - 1, 2**31, 2**40, 2**62, 2**63, 2**64, 10**30, 10**400)


@dataclasses.dataclass(frozen=True)
class Case:
    """One input.

    argv: {bank}, {input} and {other} stand for the bank, a file with `text` and a second bank;
    files: bytes to put into the bank before; sealed: whether the seals follow.
    """

    kind: str
    argv: tuple[str, ...]
    text: bytes = b"a few words\n"
    files: tuple[tuple[str, bytes], ...] = ()
    sealed: bool = False

    @property
    def must_fail(self) -> bool:
        """A changed byte under the old seals, in a command that reads it."""
        if not self.files or self.sealed or self.argv[:2] == ("bank", "list"):
            return False
        if self.argv[0] != "bank" and self.files[0][0] in SPOKEN:
            return False
        return self.argv[:2] != ("bank", "add") or self.files[0][0].startswith(INSIDE)


READING = (
    ("route", "--bank", "{bank}", "{input}"),
    ("route", "--json", "--bank", "{bank}", "{input}"),
    ("route", "--min-candidates", "1", "--bank", "{bank}", "{input}"),
    ("reconstruct", "--bank", "{bank}", "--expert", EXPERT, "{input}"),
)
KEEPING = (
    ("bank", "verify", "--bank", "{bank}"),
    ("bank", "list", "--bank", "{bank}"),
    ("bank", "list", "--json", "--bank", "{bank}"),
    ("bank", "add", "--bank", "{other}", "{bank}/" + INSIDE.rstrip("/"), "--name", "new"),
)
ALL = READING + KEEPING

# What a real command line can hold: any bytes but NUL.
words = st.one_of(
    st.sampled_from(CLIMBING),
    st.binary(max_size=40).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"\n"))),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30),
    st.text(st.sampled_from("./\\\n\r\t\x1b[31m\x07\x85\u2028\u202e eé"), max_size=20),
)
numbers = st.one_of(st.integers(), st.sampled_from(SIZES), st.floats())
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        numbers,
        st.text(max_size=20),
        st.sampled_from(CLIMBING),
        st.text("\n\x00\x1b\ud800/.", max_size=6),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)


def texts() -> st.SearchStrategy[Case]:
    """Random bytes as a text file."""
    raw = st.one_of(
        st.binary(max_size=300),
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.text("\x1b[2J\x9b\r\b\u202e\u2028ab", max_size=60).map(str.encode),
        st.tuples(st.text("abc \n", max_size=80), st.binary(max_size=4)).map(
            lambda pair: pair[0].encode() + pair[1]
        ),
        st.tuples(
            st.sampled_from([b"a", b"\n", "é".encode(), b"\xf0\x9f", b"\r\n"]), st.integers(1, 3000)
        ).map(lambda pair: pair[0] * pair[1]),
    )
    return st.builds(Case, st.just("text"), st.sampled_from(READING), raw)


def parameters(bank: Path) -> st.SearchStrategy[Case]:
    """Random bytes as parameters or as a bigram model, splices of good ones, forged headers."""
    return st.builds(
        Case,
        st.just("safetensors"),
        st.sampled_from(ALL),
        st.just(b"words"),
        st.sampled_from(TENSORS).flatmap(lambda name: _tensors(bank, name)),
        st.booleans(),
    )


def _tensors(bank, name):
    good = (bank / name).read_bytes()
    (size,) = struct.unpack("<Q", good[:8])
    header = json.loads(good[8 : 8 + size])

    def splice(parts):
        at, cut, new = parts
        return good[:at] + new + good[at + cut :]

    def forge(parts):
        tensor, field, value, length = parts
        entry = {**header[tensor], field: value} if field != "name" else value
        text = dumps({**header, tensor: entry})
        return (
            struct.pack("<Q", (len(text) if length is None else length) % 2**64)
            + text
            + good[8 + size :]
        )

    near = st.one_of(st.integers(0, 8 + size), st.integers(0, len(good)))
    shape = st.lists(st.one_of(st.sampled_from(SIZES), st.integers(0, 99)), max_size=4)
    kinds = st.sampled_from(["F64", "I8", "BF16", "F16", "BOOL", "F8_E4M3"])
    value = st.one_of(shape, values, kinds)
    raw = st.one_of(
        st.binary(max_size=200),
        st.tuples(near, st.integers(0, 40), st.binary(max_size=40)).map(splice),
        st.tuples(
            st.sampled_from(sorted(header)),
            st.sampled_from(["shape", "dtype", "data_offsets", "name"]),
            value,
            st.one_of(st.none(), st.sampled_from(SIZES)),
        ).map(forge),
        st.tuples(st.integers(0, 2**64 - 1), st.binary(max_size=60)).map(
            lambda pair: struct.pack("<Q", pair[0]) + pair[1]
        ),
    )
    return raw.map(lambda data: ((name, data),))


def manifests(bank: Path) -> st.SearchStrategy[Case]:
    """Random bytes or JSON for each JSON file of a bank, or one field of a good one replaced."""
    good = {name: json.loads((bank / name).read_bytes()) for name in JSON_FILES}

    def replaced(name):
        paths = _paths(good[name])
        return st.tuples(st.sampled_from(paths), values, st.booleans()).map(
            lambda parts: dumps(_with(good[name], *parts))
        )

    def one(name):
        paths = _paths(good[name])
        raw = st.one_of(
            st.binary(max_size=100),
            values.map(dumps),
            replaced(name),
            replaced(name),
            st.integers(1, 50_000).map(lambda n: b"[" * n),
            st.integers(1, 3000).map(lambda n: b"[" * n + b"]" * n),
            st.tuples(st.sampled_from(paths), st.integers(1, 3000)).map(
                lambda pair: dumps(_with(good[name], pair[0], _DEEP, False)).replace(
                    dumps(_DEEP), b"[" * pair[1] + b"]" * pair[1]
                )
            ),
            st.integers(1, 6_000).map(lambda n: b"9" * n),
        )
        return raw.map(lambda data: ((name, data),))

    return st.builds(
        Case,
        st.just("json"),
        st.sampled_from(ALL),
        st.just(b"words"),
        st.sampled_from(JSON_FILES).flatmap(one),
        st.booleans(),
    )


def names(bank: Path) -> st.SearchStrategy[Case]:
    """Names that climb, steer a terminal or are none: as arguments, and inside a sealed bank."""
    good = json.loads((bank / "bank.json").read_bytes())
    argument = words.flatmap(
        lambda w: st.sampled_from(
            (
                ("bank", "remove", "--bank", "{bank}", w),
                ("bank", "remove", "--bank", w, EXPERT),
                ("bank", "add", "--bank", "{other}", "{bank}/" + INSIDE.rstrip("/"), "--name", w),
                ("bank", "add", "--bank", "{other}", w),
                ("route", "--bank", w, "{input}"),
                ("reconstruct", "--bank", "{bank}", "--expert", w, "{input}"),
                # A folder stands for all its files: not those of the whole machine.
                ("route", "--bank", "{bank}", "{input}" if w == "/" else w),
                ("reconstruct", "--bank", "{bank}", "--expert", "e0", w),
                ("route", "--bank", "{bank}", "--alpha", w, "{input}"),
                (w,),
                ("bank", w),
                ("route", "--bank", "{bank}", "--windows", w, "{input}"),
                ("bank", "verify", "--bank", "{bank}", w),
            )
        )
    )
    inside = st.tuples(
        st.sampled_from(["experts", "tokenizer_files"]), st.one_of(words, st.text()), st.booleans()
    )

    def renamed(parts):
        group, name, keep = parts
        entry = next(iter(good[group].values()))
        changed = {**good, group: {**(good[group] if keep else {}), name: entry}}
        return (("bank.json", dumps(changed)),)

    remove = ("bank", "remove", "--bank", "{bank}", EXPERT)
    return st.one_of(
        st.builds(Case, st.just("name"), argument),
        st.builds(
            Case,
            st.just("name"),
            st.sampled_from((*ALL, remove)),
            st.just(b"words"),
            inside.map(renamed),
            st.just(True),
        ),
    )


def sizes(bank: Path) -> st.SearchStrategy[Case]:
    """Absurd sizes in the bank's and its only expert's model, all seals right."""
    index, record = (json.loads((bank / f).read_bytes()) for f in JSON_FILES[:2])
    fields = sorted(
        k for k, v in index["model"].items() if isinstance(v, int) and not isinstance(v, bool)
    )
    some = st.dictionaries(
        st.sampled_from(fields),
        st.one_of(st.sampled_from(SIZES), st.integers(1, 2**20), st.integers(1, 64)),
        min_size=1,
        max_size=4,
    )

    def both(change):
        return tuple(
            (name, dumps({**raw, "model": {**raw["model"], **change}}))
            for name, raw in zip(JSON_FILES[:2], (index, record), strict=True)
        )

    return st.builds(
        Case,
        st.just("size"),
        st.sampled_from(ALL),
        st.just(b"words"),
        some.map(both),
        st.just(True),
    )


def reseal(bank: Path, changed: set[str]) -> None:
    """Correct SHA-256s over whatever the bank holds now, as far as it still is a bank."""
    expert = bank / INSIDE
    try:
        index = json.loads((bank / "bank.json").read_bytes())
        index = {k: v for k, v in index.items() if k != "sha256"}
        folders = {INSIDE: expert, "seed_lm/": bank / "seed_lm"}
        for name, folder in folders.items():
            path = folder / "manifest.json"
            if name + "manifest.json" in changed:
                manifest = json.loads(path.read_bytes())
                kept = {k: v for k, v in manifest.items() if k != "sha256"}
                bank_folder.write_sealed(path, kept)
            elif folder.is_dir():
                needed = EXPERT_FILES if folder == expert else ()
                shape = index.get("lm") if (folder / LM).exists() else None
                write_manifest(folder, index["tokenizer"], shape, needed)
        note = bank / "tokenizer" / "tokenizer.json"
        if "tokenizer/tokenizer.json" in changed:
            index["tokenizer_files"] = {"tokenizer.json": bank_folder.sha256(note)}
        if EXPERT in index["experts"]:
            index["experts"][EXPERT] = {"sha256": bank_folder.sha256(expert / "manifest.json")}
        if "seed_lm" in index:
            index["seed_lm"] = {"sha256": bank_folder.sha256(bank / "seed_lm" / "manifest.json")}
        bank_folder.write_sealed(bank / "bank.json", index)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return  # no object at all: its own bytes are hostile enough


def dumps(value) -> bytes:
    return json.dumps(value).encode()


def put(case: Case, bank: Path) -> None:
    for name, data in case.files:
        (bank / name).write_bytes(data)
    if case.sealed:
        reseal(bank, {name for name, _ in case.files})


def restore(case: Case, pristine: Path, bank: Path) -> None:
    """The good bank again after `put` and whatever the command did."""
    changing = case.argv[:2] == ("bank", "remove")
    if changing or case.files:
        shutil.rmtree(bank)
        shutil.copytree(pristine, bank)


def _paths(value, path=()):
    """Every place in nested JSON."""
    found = [path]
    items = (
        value.items()
        if isinstance(value, dict)
        else (list(enumerate(value))[:2] if isinstance(value, list) else ())
    )
    for key, inner in items:
        found += _paths(inner, (*path, key))
    return found


def _with(value, path, new, delete):
    """`value` with the place `path` replaced by `new`, or deleted."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and delete:
        del copy[path[0]]
    else:
        copy[path[0]] = _with(copy[path[0]], path[1:], new, delete)
    return copy
