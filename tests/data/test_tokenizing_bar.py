"""The bar moves with what is read or tokenised, ends full, and is silent in a file."""

import gzip
import io
import json
import lzma
import random
import sys

import pytest
import zstandard

from cr_jax.data import ByteTokenizer, documents, encoding, file_position, load_corpus
from cr_jax.data.encoding import Encoder
from cr_jax.data.sources import size
from cr_jax.data.tokenizing_bar import TokenizingBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch) -> Terminal:
    """Takes the place of stderr; pytest sets it anew before each test's call."""
    found = Terminal()
    monkeypatch.setattr(sys, "stderr", found)
    return found


def share(bar) -> float:
    return bar._bar.n / bar._bar.total


def test_it_moves_with_the_bytes_and_the_tokens(monkeypatch):
    shown = terminal(monkeypatch)
    with TokenizingBar([1000, 3000], [None, 1000]) as bar:
        with bar.corpus(0, "one") as on_tokens, file_position.told(lambda n: None):
            on_tokens(10, 10)
            assert share(bar) == 0  # without a limit, tokens say nothing of what is left
        assert share(bar) == 0.5  # both weigh 1,000
        with bar.corpus(1, "two") as on_tokens:
            file_position._told.get()(300)
            assert share(bar) == pytest.approx(0.55)
            on_tokens(400, 500)  # 100 were there from an earlier start
            assert share(bar) == pytest.approx(0.75)
            file_position._told.get()(300)
            assert share(bar) == pytest.approx(0.75)  # it never moves back
        assert share(bar) == 1
        assert bar.tokens == 410
        bar._bar.refresh()
    assert "two, " in shown.getvalue() and " tokens/s" in shown.getvalue()


def test_a_corpus_from_files_moves_it_all_the_way(tmp_path, monkeypatch):
    terminal(monkeypatch)
    monkeypatch.setattr(encoding, "CHUNK", 1)
    for n in range(4):
        (tmp_path / f"{n}.txt").write_text("x" * 100)
    spec, seen = f"files:{tmp_path}/*.txt", []
    assert size(spec) == 400 and size("random:4") == 0
    with (
        TokenizingBar([size(spec)], [None]) as bar,
        Encoder(ByteTokenizer(), 1) as encoder,
        bar.corpus(0, "files") as on_tokens,
    ):

        def note(new, total):
            on_tokens(new, total)
            seen.append((new, total, share(bar)))

        load_corpus([spec], encoder, tmp_path / "cache", on_tokens=note)
    assert seen == [(101, 101 * n, n / 4) for n in range(1, 5)]


def lines(count: int) -> bytes:
    """JSON lines whose text can hardly be compressed."""
    letters = random.Random(0).choices("abcdefghijklmnop", k=count * 500)
    return b"".join(
        json.dumps({"text": "".join(letters[i : i + 500])}).encode() + b"\n"
        for i in range(0, len(letters), 500)
    )


@pytest.mark.parametrize(
    "name, pack",
    [
        ("a.jsonl", bytes),
        ("a.jsonl.gz", gzip.compress),
        ("a.jsonl.xz", lzma.compress),
        ("a.jsonl.zst", lambda data: zstandard.ZstdCompressor().compress(data)),
        ("a.jsonl", lambda data: data.decode().encode("utf-16")),
    ],
    ids=["plain", "gzip", "xz", "zstd", "utf-16"],
)
def test_it_moves_within_a_file_of_any_kind(tmp_path, monkeypatch, name, pack):
    terminal(monkeypatch)
    monkeypatch.setattr(encoding, "CHUNK", 1)
    (tmp_path / name).write_bytes(pack(lines(600)))
    spec, seen = f"jsonl:{tmp_path}/{name}", []
    total = size(spec)
    assert total == (tmp_path / name).stat().st_size > 100_000
    with (
        TokenizingBar([total], [None]) as bar,
        Encoder(ByteTokenizer(), 1) as encoder,
        bar.corpus(0, "lines"),
    ):
        load_corpus(
            [spec],
            encoder,
            tmp_path / "cache",
            on_tokens=lambda new, total: seen.append(share(bar)),
        )
    assert len(seen) == 600 and seen == sorted(seen) and seen[-1] == 1
    assert seen[0] < 0.7 and len(set(seen)) > 2


def test_it_moves_with_the_standard_library(tmp_path):
    told, spec = [], "stdlib@valid"
    with file_position.told(told.append):
        assert len(list(documents(spec))) > 10
    assert sum(told) == size(spec) > 1_000_000


def test_it_is_silent_where_nobody_looks(monkeypatch, capsys):
    with TokenizingBar([0], [None]) as bar:
        with bar.corpus(0, "one") as on_tokens:
            on_tokens(5, 5)
        with bar.writing():
            print("a line")
    assert capsys.readouterr() == ("a line\n", "") and bar.tokens == 5


def test_positions_are_told_in_the_block_only(tmp_path):
    path, told = tmp_path / "file", []
    path.write_bytes(b"x" * 50_000)
    with file_position.told(told.append), file_position.opened(path) as inside:
        assert inside.peek(10) and inside.read(100) == b"x" * 100
        assert 100 <= sum(told) < 50_000
        assert inside.read() == b"x" * 49_900
    assert sum(told) == 50_000
    with file_position.opened(path) as outside:
        outside.read()
    assert sum(told) == 50_000
    with pytest.raises(FileNotFoundError):
        file_position.opened(tmp_path / "nowhere")
