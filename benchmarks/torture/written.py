"""Files as others write them: encodings, line ends, compressed, whole or damaged."""

import bz2
import codecs
import gzip
import itertools
import json
import lzma
import typing
import unicodedata
from unittest import mock

import zstandard
from hypothesis import strategies as st

from benchmarks.torture.probes import Probe, differences
from cr_jax.data import documents, encodings, read_text, text_files
from cr_jax.data.text_form import formed, text_form

# Encodings

_letters = st.text(st.sampled_from("ab \n\r\té中😀ßЖ\u0301\ufeff\x00\x85\u2028"), max_size=40)
_texts = st.one_of(_letters, st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
CODECS = (
    *("utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le"),
    *("utf-32-be", "latin-1", "cp1252", "cp1251", "koi8-r", "gb18030", "shift_jis", "utf-7"),
)
MARKS = {
    **{codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be"},
    **{codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"},
}


def encoded() -> st.SearchStrategy[Probe]:
    """A text in one of many encodings, whole, cut or with a byte too many."""
    damage = st.tuples(st.sampled_from(["no", "cut", "more"]), st.integers(0, 200), st.binary())

    def damaged(parts):
        text, codec, (how, at, more) = parts
        data = text.encode(codec, "replace")
        at = at % (len(data) + 1)
        return {"no": data, "cut": data[:at], "more": data[:at] + more + data[at:]}[how]

    made = st.tuples(_texts, st.sampled_from(CODECS), damage).map(damaged)
    return st.builds(_encoded, st.one_of(made, st.binary(max_size=60)), st.integers(8, 64))


def _encoded(data: bytes, piece: int) -> Probe:
    right = text_of(data)

    def call(folder):
        (folder / "a.txt").write_bytes(data)
        with (
            mock.patch.object(text_files, "PIECE_BYTES", piece),
            mock.patch.object(encodings, "_READ", piece),
        ):
            pieces = list(read_text(folder / "a.txt"))
        said = [d.text for d in documents(f"files:{folder / 'a.txt'}")]
        return differences(["".join(pieces)], [right]) + differences(said, [right])

    return Probe("encoding", f"{data[:60]!r} in pieces of {piece}", call, refused=not right)


def text_of(data: bytes) -> str:
    """What these bytes are as a text; empty for no text."""
    encoding = next((codec for mark, codec in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return ""
    return "" if "\0" in text else text


# Line ends

_ENDS = ("\r\n", "\r", "\r\r\n", "\x85", "\u2028", "\u2029")
_lines = st.lists(st.text(st.sampled_from("ab \té中e\u0301\u0308각ᄀ\v\f"), max_size=8), max_size=8)


def line_ends() -> st.SearchStrategy[Probe]:
    """A text with other line ends, decomposed, or cut anywhere: its form is the same."""
    return st.builds(
        _line_ends,
        _lines,
        st.sampled_from(_ENDS),
        st.sampled_from(["NFC", "NFD"]),
        st.lists(st.integers(0, 60), max_size=6),
    )


def _line_ends(lines: list[str], end: str, form: typing.Literal["NFC", "NFD"], cuts) -> Probe:
    text = "\n".join(lines)
    other = end.join(unicodedata.normalize(form, line) for line in lines)

    def call(folder):
        places = [0, *sorted(min(cut, len(other)) for cut in cuts), len(other)]
        pieces = [other[a:b] for a, b in itertools.pairwise(places)]
        wrong = differences([text_form(other)], [text_form(text)])
        wrong += differences(["".join(formed(pieces))], [text_form(text)])
        wrong += differences([text_form(text_form(other))], [text_form(text)])
        # Reading loses none of them, nor counts one inside a string of JSON as the line's end.
        (folder / "a.txt").write_bytes(other.encode())
        said = [d.text for d in documents(f"files:{folder / 'a.txt'}")]
        wrong += differences(said, [other] if other else [])
        records = [json.dumps({"text": t}, ensure_ascii=False) for t in (other or "x", "last")]
        apart = "\r\n" if end.startswith("\r") else "\n\n"
        (folder / "a.jsonl").write_bytes((apart.join(records) + apart).encode())
        said = [d.text for d in documents(f"jsonl:{folder / 'a.jsonl'}")]
        return wrong + differences(said, [other or "x", "last"])

    return Probe("line end", f"{other[:60]!r} cut at {cuts}", call, refused=False)


# Archives

RECORDS = ("first words\n", "zweite Wörter", "third " + "of many " * 6)
_LINES = "".join(json.dumps({"text": text}) + "\n" for text in RECORDS).encode()


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACKERS = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zst": _zstd,
}


def packed() -> dict[str, tuple[bytes, frozenset[int]]]:
    """Name -> (archive, at how many bytes it may end): of one stream, of one per record, padded."""
    archives = {}
    for suffix, pack in PACKERS.items():
        streams = [pack(line) for line in _LINES.splitlines(keepends=True)]
        # A cut between two streams leaves a whole file of fewer records: nobody can tell.
        ends = frozenset(itertools.accumulate(map(len, streams)))
        whole = pack(_LINES)
        archives[f"one.jsonl.{suffix}"] = whole, frozenset({len(whole)})
        archives[f"several.jsonl.{suffix}"] = b"".join(streams), ends
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0skip"
    archives["skipped.jsonl.zst"] = (
        skipped + archives["one.jsonl.zst"][0],
        frozenset({len(skipped), len(skipped) + len(archives["one.jsonl.zst"][0])}),
    )
    return archives


def cut_archives() -> list[Probe]:
    """Every archive cut at every byte, read by its own name and by one that says nothing."""
    return [
        _archive(f"{name} cut at {at}", name, data[:at], None if at in ends else True)
        for name, (data, ends) in packed().items()
        for at in range(len(data))
    ]


def changed_archives() -> st.SearchStrategy[Probe]:
    """Archives with a bit flipped, something behind them, or another name."""
    archives = packed()
    names = st.sampled_from(sorted(archives))

    def flipped(parts):
        name, at, bit = parts
        data = bytearray(archives[name][0])
        data[at % len(data)] ^= 1 << bit
        return _archive(f"{name} flipped at {at % len(data)}, {bit}", name, bytes(data), None)

    def longer(parts):
        name, more = parts
        return _archive(f"{name} and {more!r}", name, archives[name][0] + more, None)

    def renamed(parts):
        name, suffix = parts
        return _archive(f"{name} as {suffix}", f"a{suffix}", archives[name][0], False)

    more = st.one_of(st.binary(min_size=1, max_size=8), st.integers(1, 600).map(bytes))
    return st.one_of(
        st.tuples(names, st.integers(0, 2000), st.integers(0, 7)).map(flipped),
        st.tuples(names, more).map(longer),
        st.tuples(names, st.sampled_from([".jsonl", ".json", "", ".xz", ".gz"])).map(renamed),
    )


def _archive(what: str, name: str, data: bytes, refused: bool | None) -> Probe:
    def call(folder):
        (folder / name).write_bytes(data)
        said = [d.text for d in documents(f"jsonl:{folder / name}")]
        if refused is None and said == list(RECORDS[: len(said)]) and "cut at" in what:
            return []  # a whole archive of fewer records
        return differences(said, RECORDS)

    return Probe("archive", what, call, refused)
