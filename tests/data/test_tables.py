"""Parquet, CSV and text files become documents as they stream, or one clear line."""

import gzip
import random
import tracemalloc

import pyarrow
import pytest
from pyarrow import parquet

from cr_jax.data import file_position, sources, tables
from cr_jax.data.sources import Reading, documents
from cr_jax.errors import UserError

TEXTS = ["def f(x):\n    return x\r\n", "", "ünïcode \U0001f600", 'a "quoted", cell\nof two lines']
TABLE = {
    "id": [1, 2, 3, 4],
    "content": TEXTS,
    "repo": ["a", "a", "b", "c"],
    "meta": [{"owner": "x"}, {"owner": "x"}, {"owner": "y"}, {"owner": "y"}],
}


def refused(spec: str, reading: Reading = sources.READING) -> str:
    with pytest.raises(UserError) as error:
        list(documents(spec, reading))
    assert "\n" not in str(error.value)
    return str(error.value)


def write_parquet(path, table=TABLE, **options):
    parquet.write_table(pyarrow.table(table), path, **options)
    return path


def test_a_column_of_a_parquet_file(tmp_path):
    for number in range(2):
        write_parquet(tmp_path / f"{number}.parquet", row_group_size=3)
    found = list(documents(f"parquet:{tmp_path}/*.parquet#content"))
    assert [d.text for d in found] == [text for text in TEXTS if text] * 2
    assert [d.name for d in found[:3]] == ["0.parquet:1", "0.parquet:3", "0.parquet:4"]
    assert [d.group for d in found[:3]] == ["a", "b", "c"]
    owned = documents(f"parquet:{tmp_path}/0.parquet#content&group=meta.owner@train")
    assert {d.group for d in owned} <= {"x", "y"}


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.large_string(),
        pyarrow.binary(),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
    ],
)
def test_text_is_read_in_each_form_of_arrow(tmp_path, kind):
    write_parquet(tmp_path / "a.parquet", {"text": pyarrow.array(["ein", "zwei"]).cast(kind)})
    assert [d.text for d in documents(f"parquet:{tmp_path}/a.parquet")] == ["ein", "zwei"]


def test_only_a_few_rows_are_held(tmp_path, monkeypatch):
    """Of a row group of any size: batches are as small as they are asked for."""
    sizes = []
    rows = tables._rows
    monkeypatch.setattr(
        tables,
        "_rows",
        lambda path, batches, wanted: rows(
            path, (sizes.append(b.num_rows) or b for b in batches), wanted
        ),
    )
    write_parquet(tmp_path / "a.parquet", {"text": [f"text {i}" for i in range(1000)]})
    assert len(list(documents(f"parquet:{tmp_path}/a.parquet"))) == 1000
    assert sum(sizes) == 1000 and max(sizes) <= tables._ROWS


def test_a_large_column_is_read_in_pieces(tmp_path):
    """Whatever its writer took for a row group."""
    texts = [random.Random(i).randbytes(2000).hex() for i in range(1500)]
    pages = {"use_dictionary": False, "data_page_size": 1 << 16, "write_batch_size": 16}
    path = write_parquet(tmp_path / "a.parquet", {"text": texts}, row_group_size=1 << 20, **pages)
    reads: list[int] = []
    with file_position.told(reads.append):
        assert [d.text for d in documents(f"parquet:{path}")] == texts
    assert path.stat().st_size > 4 * tables._BUFFER >= 4 * max(reads)


def test_a_table_without_the_column_names_those_that_it_has(tmp_path):
    path = write_parquet(tmp_path / "a.parquet")
    said = refused(f"parquet:{path}")
    assert said == f"{path} has no column 'text'; it has id, content, repo, meta: name one behind #"
    with pytest.raises(UserError, match="has no column 'text'"):
        sources.check(f"parquet:{path}")  # before a run begins
    (tmp_path / "a.csv").write_text("id,content\n1,x\n")
    assert "has no column 'text'; it has id, content" in refused(f"csv:{tmp_path}/a.csv")


def test_what_is_no_table_or_no_text_is_one_line(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense PAR1")
    assert "a.parquet cannot be read as a table" in refused(f"parquet:{tmp_path}/a.parquet")
    path = write_parquet(tmp_path / "b.parquet")
    assert "row 1: field 'id' is not text but a number" in refused(f"parquet:{path}#id")
    path = write_parquet(tmp_path / "c.parquet", {"text": ["a", None]})
    assert "row 2: field 'text' is not text but null" in refused(f"parquet:{path}")
    data = write_parquet(tmp_path / "d.parquet", {"text": ["ab" * 5000]}).read_bytes()
    (tmp_path / "d.parquet").write_bytes(data[: len(data) // 2])
    assert "cannot be read as a table" in refused(f"parquet:{tmp_path}/d.parquet")
    write_parquet(tmp_path / "e.parquet", {"text": ["a", "b" * 99]})
    assert "row 2 is longer than 50 bytes" in refused(
        f"parquet:{tmp_path}/e.parquet", Reading(max_document_bytes=50)
    )
    late = pyarrow.array([1 << 62], pyarrow.timestamp("us"))
    for value in (late, pyarrow.StructArray.from_arrays([late], names=["owner"])):
        write_parquet(tmp_path / "f.parquet", {"text": ["a"], "meta": value})
        assert "row 1 has a date or a time span out of range" in refused(
            f"parquet:{tmp_path}/f.parquet"
        )
    assert "matches no file" in refused(f"parquet:{tmp_path}/none*.parquet")
    assert "is a folder" in refused(f"parquet:{tmp_path}")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert refused(f"parquet:{path}#content").endswith("install cr_jax[data]")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_a_column_of_a_csv_file(tmp_path, delimiter, pack):
    quoted = [('"' + text.replace('"', '""') + '"') for text in TEXTS]
    rows = [delimiter.join(("id", "content", "repo"))]
    rows += [delimiter.join((str(i), cell, "r")) for i, cell in enumerate(quoted)]
    data = "\ufeff" + "\r\n".join([*rows, "", ""])
    (tmp_path / "a.csv").write_bytes(pack(data.encode()))
    found = list(documents(f"csv:{tmp_path}/a.csv#content"))
    assert [d.text for d in found] == [text for text in TEXTS if text]
    assert [d.name for d in found] == ["a.csv:2", "a.csv:6", "a.csv:7"]  # where a row begins
    assert {d.group for d in found} == {"r"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"text,b\nx,1\ny\n", "line 3 has 1 cells, the first line names 2"),
        (b'text,b\nx,1\n"y,2\n', "line 3 is not CSV"),
        (b"text,b\nx,\xff\n", "is not UTF-8 after line 1"),
        (b"text,text\nx,y\n", "the column 'text' twice"),
        (b"", "has no column 'text'; it has none"),
        (b"\x1f\x8b\x08\x00", "a.csv ends inside its gzip data"),
    ],
)
def test_a_bad_csv_is_one_line(tmp_path, data, says):
    (tmp_path / "a.csv").write_bytes(data)
    assert says in refused(f"csv:{tmp_path}/a.csv")


def test_a_long_row_of_csv_is_refused_before_it_is_read(tmp_path):
    """Also of many lines, and where a small file unpacks to it."""
    row = b"x" * 30_000_000
    for name, data in (
        ("line", b"text,b\n" + row),
        ("header", b"text," + row),
        ("quoted", b'text,b\ny,1\n"' + b"xxxxxxx\n" * 4_000_000),
        ("cells", b"text,b\ny,1\n" + b'"x\nx",' * 4_000_000),
    ):
        path = tmp_path / f"{name}.csv.gz"
        path.write_bytes(gzip.compress(data, 1))
        del data
        tracemalloc.start()
        said = refused(f"csv:{path}", Reading(max_document_bytes=1000))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        line = {"line": 2, "header": 1}.get(name, 3)
        assert f"line {line}: a row is longer than 131,072 characters" in said
        assert most < 12_000_000
    rows = "text,b\n" + f"{'x' * 100_000},1\n" * 3
    (tmp_path / "a.csv").write_text(rows)  # each row for itself
    assert len(list(documents(f"csv:{tmp_path}/a.csv", Reading(max_document_bytes=1000)))) == 3


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    two = lambda name: pyarrow.table([["x"], ["y"], ["z"]], names=["text", name, name])
    for name, ask in (("repo", ""), ("owner", "#text&group=owner@train"), ("b", "#b")):
        parquet.write_table(two(name), tmp_path / "a.parquet")
        (tmp_path / "a.csv").write_text(f"text,{name},{name}\nx,y,z\n")
        with pyarrow.ipc.new_stream(tmp_path / "a.arrow", two(name).schema) as stream:
            stream.write_table(two(name))
        for kind in ("parquet", "csv"):
            said = refused(f"{kind}:{tmp_path}/a.{kind}{ask}")
            assert said == f"{tmp_path}/a.{kind} has the column {name!r} twice; rename one of them"
        wanted = tables.Wanted(ask[1:2] if name == "b" else "text", "owner" if ask else "")
        with pytest.raises(UserError, match=f"a.arrow has the column '{name}' twice"):
            list(tables.arrow_rows(tmp_path / "a.arrow", wanted))
    parquet.write_table(two("b"), tmp_path / "a.parquet")  # of columns that nobody wants
    assert [d.text for d in documents(f"parquet:{tmp_path}/a.parquet")] == ["x"]


def test_lines_paragraphs_or_files_of_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("eins\r\nzwei\n\n  \n\nüdrei\nvier".encode())
    read = lambda unit: [(d.text, d.name) for d in documents(f"text:{path}{unit}")]
    lines = [("eins", "a.txt:1"), ("zwei", "a.txt:2"), ("üdrei", "a.txt:6"), ("vier", "a.txt:7")]
    assert read("") == read("#line") == lines
    assert read("#paragraph") == [("eins\r\nzwei", "a.txt:1"), ("üdrei\nvier", "a.txt:6")]
    assert read("#document") == [(path.read_bytes().decode(), "a.txt:1")]
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert [d.text for d in documents(f"text:{tmp_path}/a.txt.gz")] == [text for text, _ in lines]
    assert "a document is a #line, a #paragraph or a #document" in refused(f"text:{path}#page")


def test_bad_text_is_one_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"ein\nzw\xff\n")
    assert "not UTF-8: bad byte 0xff at offset 6" in refused(f"text:{tmp_path}/a.txt")
    (tmp_path / "a.txt").write_bytes(b"short\n" + b"x" * 60)
    limited = Reading(max_document_bytes=50)
    assert "line 2: a line is longer than 50 bytes" in refused(f"text:{tmp_path}/a.txt", limited)
    (tmp_path / "a.txt").write_bytes(b"a line\n" * 9)
    said = refused(f"text:{tmp_path}/a.txt#paragraph", limited)
    assert "line 1: a paragraph is longer than 50 bytes" in said


@pytest.mark.parametrize("spec", ["parquet:a.parquet#content", "csv:a.csv#content", "text:a.txt"])
def test_tokens_are_cached_for_these_bytes(tmp_path, monkeypatch, spec):
    monkeypatch.chdir(tmp_path)
    write_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("content\nx\n")
    (tmp_path / "a.txt").write_text("x\n")
    first = sources.fingerprint(spec)
    assert sources.fingerprint(spec) == first and sources.size(spec) > 0
    write_parquet(tmp_path / "a.parquet", {"content": ["other"]})
    (tmp_path / "a.csv").write_text("content\ny\n")
    (tmp_path / "a.txt").write_text("y\n")
    assert sources.fingerprint(spec) != first
