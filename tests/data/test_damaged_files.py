"""Files that are cut, damaged, too large or not what their name says: named, never shortened."""

import bz2
import gzip
import io
import json
import lzma
import tracemalloc
import zipfile

import pytest
import zstandard

from cr_jax.data import corpus, file_position, tokenizers
from cr_jax.data.records import json_lines
from cr_jax.data.sources import Reading, documents
from cr_jax.errors import UserError

TEXTS = [f"line {i} " + "of words " * (i % 3) for i in range(12)]


def lines(texts=TEXTS) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACK = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "xz": lzma.compress,
    "zst": zstd,
    "bz2": bz2.compress,
}
NAMES = {"gz": "gzip", "xz": "xz", "zst": "zstd", "bz2": "bzip2"}
DEEP = 100_000  # levels, more than JSON of any Python reads: 3.11 ends at 1000, 3.13 at 10000
SKIPPED = b"\x5e\x2a\x4d\x18\x03\0\0\0abc"  # a frame of zstd that readers pass over


@pytest.fixture
def refused(tmp_path):
    """What the file of these bytes is refused with, and how many documents came before."""

    def read(data: bytes, name: str = "d.jsonl", texts=TEXTS, **reading):
        (tmp_path / name).write_bytes(data)
        found = []
        with pytest.raises(UserError) as error:
            for document in documents(f"jsonl:{tmp_path / name}", Reading(**reading)):
                found.append(document.text)
        message = str(error.value)
        assert (
            name in message
            and "\n" not in message
            and "config." not in message.replace("config.data.max_document_bytes", "")
        )
        assert found == texts[: len(found)]
        return message, len(found)

    return read


def read(path):
    return [document.text for document in documents(f"jsonl:{path}")]


@pytest.mark.parametrize("kind", PACK)
def test_a_file_cut_at_any_byte_is_refused_or_ends_with_a_whole_stream(tmp_path, kind):
    first, second = PACK[kind](lines(TEXTS[:5])), PACK[kind](lines(TEXTS[5:]))
    path, refusals = tmp_path / f"cut.jsonl.{kind}", 0
    for size in range(len(first) + len(second) + 1):
        path.write_bytes((first + second)[:size])
        if size in (len(first), len(first) + len(second)):
            assert read(path) == TEXTS[: 5 if size == len(first) else None]
            continue
        found = []
        with pytest.raises(UserError, match=r"cut\.jsonl") as error:
            found += (record["text"] for _, record in json_lines(path))
        assert f"ends inside its {NAMES[kind]} data" in str(error.value) or size < len(first[:7])
        refusals += 1
    assert refusals == len(first) + len(second) - 1


@pytest.mark.parametrize("kind", PACK)
def test_the_line_that_was_reached_is_named(refused, kind):
    """All of the first stream is read, of the second at most what stands before the cut."""
    message, count = refused(
        PACK[kind](lines(TEXTS[:5])) + PACK[kind](lines(TEXTS[5:]))[:-9], f"c.jsonl.{kind}"
    )
    assert count >= 5 and f"after line {count}" in message and "cut short" in message


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("flip", [0x01, 0xFF])
def test_a_flipped_byte_is_refused_or_changes_nothing(tmp_path, kind, flip):
    whole = PACK[kind](lines(TEXTS[:6])) + PACK[kind](lines(TEXTS[6:]))
    path, refusals = tmp_path / f"bad.jsonl.{kind}", 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
        try:
            found = read(path)
        except UserError as error:
            assert "bad.jsonl" in str(error) and "\n" not in str(error)
            refusals += 1
        else:
            assert found == TEXTS, at  # such as the time in the head of a gzip file
    assert refusals > 0.8 * len(whole)


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("more", [b"x", b"garbage behind the end", lines(["more"]), b"\0\0x"])
def test_what_stands_behind_the_end_is_not_passed_over(refused, kind, more):
    message, count = refused(PACK[kind](lines()) + more, f"t.jsonl.{kind}")
    assert count == len(TEXTS) and f"holds something else behind its {NAMES[kind]} data" in message


@pytest.mark.parametrize("kind", PACK)
def test_streams_in_a_row_and_padding_are_one_text(tmp_path, kind):
    path = tmp_path / f"a.jsonl.{kind}"
    data = b"".join(PACK[kind](lines([text])) for text in TEXTS)
    padding = {"gz": b"\0" * 511, "xz": b"\0" * 8, "zst": SKIPPED, "bz2": b""}[kind]
    path.write_bytes(data + padding)
    assert read(path) == TEXTS
    path.write_bytes((SKIPPED if kind == "zst" else b"") + data + padding + data)
    assert read(path) == TEXTS * 2


@pytest.mark.parametrize("kind", PACK)
def test_what_a_file_is_counts_not_what_it_is_called(tmp_path, refused, kind):
    path = tmp_path / "plain.jsonl"
    path.write_bytes(PACK[kind](lines()))
    assert read(path) == TEXTS
    assert f"is not {NAMES[kind]} data" in refused(lines(), f"a.jsonl.{kind}")[0]
    assert "is empty" in refused(b"", f"e.jsonl.{kind}")[0]


def test_formats_that_are_not_read_are_named(refused):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.jsonl", lines())
    assert "a ZIP archive" in refused(archive.getvalue())[0]
    assert "a Parquet file" in refused(b"PAR1\x15\x04\n")[0]
    assert "gzip data" in refused(gzip.compress(gzip.compress(lines())))[0]
    tar = b"d.jsonl".ljust(257, b"\0") + b"ustar\0" + b"00" + bytes(247) + lines()
    assert "a tar archive" in refused(gzip.compress(tar))[0]
    assert "jq" in refused(json.dumps([{"text": "a"}], indent=1).encode())[0]


@pytest.mark.parametrize(
    "field",
    [
        b'"id": 1' + b"0" * 5000,
        b'"id": -9' + b"9" * 5000,
        b'"id": 1e99999',
        b'"tree": ' + b"[" * DEEP + b"]" * DEEP,
        b'"tree": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        b'"tree": ' + b'[{"]": "\\"[["}, ' * 1500 + b"0" + b"]" * 1500,
        b'"name": "\\ud800"',
        b'"name": "\\u0000"',
        b'"name": "\xff\xfe caf\xe9"',
        b'"\xff": 1',
        b'"name": 1, "name": 2',
        b'"in": {"text": 1, "text": "x"}',
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_fields_that_are_not_read_do_not_matter(tmp_path, field, before):
    path = tmp_path / "a.jsonl"
    text = b'"text": "river [\\" {"'
    path.write_bytes(
        b"{" + b", ".join([field, text] if before else [text, field]) + b"}\n" + lines(["next"])
    )
    assert read(path) == ['river [" {', "next"]


@pytest.mark.parametrize(
    "line,says",
    [
        (b'{"text": "a", "x": 01}', "is not JSON"),
        (b'{"text": "a\0"}', "NUL bytes"),
        (b"\0" * 50, "NUL bytes"),
        (b'{"text": "a"', "is not JSON"),
        (b'{"text": "a"} {}', "not JSON"),
        (b"[" * DEEP, "array"),
        (b'{"text": ' + b"[" * DEEP + b"]" * DEEP + b"}", "is not text but"),
        (b'{"text": ' + b"[" * DEEP + b"]" * (DEEP - 1) + b"}}", "a bracket that nothing opened"),
        (
            b'{"text": "a", "x": ' + b"[" * DEEP + b"]" * (DEEP - 1000),
            "a bracket that nothing closes",
        ),
        (b'{"text": 1' + b"0" * 5000 + b"}", "is not text but a number"),
        (b'{"text": "\xff"}', "not valid Unicode"),
        (b'{"text": "ab\\ud800"}', "at character 3"),
        (b'{"text": "a", "text": "b"}', "'text' twice"),
        (b'{"a\\n": 1}', "no field 'text'"),
        (b"3", "not a JSON object but a number"),
        (b"null", "but null"),
        (b"\xff", "is not JSON"),
        (b"{'text': 'a'}", "is not JSON"),
        (b"x\x85{}", "is not JSON"),
    ],
    ids=range(19),
)
def test_a_line_that_is_not_a_record_is_named_with_its_number(refused, line, says):
    message, count = refused(lines(TEXTS[:3]) + b"\n" + line + b"\n" + lines())
    assert count == 3 and "line 5" in message and says in message


def test_many_fields_are_not_all_listed(refused):
    message, _ = refused(json.dumps({f"field{i}": i for i in range(500)}).encode())
    assert "field0" in message and "488 more" in message and len(message) < 500


@pytest.mark.parametrize("mark", [True, False])
def test_byte_order_marks_and_blank_lines(tmp_path, mark):
    path = tmp_path / "a.jsonl"
    head = "\ufeff".encode() if mark else b""
    path.write_bytes(head + b"\r\n \t\n" + head + lines().replace(b"\n", b"\r\n") + head)
    assert read(path) == TEXTS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_wide_encodings_with_a_byte_order_mark_are_read(tmp_path, refused, encoding, pack):
    path, text = tmp_path / "a.jsonl", "\ufeff" * (encoding[-2:] in ("le", "be"))
    texts = ["Fön\U0001f600", "x" * 100_001, "end"]
    text += "".join(json.dumps({"text": t}, ensure_ascii=False) + "\r\n" for t in texts)
    path.write_bytes(pack(text.encode(encoding)))
    assert read(path) == texts
    assert "offset" in refused(pack(text.encode(encoding)[:-1]), texts=texts)[0]
    if pack is bytes:
        bare = text.encode(encoding).removeprefix("\ufeff".encode(encoding))
        if encoding[-2:] in ("le", "be"):
            assert "byte order mark" in refused(bare)[0]


def test_a_line_of_at_most_so_many_bytes(tmp_path, refused):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(["a" * 50, "b" * 87]))
    assert len(path.read_bytes().splitlines(True)[1]) == 100
    assert len(list(documents(f"jsonl:{path}", Reading(max_document_bytes=100)))) == 2
    message, count = refused(
        path.read_bytes().replace(b"a" * 50, TEXTS[0].encode()), max_document_bytes=99
    )
    assert count == 1 and "line 2 is longer than 99 bytes" in message
    assert "config.data.max_document_bytes" in message


@pytest.mark.parametrize("kind", PACK)
def test_a_small_archive_of_a_huge_line_is_refused_in_bounded_memory(tmp_path, kind):
    path = tmp_path / f"a.jsonl.{kind}"
    size = 1 << 25
    path.write_bytes(PACK[kind](b'{"text": "' + b"a" * size + b'"}\n'))
    assert path.stat().st_size < size / 500
    tracemalloc.start()
    with pytest.raises(UserError, match="line 1 is longer than 1,000,000 bytes"):
        list(documents(f"jsonl:{path}", Reading(max_document_bytes=1_000_000)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000_000


def test_a_large_text_file_is_refused_by_the_same_setting(tmp_path):
    (tmp_path / "a.txt").write_text("a" * 100)
    spec = f"files:{tmp_path}"
    assert len(list(documents(spec, Reading(max_document_bytes=100)))) == 1
    with pytest.raises(UserError, match=r"a\.txt is longer than 99 bytes.*max_document_bytes"):
        list(documents(spec, Reading(max_document_bytes=99)))


class Failing(io.RawIOBase):
    """A disk that gives up."""

    def readable(self):
        return True

    def readinto(self, buffer):
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("spec", ["files:a.txt", "jsonl:a.jsonl"])
def test_a_disk_that_fails_is_blamed_on_the_file_not_on_the_cache(tmp_path, monkeypatch, spec):
    monkeypatch.chdir(tmp_path)
    name = spec.partition(":")[2]
    (tmp_path / name).write_bytes(lines())
    failing = lambda *_: io.BufferedReader(Failing())
    monkeypatch.setattr(file_position, "open", failing, raising=False)
    for act in (
        lambda: list(documents(spec)),
        lambda: corpus.load_corpus([spec], tokenizers.ByteTokenizer(), tmp_path / "cache"),
    ):
        with pytest.raises(UserError, match=f"{name} cannot be read: Input/output error"):
            act()
