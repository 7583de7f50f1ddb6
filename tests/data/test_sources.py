"""Documents: every kind of spec, splits by group, streaming, and one clear line for bad input."""

import gzip
import io
import json
import lzma
import os
import sys

import pytest
import zstandard

from cr_jax.data import sources, text_files
from cr_jax.data.sources import documents, read_text
from cr_jax.errors import UserError


def one_line(error) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


def lines(*records) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def test_stdlib_is_code_without_tests_in_a_fixed_order():
    found = list(documents("stdlib"))
    names = [document.name for document in found]
    assert names == sorted(names) and len(names) > 200
    assert "json/decoder.py" in names and "textwrap.py" in names
    assert not any(
        part in ("test", "site-packages", "idlelib") for name in names for part in name.split("/")
    )
    assert {d.group for d in found if d.name in ("json/decoder.py", "json/tool.py")} == {"json"}
    assert found == list(documents("stdlib"))


def test_splits_are_disjoint_by_group_and_together_are_everything():
    parts = {split: list(documents(f"stdlib@{split}")) for split in sources.SPLITS}
    groups = {split: {d.group for d in part} for split, part in parts.items()}
    assert all(groups.values())
    assert not groups["train"] & groups["valid"]
    assert not groups["train"] & groups["test"]
    assert not groups["valid"] & groups["test"]
    assert sum(map(len, parts.values())) == len(list(documents("stdlib")))


def test_split_shares_are_near_80_10_10():
    found = [sources.split_of(f"author {i}") for i in range(20_000)]
    shares = [found.count(split) / len(found) for split in sources.SPLITS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


def test_files_by_glob_file_and_folder(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "blob").write_bytes(b"\0")
    (tmp_path / "b.txt").write_bytes("zwei\r\n\u2028".encode())
    (tmp_path / "deep" / "er" / "a.txt").write_text("eins")
    (tmp_path / "empty.txt").touch()
    whole = list(documents(f"files:{tmp_path}"))
    assert {d.name: d.text for d in whole} == {"b.txt": "zwei\r\n\u2028", "deep/er/a.txt": "eins"}
    assert list(documents(f"files:{tmp_path}/**/*.txt")) == whole
    assert [d.text for d in documents(f"files:{tmp_path}/deep/er/a.txt")] == ["eins"]


def test_a_group_and_so_its_split_does_not_depend_on_where_the_folder_lies(tmp_path):
    for place in ("here", "there/below"):
        (tmp_path / place / "p").mkdir(parents=True)
        (tmp_path / place / "p" / "x.txt").write_text("x")
    groups = {
        d.group
        for place in ("here", "there/below")
        for pattern in ("", "/p/*", "/**/x.txt")
        for d in documents(f"files:{tmp_path}/{place}{pattern}")
    }
    assert groups == {"p/x.txt", "x.txt"}


@pytest.mark.parametrize("ending", ["", ".zst", ".xz", ".gz"])
def test_jsonl_plain_and_compressed(tmp_path, ending):
    first = lines({"text": "ein\u2028s\r", "group": "g"}, {"text": ""})
    second = lines({"text": "zwei", "repo": "r"}, {"text": "drei", "path": "p"}, {"text": "vier"})
    pack = {
        "": bytes,
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".zst": zstandard.ZstdCompressor().compress,
    }[ending]
    path = tmp_path / f"d.jsonl{ending}"
    path.write_bytes(pack(first) + pack(second))  # two frames are one file
    found = list(documents(f"jsonl:{path}"))
    assert [d.text for d in found] == ["ein\u2028s\r", "zwei", "drei", "vier"]
    assert [d.group for d in found] == ["g", "r", "p", f"{path.name}:5"]
    assert list(documents(f"jsonl:{tmp_path}/*{ending}")) == found


def test_jsonl_field_and_long_window_zstd(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=28)
    packer = zstandard.ZstdCompressor(compression_params=parameters)
    data = packer.compress(lines({"code": "x = 1"}))
    (tmp_path / "d.jsonl.zst").write_bytes(data)
    assert [d.text for d in documents(f"jsonl:{tmp_path}/d.jsonl.zst#code")] == ["x = 1"]
    with pytest.raises(UserError, match="no field 'text'"):
        list(documents(f"jsonl:{tmp_path}/d.jsonl.zst"))


def test_documents_stream(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(lines({"text": "first"}) + b"not json\n")
    found = documents(f"jsonl:{path}")
    assert next(found).text == "first"  # the bad second line has not been read yet
    with pytest.raises(UserError, match="line 2"):
        next(found)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nonsense", "nonsense"),
        ("files:", "files"),
        ("stdlib@trian", "trian"),
        ("samples/none", "novels_en"),
        ("files:no/such/*.txt", "matches no file"),
        ("jsonl:no/such.jsonl", "matches no file"),
        ("tfds:justname", "NAME/SPLIT"),
    ],
)
def test_bad_specs(spec, says):
    with pytest.raises(UserError) as error:
        list(documents(spec))
    assert says in one_line(error)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"ab\xff", "offset 2"), (b"a\0b", "NUL byte at offset 1"), ("ä".encode()[:1], "offset 0")],
)
def test_bad_training_files_are_named(tmp_path, content, says):
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(UserError) as error:
        list(documents(f"files:{tmp_path}"))
    assert says in one_line(error) and "bad.txt" in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b"[1]\n"),
        ("a.jsonl", b'{"text": 1}\n'),
        ("a.jsonl", b'{"text": "\\ud800"}\n'),
        ("a.jsonl", b'{"text": "\xff"}\n'),
        ("a.jsonl.zst", b"not zstd"),
        ("a.jsonl.xz", b"not xz"),
        ("a.jsonl.gz", b"not gzip"),
        # mtime: the bytes name the test, and two workers must collect the same names.
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 99, mtime=0)[:-9]),
    ],
)
def test_bad_jsonl_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        list(documents(f"jsonl:{tmp_path / name}"))
    assert name in one_line(error)


def test_fingerprint_follows_content_and_spec(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    spec = f"files:{tmp_path}"
    before = sources.fingerprint(spec)
    assert sources.fingerprint(spec) == before != sources.fingerprint(spec + "@train")
    path.write_text("two")
    changed = sources.fingerprint(spec)
    assert changed != before
    path.rename(tmp_path / "b.txt")
    assert sources.fingerprint(spec) not in (before, changed)


@pytest.mark.parametrize("alphabet", ["ab\n", "aä€😀", "ä\r\n", "😀"])
def test_read_text_gives_the_file_in_small_pieces(tmp_path, alphabet, monkeypatch):
    monkeypatch.setattr(text_files, "PIECE_BYTES", 64)
    for extra in range(5):
        text = "x" * extra + alphabet * 50
        path = tmp_path / "t.txt"
        path.write_bytes(text.encode())
        pieces = list(read_text(path))
        assert "".join(pieces) == text and len(pieces) > 1
        assert max(len(piece.encode()) for piece in pieces) <= 64
    if alphabet == "ab\n":
        assert all(piece.endswith("\n") for piece in pieces)


@pytest.mark.parametrize(
    ("content", "offset"),
    [
        (b"a\n" * 100 + b"\xffb", 200),
        (b"a" * 130 + b"\0", 130),
        (b"a" * 63 + "€".encode()[:2], 63),
        (b"\x80" * 100, 0),
        (b"a" * 62 + b"\xe2\x82" + b"a" * 64, 62),
    ],
)
def test_read_text_names_the_bad_byte(tmp_path, monkeypatch, content, offset):
    monkeypatch.setattr(text_files, "PIECE_BYTES", 64)
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        list(read_text(path))
    assert "bad.txt" in one_line(error) and f"offset {offset}" in str(error.value)


def test_read_text_missing_empty_folder(tmp_path):
    (tmp_path / "empty.txt").touch()
    for path, says in [("no.txt", "does not exist"), ("empty.txt", "empty"), (".", "folder")]:
        with pytest.raises(UserError, match=says) as error:
            list(read_text(tmp_path / path))
        one_line(error)


def test_read_text_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("hä\r\n".encode())))
    assert "".join(read_text("-")) == "hä\r\n"


def test_random_text_has_its_symbols_in_equal_shares_and_is_always_the_same():
    found = list(documents("random:10"))
    text = "".join(d.text for d in found)
    shares = [text.count(c) / len(text) for c in sorted(set(text))]
    assert shares == pytest.approx([0.1] * 10, abs=0.002)
    assert found[0] != found[1] and found == list(documents("random:10"))
    parts = {s: {d.group for d in documents(f"random:10@{s}")} for s in sources.SPLITS}
    assert all(parts.values()) and sum(map(len, parts.values())) == len(found)
    assert sources.fingerprint("random:10") != sources.fingerprint("random:11")


@pytest.mark.parametrize("spec", ["random:", "random:1", "random:95", "random:ten"])
def test_random_text_of_no_alphabet_is_refused(spec):
    with pytest.raises(UserError) as error:
        list(documents(spec))
    assert "2 to 94" in one_line(error)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-32-be"])
def test_text_with_a_byte_order_mark_is_read_in_pieces(tmp_path, encoding, monkeypatch):
    monkeypatch.setattr(text_files, "PIECE_BYTES", 64)
    path, text = tmp_path / "t.txt", "\ufeff" + "x = 'é\U0001f600'\r\n" * 40
    path.write_bytes((text if encoding.endswith("be") else text[1:]).encode(encoding))
    found = list(read_text(path))
    assert "".join(found) == text and max(len(piece.encode()) for piece in found) <= 64
    assert [d.text for d in documents(f"files:{path}")] == [text]


@pytest.mark.parametrize(
    "content,says",
    [
        ("x = 1\n" * 99, "UTF-16LE without a byte order mark"),
        ("\u00e9t\u00e9 = 1\n" * 99, "UTF-16LE without a byte order mark"),
    ],
)
def test_a_wide_encoding_without_a_mark_is_named(tmp_path, content, says):
    path = tmp_path / "t.txt"
    path.write_bytes(content.encode("utf-16-le"))
    for read in (lambda: list(read_text(path)), lambda: list(documents(f"files:{path}"))):
        with pytest.raises(UserError, match=says) as error:
            read()
        assert "iconv -f UTF-16LE" in one_line(error)
    path.write_bytes(content.encode("utf-32-be"))
    with pytest.raises(UserError, match="UTF-32BE without"):
        list(read_text(path))


@pytest.mark.parametrize(
    "content,says",
    [
        (gzip.compress(b"text", mtime=0), "gzip data"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"),
        (b"PK\x03\x04\x14\0\0\0", "a ZIP archive"),
        ("caf\u00e9".encode("cp1252"), "Windows-1252"),
        (b"\xff\xfe\x00\xd8x\0", "begins as UTF-16-LE but is not"),
        (b"\x01\x02\xff abc", "control"),
    ],
)
def test_what_a_file_is_instead_of_text_is_named(tmp_path, content, says):
    path = tmp_path / "t.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        list(read_text(path))
    assert "t.txt" in one_line(error)


def test_standard_input_that_is_closed_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="standard input is closed") as error:
        list(read_text("-"))
    one_line(error)


def test_a_pipe_is_read_as_it_comes(tmp_path):
    """The first piece is there before the writer has closed, though it is far from 1 MiB."""
    ends = os.pipe()
    with open(ends[0], "rb") as read, open(ends[1], "wb", buffering=0) as write:
        found = text_files._pieces(read, "pipe")
        write.write(b"the river\nwas bro")
        assert next(found) == "the river\n"
        write.write("ad, ä".encode()[:-1])
        assert next(found) == "was broad, "
        write.write("ä".encode()[1:])
        write.close()
        assert list(found) == ["ä"]
